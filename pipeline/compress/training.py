"""What passes that may train beside what they do have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from device_agents.api import Failure
from device_agents.errors import ConfigError
from device_agents.plain_values import bounds
from device_agents.plural import number_of
from pipeline.train.devices import TrainDevice  # noqa: TC001  # options are read by their types
from pipeline.train.fit import FitOptions, fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.compress.api import Needs, Use
    from pipeline.train.fit import Fitted


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How a network is trained meanwhile, as of `pipeline.train.fit.FitOptions`; 0 epochs: not."""

    epochs: int = field(default=0, metadata=bounds(low=0, high=100_000))
    batch_size: int = field(default=64, metadata=bounds(low=2, high=65_536))
    learning_rate: float = field(default=0.01, metadata=bounds(above=0, high=100))
    distillation: float = field(default=0.5, metadata=bounds(low=0, high=1e6))
    device: TrainDevice = "cpu"

    @property
    def uses(self) -> frozenset[Use]:
        """Which samples a pass with these options cannot do without."""
        return frozenset({"training"}) if self.epochs else frozenset()


def train(
    module: Any,
    options: TrainingOptions,
    needs: Needs,
    *,
    name: str,
    after_step: Callable[[float], None],
) -> Fitted:
    """Train a module in place as options of a pass say.

    Args:
        module: `pipeline.train.fit.Trainable`.
        options: with one epoch at least.
        needs: with lessons.
        name: of the pass.
        after_step: see `pipeline.train.fit.fit`.

    Raises:
        ConfigError: there are no lessons, or none of this network, or the training diverged.
    """
    wanted = FitOptions(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        distillation=options.distillation,
        device=options.device,
    )
    found = fit(module, needs.require_lessons(name), wanted, name=name, after_step=after_step)
    if isinstance(found, Failure):
        raise ConfigError(f"{name}: {found.reason}")
    return found


def words_of(options: TrainingOptions, found: Fitted) -> str:
    """Say what a training came to, as the end of a line of history."""
    where = "" if found.on == "cpu" else f" on {found.on}"
    return (
        f"; trained {number_of(options.epochs, 'epoch')} meanwhile on {found.samples} samples"
        f"{where}: loss "
        f"{found.loss_before:.4g} to {found.loss:.4g}"
    )
