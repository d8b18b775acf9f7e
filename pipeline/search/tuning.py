"""Search of training hyper-parameters, by the strategies and the loop of architecture search.

A point is a `Setting`: the values of [train] that decide how well a network learns. One network is
trained briefly under each, as candidates are in a search, and the validation accuracy is the score.
What was trained is remembered by the store. A training that diverges is a failed candidate.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np

from device_agents.api import Failure
from device_agents.errors import ConfigError
from device_agents.near_names import nearest_first
from pipeline.recipe.reader import build
from pipeline.recipe.sections import TrainSection
from pipeline.search import strategy as strategies
from pipeline.search.api import Estimate
from pipeline.search.estimate.trained import count_accuracy
from pipeline.search.loop import Watch, search
from pipeline.search.space.decisions import Decision, DecisionSpace
from pipeline.store.memo import StepKind
from pipeline.train.remembered import Training, score_briefly

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.spec import ArchSpec
    from pipeline.data.api import Data
    from pipeline.search.api import Choices, Trial
    from pipeline.store.memo import Memo

TUNE = StepKind("tune")


_FACTORS = {  # times the recipe's own value
    "learning_rate": (0.25, 0.5, 2.0, 4.0),
    "batch_size": (0.5, 2.0),
    "weight_decay": (0.1, 0.3, 3.0, 10.0),
}
_BESIDE = {  # whatever its value is
    "weight_decay": (0.0,),
    "label_smoothing": (0.0, 0.05, 0.1, 0.2),
    "augment": (0.0, 0.5, 1.0, 1.5),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """Values of the keys of [train] that have these names."""

    learning_rate: float
    batch_size: int
    weight_decay: float
    label_smoothing: float
    augment: float

    @classmethod
    def of(cls, section: TrainSection) -> Setting:
        """Return the values of a recipe's section."""
        return cls(**{field.name: getattr(section, field.name) for field in fields(cls)})

    def __str__(self) -> str:
        return " ".join(f"{key}={value:g}" for key, value in asdict(self).items())


@dataclass(frozen=True)
class TuningSpace(DecisionSpace[Setting]):
    """One decision per hyper-parameter, its values in ascending order."""

    values: tuple[tuple[float, ...], ...]

    name: ClassVar[str] = "training"

    @classmethod
    def around(cls, section: TrainSection, given: Mapping[str, Sequence[float]]) -> TuningSpace:
        """Return the space around a recipe's own values.

        Args:
            section: its values are among those of every decision that is not given.
            given: values to try instead, by hyper-parameter; a single one fixes it.

        Raises:
            ConfigError: an unknown hyper-parameter, or a value that [train] cannot have.
        """
        names = [field.name for field in fields(Setting)]
        unknown = [key for key in given if key not in names]
        if unknown:
            known = ", ".join(nearest_first(unknown[0], names))
            raise ConfigError(f"there is no hyper-parameter {unknown[0]!r} to tune; have {known}")
        checked = {key: {_checked(key, value) for value in values} for key, values in given.items()}
        around = {
            name: _around(name, getattr(section, name)) for name in names if name not in given
        }
        found = {**around, **checked}
        return cls(tuple(tuple(sorted(found[name])) for name in names))

    @property
    def all_decisions(self) -> tuple[Decision, ...]:
        """The hyper-parameters."""
        pairs = zip(fields(Setting), self.values, strict=True)
        return tuple(Decision(field.name, values) for field, values in pairs)

    def decode(self, choices: Choices) -> Setting:
        """Return the setting of a choice vector."""
        return Setting(*self.chosen(choices))

    def choices(self, spec: Setting) -> Choices:
        """Return the choice vector of a setting; ValueError if a value is not one to try."""
        pairs = zip(asdict(spec).values(), self.values, strict=True)
        return tuple(values.index(value) for value, values in pairs)


def _checked(name: str, value: float) -> float:
    """Return the value as [train] has it: a whole number of images, other numbers as they are.

    Raises:
        ConfigError: [train] cannot have it.
    """
    plain = int(value) if name == "batch_size" and float(value).is_integer() else value
    section = build(TrainSection, {name: plain}, "values to try")
    return cast("float", getattr(section, name))


def _around(name: str, own: float) -> set[float]:
    """Return a recipe's own value and those around it that [train] can have."""
    found = {own}
    for value in (*(own * factor for factor in _FACTORS.get(name, ())), *_BESIDE.get(name, ())):
        rounded = round(value) if name == "batch_size" else float(f"{value:.3g}")
        with suppress(ConfigError):
            found.add(_checked(name, rounded))
    return found


@dataclass(frozen=True, slots=True)
class BriefTraining:
    """Estimator of ``accuracy`` (0..1): a network trained for a few epochs under a setting.

    Attributes:
        training: how, but for the setting; its seed is that of the search, too.
    """

    spec: ArchSpec
    training: Training
    data: Data
    memo: Memo
    metric: str = "accuracy"

    def estimate(self, specs: Sequence[Setting]) -> list[Estimate | Failure]:
        """Return each setting's accuracy with its binomial standard error, or why there is none."""
        return [self._one(setting) for setting in specs]

    def _one(self, setting: Setting) -> Estimate | Failure:
        config = replace(self.training.config, **asdict(setting))
        training = Training(config, self.training.seed)
        found = score_briefly(self.spec, training, data=self.data, memo=self.memo, kind=TUNE)
        if isinstance(found, Failure):
            return found
        return count_accuracy(found, len(self.data.dataset.validation), "trained")


@dataclass(frozen=True, slots=True)
class _NoLatency:
    """Estimator of ``latency_ms``: how a network is trained does not change how fast it is."""

    metric: str = "latency_ms"

    def estimate(self, specs: Sequence[Setting]) -> list[Estimate | Failure]:
        return [Estimate(0.0, 0.0, source="counted") for _ in specs]


@dataclass(frozen=True, slots=True)
class _Accuracy:
    """The objective: the accuracy."""

    def score(self, estimates: Mapping[str, Estimate]) -> float:
        return estimates["accuracy"].value


class _Telling(Watch[Setting]):
    def __init__(
        self, on_trial: Callable[[Trial[Setting]], None], on_end: Callable[[str], None]
    ) -> None:
        self._on_trial, self._on_end = on_trial, on_end

    def on_trial(self, index: int, trial: Trial[Setting]) -> None:
        del index
        self._on_trial(trial)

    def on_end(self, sentence: str) -> None:
        self._on_end(sentence)


def tune(
    training: BriefTraining,
    space: TuningSpace,
    strategy: str,
    *,
    trials: int,
    on_trial: Callable[[Trial[Setting]], None],
    on_end: Callable[[str], None],
) -> list[Trial[Setting]]:
    """Search for a setting; the seed is the training's.

    Args:
        training: what a setting is judged by.
        space: the settings.
        strategy: the name of a search strategy.
        trials: different settings to try, at most.
        on_trial: told every trial in order.
        on_end: told why fewer were tried.

    Returns:
        The different settings tried, the best first; failed ones last.
    """
    rng = np.random.default_rng([training.training.seed, 3])
    found = search(
        strategies.create(strategy, space, rng),
        _Accuracy(),
        accuracy=training,
        latency=_NoLatency(),
        candidates=min(trials, space.size),
        batch=1,
        watch=_Telling(on_trial, on_end),
    )
    return sorted({t.spec: t for t in found}.values(), key=lambda t: t.score, reverse=True)
