"""The search of a recipe: space, strategy and objective as it names them, run on its device."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import Measurement
from models.cost import cost
from models.graph import lower
from pipeline.baseline import encode_untrained
from pipeline.export import create as create_exporter
from pipeline.measure import measure
from pipeline.result import CandidateRow
from pipeline.search import space as spaces
from pipeline.search import strategy as strategies
from pipeline.search.estimate.measured import HALF_WIDTHS_PER_STDERR, MeasuredLatency
from pipeline.search.estimate.trained import TrainedAccuracy
from pipeline.search.loop import search
from pipeline.search.objective import MnasNetObjective
from pipeline.train.recorded import proxy_accuracy

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agents.api import BenchProtocol, Failure
    from models.graph import Graph
    from models.spec import ArchSpec
    from pipeline.baseline import Reference
    from pipeline.context import Context
    from pipeline.recipe import SearchSection
    from pipeline.search.api import Trial


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """Trials in order, the same as rows for the report, and what the device spent on them.

    `timed_s` is timed inference and warm-up; the rest of `busy_s` is overhead.
    """

    trials: tuple[Trial[ArchSpec], ...]
    rows: tuple[CandidateRow, ...]
    target_ms: float
    busy_s: float
    timed_s: float


def objective(section: SearchSection, target_ms: float) -> MnasNetObjective:
    """Return MnasNet's reward, soft or hard, with the recipe's exponent if it gives one."""
    if section.objective == "hard":
        beta = -1.0 if section.exponent is None else section.exponent
        return MnasNetObjective(target_ms, alpha=0.0, beta=beta)
    exponent = -0.07 if section.exponent is None else section.exponent
    return MnasNetObjective(target_ms, alpha=exponent, beta=exponent)


def run_search(ctx: Context, reference: Reference) -> SearchOutcome:
    """Search as the recipe says, every latency measured beside `reference`.

    Raises:
        ConfigError: the recipe's space or strategy options cannot be.
        DeviceError: the device went away; the same command goes on where it was.
    """
    section = ctx.recipe.search
    space = spaces.create(
        section.space,
        input=ctx.dataset.input,
        classes=ctx.dataset.classes,
        **{"channel_multiple": ctx.profile.channel_multiple, **section.space_options},
    )
    target_ms = ctx.recipe.target.latency_ratio * reference.measurement.median_ms
    rng = np.random.default_rng([ctx.recipe.seed, 1])
    strategy = strategies.create(
        section.strategy,
        space,
        rng,
        **{**strategies.limits(section.strategy, target_ms), **section.strategy_options},
    )
    rows = _Rows(ctx)
    with (
        tempfile.TemporaryDirectory(prefix="edgewright-") as folder,
        ctx.progress.task(f"search with {section.strategy}", section.candidates) as task,
    ):
        latency = MeasuredLatency(
            _measure_once(ctx, reference),
            lambda graph, rng: encode_untrained(ctx, graph, rng),
            Path(folder),
            reference.measurement.median_ms,
            create_exporter(ctx.profile.runtime).suffix,
        )

        def on_trial(index: int, trial: Trial[ArchSpec]) -> None:
            row = rows.add(index, trial, latency.kept.get(trial.spec))
            best = max((r.score for r in rows.rows if r.score is not None), default=0.0)
            task.update(rows.distinct, f"best reward {best:.4f}")
            if row.failure:
                ctx.progress.say(f"candidate {index} failed: {row.failure}")

        trials = search(
            strategy,
            objective(section, target_ms),
            accuracy=TrainedAccuracy(
                lambda spec: proxy_accuracy(ctx, spec), len(ctx.dataset.validation)
            ),
            latency=latency,
            candidates=section.candidates,
            batch=section.batch,
            on_trial=on_trial,
            abort=ctx.device.abort,
        )
    # Invalid ones and repeats included: it is the device's time that is counted.
    measurements = [
        Measurement.from_json(stored.data)
        for stored in ctx.store.measurements(run_id=ctx.run.id)
        if stored.reference_sha256 == reference.sha256
    ]
    return SearchOutcome(
        trials=tuple(trials),
        rows=tuple(rows.rows),
        target_ms=target_ms,
        busy_s=sum(m.busy_ns for m in measurements) / 1e9,
        timed_s=sum(m.timed_ns + m.warmup_ns for m in measurements) / 1e9,
    )


def _measure_once(
    ctx: Context, reference: Reference
) -> Callable[[Graph, Callable[[], Path], BenchProtocol], Measurement | Failure]:
    def measured(
        graph: Graph, file: Callable[[], Path], protocol: BenchProtocol
    ) -> Measurement | Failure:
        return measure(
            ctx,
            {"graph": graph.digest(), "scheme": ctx.recipe.quantize.scheme},
            file,
            protocol,
            reference=reference.path,
            reference_sha256=reference.sha256,
        )

    return measured


class _Rows:
    """Trials as rows, each recorded in the store as soon as it is known.

    A row that an earlier start of this run recorded stays as it is, its time included.
    """

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.rows: list[CandidateRow] = []
        self.specs: set[str] = set()
        self.earlier: list[Any] = list(ctx.store.trials(ctx.run.id))
        self.started_s = ctx.clock() - (self.earlier[-1]["elapsed_s"] if self.earlier else 0.0)

    @property
    def distinct(self) -> int:
        """Number of different networks so far."""
        return len(self.specs)

    def add(
        self, index: int, trial: Trial[ArchSpec], measurement: Measurement | None
    ) -> CandidateRow:
        """Make the row of a trial and record it."""
        spec = str(trial.spec)
        if index < len(self.earlier) and self.earlier[index]["spec"] == spec:
            elapsed_s = float(self.earlier[index]["elapsed_s"])
        else:
            elapsed_s = self.ctx.clock() - self.started_s
        row = _row(index, trial, measurement, elapsed_s, reused=spec in self.specs)
        self.specs.add(spec)
        self.rows.append(row)
        self.ctx.store.add_trial(self.ctx.run.id, index, spec, row.to_json())
        return row


def _row(
    index: int,
    trial: Trial[ArchSpec],
    measurement: Measurement | None,
    elapsed_s: float,
    *,
    reused: bool,
) -> CandidateRow:
    counted = cost(lower(trial.spec))
    accuracy = trial.estimates.get("accuracy")
    latency = trial.estimates.get("latency_ms")
    interval = None
    if latency is not None:
        half = HALF_WIDTHS_PER_STDERR * latency.stderr
        interval = (latency.value - half, latency.value + half)
    return CandidateRow(
        index=index,
        spec=str(trial.spec),
        digest=trial.spec.digest(),
        params=counted.params,
        macs=counted.macs + counted.se_macs,
        accuracy=accuracy.value if accuracy else None,
        latency_ms=latency.value if latency else None,
        latency_ci95_ms=interval,
        ratio=measurement.ratio if measurement else None,
        verdict=measurement.verdict if measurement else None,
        score=trial.score if np.isfinite(trial.score) else None,
        elapsed_s=elapsed_s,
        reused=reused,
        failure=trial.failure.reason if trial.failure else None,
    )
