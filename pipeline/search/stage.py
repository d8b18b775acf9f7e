"""The search of a recipe: space, strategy, estimators and objective as it names them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from device_agents.api import Measurement
from device_agents.errors import ConfigError
from pipeline.search import space as spaces
from pipeline.search import strategy as strategies
from pipeline.search.confirm import Confirmed, confirmed
from pipeline.search.estimate.several_devices import SeveralDevicesLatency
from pipeline.search.estimators import accuracy_estimator, as_elastic, latency_estimator
from pipeline.search.gradient import is_gradient
from pipeline.search.gradient_stage import search_by_gradient
from pipeline.search.loop import Watch, search
from pipeline.search.objective import ParetoArea
from pipeline.search.pareto import hypervolume, pareto_front
from pipeline.search.rows import Rows
from pipeline.search.serving import fold, measuring, objective, served

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_agents.errors import DeviceError
    from models.spec import ArchSpec
    from pipeline.measure.context import Context
    from pipeline.measure.reference import Reference
    from pipeline.search.api import Estimator, Objective, SearchSpace, Strategy, Trial
    from pipeline.search.serving import Served
    from pipeline.store.events import Task
    from pipeline.store.result import CandidateRow
    from pipeline.train.workshop import Workshop


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


def recipe_space(shop: Workshop, channel_multiple: int | None = None) -> SearchSpace[ArchSpec]:
    """Return the recipe's space for its data.

    Args:
        shop: the recipe and its data.
        channel_multiple: what the device likes its channel counts to be multiples of; None for a
            supernet, which is to serve devices of different likes.

    Raises:
        ConfigError: the space's options cannot be.
    """
    section = shop.recipe.search
    if own := [name for name in ("input", "classes") if name in section.space_options]:
        raise ConfigError(
            f"search.space_options.{own[0]} = {section.space_options[own[0]]!r}: {own[0]} is that "
            "of the data; leave it out (data.resolution sets the size of the images)"
        )
    known = {option.name for option in fields(spaces.SPACES.load(section.space))}
    liked = {"channel_multiple": channel_multiple} if channel_multiple else {}
    given = {name: value for name, value in liked.items() if name in known}
    size = {"input": shop.dataset.input, "classes": shop.dataset.classes}
    return spaces.create(section.space, **{**size, **given, **section.space_options})


def searched_space(ctx: Context) -> SearchSpace[ArchSpec]:
    """Return the space that the recipe's search goes through on the run's device.

    Raises:
        ConfigError: the space's options cannot be.
    """
    proxy = ctx.recipe.search.accuracy == "proxy"
    return recipe_space(ctx, ctx.profile.channel_multiple if proxy else None)


def run_search(ctx: Context, reference: Reference) -> SearchOutcome:
    """Search as the recipe says, every latency measured beside `reference`.

    Raises:
        ConfigError: the recipe's space or strategy options cannot be.
        TargetError: no candidate meets the target on the device.
        DeviceError: the device went away; the same command goes on where it was.
    """
    section = ctx.recipe.search
    # What cannot be is told before anything is measured or trained for it.
    space = _possible_space(ctx)
    devices = served(ctx, reference)
    target_ms = devices[0].target_ms
    goal = objective(section, target_ms)
    strategy = None if is_gradient(section.strategy) else _strategy(ctx, space, target_ms)
    with ExitStack() as stack:
        latency = _latency(stack, devices, space)
        rows = Rows(ctx)
        accuracy = accuracy_estimator(ctx, space)
        task = stack.enter_context(
            ctx.progress.task(f"search with {section.strategy}", section.candidates)
        )
        watched = _Watched(devices, rows, latency, task)
        if strategy is None:
            trials = _by_gradient(devices[0], space, accuracy, goal, watched)
        else:
            trials = _asked(strategy, accuracy, goal, watched)
    finalists = confirmed(devices, trials, lost=bool(watched.lost))
    busy_s, timed_s = _spent_s(ctx, reference)
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


def _possible_space(ctx: Context) -> SearchSpace[ArchSpec]:
    """Return the space, if the recipe's method can search it. Raises ConfigError."""
    section = ctx.recipe.search
    if section.also and is_gradient(section.strategy):
        raise ConfigError(
            f"{section.strategy} searches for one device, the recipe names {1 + len(section.also)} "
            "(search.also); choose a strategy that is asked, such as nsga2"
        )
    space = searched_space(ctx)
    if section.accuracy != "proxy":
        as_elastic(space)
    return space


def _spent_s(ctx: Context, reference: Reference) -> tuple[float, float]:
    """Return how long the run had the device measure beside `reference`: in all, and timed.

    Invalid measurements and repeats included: it is the device's time that is counted.
    """
    measurements = [
        Measurement.from_json(stored.data)
        for stored in ctx.store.measurements(run_id=ctx.run.id)
        if stored.reference_sha256 == reference.sha256
    ]
    busy_ns = sum(m.busy_ns for m in measurements)
    timed_ns = sum(m.timed_ns + m.warmup_ns for m in measurements)
    return busy_ns / 1e9, timed_ns / 1e9


def _strategy(ctx: Context, space: SearchSpace[ArchSpec], target_ms: float) -> Strategy[ArchSpec]:
    section = ctx.recipe.search
    limits = strategies.limits(section.strategy, target_ms)
    rng = np.random.default_rng([ctx.recipe.seed, 1])
    options = {**limits, **section.strategy_options}
    return strategies.create(section.strategy, space, rng, **options)


def _latency(
    stack: ExitStack, devices: Sequence[Served], space: SearchSpace[ArchSpec]
) -> Estimator[ArchSpec]:
    """Return the latency estimator: one device's, or several side by side."""
    section = devices[0].ctx.recipe.search
    if is_gradient(section.strategy):  # it builds its own table; what it finds is measured
        return stack.enter_context(measuring(devices[0].ctx, devices[0].reference))
    each = {d.name: stack.enter_context(latency_estimator(d, space)) for d in devices}
    if len(each) == 1:
        return each[devices[0].name]
    return SeveralDevicesLatency(each, fold(section, devices))


def _asked(
    strategy: Strategy[ArchSpec],
    accuracy: Estimator[ArchSpec],
    goal: Objective,
    watched: _Watched,
) -> list[Trial[ArchSpec]]:
    section = watched.ctx.recipe.search
    return search(
        strategy,
        goal,
        accuracy=accuracy,
        latency=watched.latency,
        candidates=section.candidates,
        batch=section.batch,
        watch=watched,
    )


def _by_gradient(
    own: Served,
    space: SearchSpace[ArchSpec],
    accuracy: Estimator[ArchSpec],
    goal: Objective,
    watched: _Watched,
) -> list[Trial[ArchSpec]]:
    return search_by_gradient(
        own.ctx,
        space,
        own.reference,
        own.target_ms,
        accuracy=accuracy,
        latency=watched.latency,
        objective=goal,
        on_trial=watched.on_trial,
    )


@dataclass(slots=True)
class _Watched(Watch["ArchSpec"]):
    """Turns trials into rows and words beside the bar while the search runs.

    `lost` says why the search ended early, if a device was lost.
    """

    devices: Sequence[Served]
    rows: Rows
    latency: Estimator[ArchSpec]
    task: Task
    lost: str = ""
    best_score: float = float("-inf")
    best_words: str = ""

    @property
    def ctx(self) -> Context:
        return self.devices[0].ctx

    def on_lost(self, error: DeviceError) -> bool:
        if self.ctx.recipe.search.on_device_lost == "stop":
            return False
        self.lost = str(error)
        self.ctx.progress.say(
            f"the search ends with {self.rows.distinct} candidates, and what it measured stands "
            f'(search.on_device_lost = "end"): {error}'
        )
        return True

    def on_end(self, sentence: str) -> None:
        self.ctx.progress.say(sentence)

    def abort(self) -> None:
        for device in self.devices:
            device.ctx.device.abort()

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
            self.ctx.progress.say(f"candidate {index} failed: {row.failure}")


def _words(row: CandidateRow) -> str:
    """Return a candidate's two figures, for the words behind a bar."""
    if row.accuracy is None or row.latency_ms is None:
        return "failed"
    return f"{row.accuracy:.1%} in {row.latency_ms:.4f} ms"
