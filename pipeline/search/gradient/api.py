"""What a gradient search is given and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from device_agents.api import Failure
from models.spec import ArchSpec
from pipeline.search.api import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.data.api import Data
    from pipeline.train.checkpoints import Checkpoints

Predict = Callable[[ArchSpec], float]
"""Latency in milliseconds of a network by a model that adds up over blocks, such as a table."""

Measure = Callable[[ArchSpec], Estimate | Failure]
"""Latency in milliseconds of a network, measured on the device."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch of the architecture came to.

    Attributes:
        epoch: counted from 1.
        loss: mean cross-entropy of the architecture steps, without the latency term.
        expected_ms: mean latency of the networks that the probabilities draw, by the model.
        derived_ms: latency of the network that would be taken now, by the model.
        pressure: weight of the latency term; it follows the distance from the target.
        entropy_bits: mean entropy of the cells' probabilities; 0 when every cell has decided.
        correction: measured over modelled latency, as far as known.
    """

    epoch: int
    loss: float
    expected_ms: float
    derived_ms: float
    pressure: float
    entropy_bits: float
    correction: float


@dataclass(frozen=True, slots=True)
class Found:
    """A network that the search would take.

    Attributes:
        spec: the network.
        log_probability: log of the probability that it is drawn, at the end.
        predicted_ms: its latency by the model, uncorrected.
        measured: its latency on the device, if it was measured.
    """

    spec: ArchSpec
    log_probability: float
    predicted_ms: float
    measured: Estimate | None = None


@dataclass(frozen=True, slots=True)
class GradientOutcome:
    """Networks, best first, and how the search went."""

    found: tuple[Found, ...]
    history: tuple[Epoch, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        found = [{**asdict(one), "spec": str(one.spec)} for one in self.found]
        return {"found": found, "history": [asdict(epoch) for epoch in self.history]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        found = (
            Found(
                ArchSpec.parse(one["spec"]),
                # Stores of schema 1 have it under its name of then.
                one.get("log_probability", one.get("log_odds")),
                one["predicted_ms"],
                Estimate(**one["measured"]) if one["measured"] else None,
            )
            for one in data["found"]
        )
        return cls(tuple(found), tuple(Epoch(**epoch) for epoch in data["history"]))


class GradientSearch(Protocol):
    """Trains a network that holds a space, and the probabilities of its choices with it."""

    @property
    def epochs(self) -> int:
        """Epochs in all, warm-up included."""

    def cover_space(self) -> Sequence[ArchSpec]:
        """Return a few networks that together hold every block of the space."""

    def run(
        self,
        data: Data,
        predict: Predict,
        target_ms: float,
        *,
        measure: Measure | None = None,
        count: int = 1,
        checkpoints: Checkpoints | None = None,
        on_epoch: Callable[[int], None] = lambda _epoch: None,
    ) -> GradientOutcome:
        """Search for up to `count` networks at most as slow as `target_ms`, and hardly faster.

        Args:
            data: weights are trained on the training split, probabilities on the validation one.
            predict: the latency model; its differences between networks are used.
            target_ms: the latency on the device to land on, from below.
            measure: corrects the model by the device, and decides what is on target.
            count: networks to return at most.
            checkpoints: asked once at the start, given the state after every epoch.
            on_epoch: told the number of epochs done, warm-up included.

        Raises:
            TargetError: no network of the space meets the target; names the fastest one known.
            ConfigError: the training diverged.
        """
