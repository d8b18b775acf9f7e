"""The search of a recipe: space, strategy, estimators and objective as it names them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.errors import ConfigError
from pipeline.measure.timer import OP_PROTOCOL
from pipeline.search import space as spaces
from pipeline.search import strategy as strategies
from pipeline.search.confirm import Confirmed, confirm_finalists
from pipeline.search.estimate.measured import MeasuredLatency
from pipeline.search.estimate.several_devices import SeveralDevicesLatency
from pipeline.search.estimators import as_elastic, open_latency
from pipeline.search.gradient import is_gradient
from pipeline.search.gradient_stage import search_by_gradient
from pipeline.search.loop import Watch, search
from pipeline.search.objective import ParetoArea
from pipeline.search.pareto import hypervolume, pareto_front
from pipeline.search.rows import Rows
from pipeline.search.serving import create_combination, create_objective

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from device_agents.errors import DeviceError
    from models.spec import ArchSpec
    from pipeline.data.api import Data
    from pipeline.measure.timer import Timer
    from pipeline.recipe.sections import SearchSection
    from pipeline.search.api import Estimator, SearchSpace, Strategy, Trial
    from pipeline.search.estimators import AccuracySource
    from pipeline.search.serving import ServedDevice
    from pipeline.store.events import Progress
    from pipeline.store.result import CandidateRow


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """Trials in order, the same as rows for the report, and what the device spent on them.

    Attributes:
        finalists: the best candidates on target, each measured again, best first.
        timed_s: timed inference and warm-up; the rest of `busy_s` is overhead.
        lost: why the search ended early, if a device was lost.
    """

    space: SearchSpace[ArchSpec]
    trials: tuple[Trial[ArchSpec], ...]
    rows: tuple[CandidateRow, ...]
    finalists: tuple[Confirmed, ...]
    target_ms: float
    busy_s: float
    timed_s: float
    lost: str = ""

    @property
    def front(self) -> tuple[int, ...]:
        """Indices of the rows on the accuracy-latency front, by latency."""
        return tuple(int(index) for index in pareto_front(*_points(self.rows)))

    @property
    def hypervolume(self) -> float:
        """Share of the area (accuracy 0..1, latency 0..2 targets) that the front dominates."""
        reference = ParetoArea(self.target_ms).reference
        return hypervolume(*_points(self.rows), reference=reference) / reference[1]


def _points(rows: Sequence[CandidateRow]) -> tuple[list[float], list[float]]:
    def or_nan(value: float | None) -> float:
        return float("nan") if value is None else value

    return [or_nan(row.accuracy) for row in rows], [or_nan(row.latency_ms) for row in rows]


def create_space(
    name: str,
    options: Mapping[str, Any],
    *,
    size: tuple[int, int, int],
    classes: int,
    channel_multiple: int | None = None,
) -> SearchSpace[ArchSpec]:
    """Return a search space for images of a size (height, width, channels).

    Args:
        name: of the space.
        options: its options, as a recipe gives them.
        size: of the images.
        classes: how many outputs networks have.
        channel_multiple: what the device likes its channel counts to be multiples of; None for a
            supernet, which is to serve devices of different likes.

    Raises:
        ConfigError: the space's options cannot be.
    """
    if own := [key for key in ("input", "classes") if key in options]:
        raise ConfigError(
            f"search.space_options.{own[0]} = {options[own[0]]!r}: {own[0]} is that "
            "of the data; leave it out (data.resolution sets the size of the images)"
        )
    known = {option.name for option in fields(spaces.SPACES.load(name))}
    liked = {"channel_multiple": channel_multiple} if channel_multiple else {}
    given = {key: value for key, value in liked.items() if key in known}
    return spaces.create(name, **{"input": size, "classes": classes, **given, **options})


def prepare_space(
    section: SearchSection, data: Data, channel_multiple: int | None = None
) -> SearchSpace[ArchSpec]:
    """Return the space that a recipe's search goes through, if its method can.

    Args:
        section: space, strategy and where accuracies come from.
        data: whose images and classes the networks are for.
        channel_multiple: what the run's device likes; a supernet's networks do not heed it.

    Raises:
        ConfigError: the space's options cannot be, or it cannot be searched that way.
    """
    if section.also and is_gradient(section.strategy):
        raise ConfigError(
            f"{section.strategy} searches for one device, the recipe names {1 + len(section.also)} "
            "(search.also); choose a strategy that is asked, such as nsga2"
        )
    space = create_space(
        section.space,
        section.space_options,
        size=data.dataset.input,
        classes=data.dataset.classes,
        channel_multiple=channel_multiple if section.accuracy == "proxy" else None,
    )
    if section.accuracy != "proxy":
        as_elastic(space)
    return space


def run_search(
    section: SearchSection,
    devices: Sequence[ServedDevice],
    *,
    space: SearchSpace[ArchSpec],
    data: Data,
    accuracy: AccuracySource,
    seed: int,
) -> SearchOutcome:
    """Search as a recipe says, every latency measured beside a device's reference.

    Args:
        section: strategy, objective, budget and estimators.
        devices: what the network is to serve, the run's own device first.
        space: of `prepare_space`.
        data: what networks are trained and judged on.
        accuracy: of candidates.
        seed: of everything random.

    Raises:
        ConfigError: the strategy's options cannot be.
        TargetError: no candidate meets the target on the device.
        DeviceError: the device went away; the same command goes on where it was.
    """
    own = devices[0]
    bench, target_ms = own.bench, own.target_ms
    goal = create_objective(section, target_ms)
    # What cannot be is told before anything is measured or trained for it.
    strategy = None
    if not is_gradient(section.strategy):
        strategy = _create_strategy(section, space, target_ms, seed)
    latency = _open_latency(devices, space, section=section, seed=seed)
    rows = Rows(bench)
    judged = accuracy.open(space, data=data, memo=bench.memo, events=bench.events)
    with bench.events.task(f"search with {section.strategy}", section.candidates) as task:
        watched = _Watched(devices, section.on_device_lost, rows, latency, task)
        if strategy is None:
            trials = search_by_gradient(
                own,
                space,
                section=section,
                data=data,
                seed=seed,
                accuracy=judged,
                latency=latency,
                on_trial=watched.on_trial,
            )
        else:
            trials = search(
                strategy,
                goal,
                accuracy=judged,
                latency=latency,
                candidates=section.candidates,
                batch=section.batch,
                watch=watched,
            )
    finalists = confirm_finalists(devices, trials, section=section, lost=bool(watched.lost))
    tabled = section.table is None and (section.latency == "table" or strategy is None)
    busy_s, timed_s = _spent_s(own.timer, with_ops=tabled)
    return SearchOutcome(
        space=space,
        trials=tuple(trials),
        rows=tuple(rows.rows),
        finalists=tuple(finalists),
        target_ms=target_ms,
        busy_s=busy_s,
        timed_s=timed_s,
        lost=watched.lost,
    )


def _spent_s(timer: Timer, *, with_ops: bool) -> tuple[float, float]:
    """Return how long the run had the device measure beside its reference: in all, and timed.

    Invalid measurements and repeats included: it is the device's time that is counted. Single ops
    are the search's own only if it built a table; those of an earlier report are not.
    """
    measurements = [
        m for m in timer.list_measurements() if with_ops or m.protocol.name != OP_PROTOCOL.name
    ]
    busy_ns = sum(m.busy_ns for m in measurements)
    timed_ns = sum(m.timed_ns + m.warmup_ns for m in measurements)
    return busy_ns / 1e9, timed_ns / 1e9


def _create_strategy(
    section: SearchSection, space: SearchSpace[ArchSpec], target_ms: float, seed: int
) -> Strategy[ArchSpec]:
    limits = strategies.limits(section.strategy, target_ms)
    rng = np.random.default_rng([seed, 1])
    options = {**limits, **section.strategy_options}
    return strategies.create(section.strategy, space, rng, **options)


def _open_latency(
    devices: Sequence[ServedDevice],
    space: SearchSpace[ArchSpec],
    *,
    section: SearchSection,
    seed: int,
) -> Estimator[ArchSpec]:
    """Return the latency estimator: one device's, or several side by side."""
    if is_gradient(section.strategy):  # it builds its own table; what it finds is measured
        return MeasuredLatency(devices[0].timer)
    each = {d.name: open_latency(d, space, section=section, seed=seed) for d in devices}
    if len(each) == 1:
        return each[devices[0].name]
    return SeveralDevicesLatency(each, create_combination(section, devices))


@dataclass(slots=True)
class _Watched(Watch["ArchSpec"]):
    """Turns trials into rows and words beside the bar while the search runs.

    `lost` says why the search ended early, if a device was lost.
    """

    devices: Sequence[ServedDevice]
    on_device_lost: str
    rows: Rows
    latency: Estimator[ArchSpec]
    task: Progress
    lost: str = ""
    best_score: float = float("-inf")
    best_words: str = ""

    def on_lost(self, error: DeviceError) -> bool:
        if self.on_device_lost == "stop":
            return False
        self.lost = str(error)
        self.rows.bench.events.say(
            f"the search ends with {self.rows.distinct} candidates, and what it measured stands "
            f'(search.on_device_lost = "end"): {error}'
        )
        return True

    def on_end(self, sentence: str) -> None:
        self.rows.bench.events.say(sentence)

    def abort(self) -> None:
        for device in self.devices:
            device.bench.device.abort()

    def on_trial(self, index: int, trial: Trial[ArchSpec]) -> None:
        kept = getattr(self.latency, "kept", {}).get(trial.spec)
        if isinstance(self.latency, SeveralDevicesLatency):
            row = self.rows.add(index, trial, by_device=kept)
        else:
            row = self.rows.add(index, trial, measurement=kept)
        if row.score is not None and row.score > self.best_score:
            self.best_score, self.best_words = row.score, f" · best so far {_words(row)}"
        self.task.update(self.rows.distinct, f"candidate {index}: {_words(row)}{self.best_words}")
        if row.failure:
            self.rows.bench.events.say(f"candidate {index} failed: {row.failure}")


def _words(row: CandidateRow) -> str:
    """Return a candidate's two figures, for the words behind a bar."""
    if row.accuracy is None or row.latency_ms is None:
        return "failed"
    return f"{row.accuracy:.1%} in {row.latency_ms:.4f} ms"
