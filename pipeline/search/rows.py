"""Trials as rows: what the report, the live table and the store know of a candidate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from models.cost import cost
from models.lower import lower
from pipeline.measure.timer import HALF_WIDTHS_PER_STDERR
from pipeline.store.result import CandidateRow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from device_agents.api import Measurement
    from models.spec import ArchSpec
    from pipeline.measure.bench import DeviceBench
    from pipeline.search.api import Estimate, Trial


def interval(estimate: Estimate) -> tuple[float, float]:
    """Return the 95 % interval of an estimate."""
    half = HALF_WIDTHS_PER_STDERR * estimate.stderr
    return (estimate.value - half, estimate.value + half)


class Rows:
    """Trials as rows, each recorded in the store, and shown, as soon as it is known.

    A row that an earlier start of this run recorded stays as it is, its time included.
    """

    def __init__(self, bench: DeviceBench) -> None:
        self.bench = bench
        self.rows: list[CandidateRow] = []
        self.specs: set[str] = set()
        self.earlier: list[Any] = list(bench.memo.store.trials(bench.run_id))
        known_s = self.earlier[-1]["elapsed_s"] if self.earlier else 0.0
        self.started_s = bench.memo.clock() - known_s

    @property
    def distinct(self) -> int:
        """Number of different networks so far."""
        return len(self.specs)

    def add(
        self,
        index: int,
        trial: Trial[ArchSpec],
        measurement: Measurement | None = None,
        by_device: Mapping[str, Estimate] | None = None,
    ) -> CandidateRow:
        """Make the row of a trial, record it and show it."""
        spec = str(trial.spec)
        if index < len(self.earlier) and self.earlier[index]["spec"] == spec:
            elapsed_s = float(self.earlier[index]["elapsed_s"])
        else:
            elapsed_s = self.bench.memo.clock() - self.started_s
        counted = cost(lower(trial.spec))
        accuracy = trial.estimates.get("accuracy")
        latency = trial.estimates.get("latency_ms")
        row = CandidateRow(
            index=index,
            spec=spec,
            digest=trial.spec.digest(),
            params=counted.params,
            macs=counted.macs + counted.se_macs,
            accuracy=accuracy.value if accuracy else None,
            latency_ms=latency.value if latency else None,
            latency_ci95_ms=interval(latency) if latency else None,
            ratio=measurement.ratio if measurement else None,
            verdict=measurement.verdict if measurement else None,
            score=trial.score if math.isfinite(trial.score) else None,
            elapsed_s=elapsed_s,
            reused=spec in self.specs,
            failure=trial.failure.reason if trial.failure else None,
            latency_source=latency.source if latency else "measured",
            by_device_ms={name: found.value for name, found in (by_device or {}).items()},
        )
        self.specs.add(spec)
        self.rows.append(row)
        self.bench.memo.store.add_trial(self.bench.run_id, index, spec, row.to_json())
        self.bench.events.candidate(row)
        return row
