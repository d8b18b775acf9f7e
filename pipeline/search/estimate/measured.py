"""Latency measured on the device: the very int8 file that would be deployed, timed there.

The file is written natively from the lowered graph with random weights: latency does not depend on
their values, so a candidate is measured before, or while, it is trained. It is timed interleaved
with a reference model, and its latency is their ratio times the reference's own latency, which was
measured once, thoroughly: load on the machine slows both alike and cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from device_agents.api import BenchProtocol, Failure, Measurement
from models.graph import Graph
from models.lower import lower
from pipeline.search.api import Estimate

if TYPE_CHECKING:
    from models.spec import ArchSpec

Measure = Callable[[Graph, Callable[[], Path], BenchProtocol], "Measurement | Failure"]
"""Measures the file of a graph interleaved with the reference, once for each graph."""

HALF_WIDTHS_PER_STDERR = 1.96


@dataclass(slots=True)
class MeasuredLatency:
    """Estimator of ``latency_ms``; safe to use from one thread beside a reader of `kept`.

    Attributes:
        measure: see `Measure`; repeats of a graph must come from its memory.
        encode: writes a graph in the deployed format: (graph, weights) -> bytes.
        folder: where candidate files are written; each is removed once it is measured.
        reference_ms: latency of the reference model, from a thorough measurement.
        kept: measurements by spec.
    """

    measure: Measure
    encode: Callable[[Graph, np.random.Generator], bytes]
    folder: Path
    reference_ms: float
    suffix: str = ".tflite"
    protocol: BenchProtocol = field(default_factory=BenchProtocol.quick)
    kept: dict[ArchSpec, Measurement] = field(default_factory=dict)
    metric: str = "latency_ms"

    def estimate(self, specs: Sequence[ArchSpec]) -> list[Estimate | Failure]:
        """Return the normalised latency of each spec in milliseconds, or why there is none."""
        return [self._one(spec) for spec in specs]

    def _one(self, spec: ArchSpec) -> Estimate | Failure:
        graph = lower(spec)
        path = self.folder / f"{graph.digest()}{self.suffix}"

        def file() -> Path:
            path.write_bytes(self.encode(graph, np.random.default_rng(0)))
            return path

        try:
            outcome = self.measure(graph, file, self.protocol)
        finally:
            path.unlink(missing_ok=True)
        if isinstance(outcome, Failure):
            return outcome
        if outcome.ratio is None or outcome.ratio_ci95 is None:
            return Failure("the device gave no ratio to the reference model")
        self.kept[spec] = outcome
        low, high = outcome.ratio_ci95
        # The interval need not be symmetric: its wider side, so that the upper end is not missed.
        stderr = max(high - outcome.ratio, outcome.ratio - low) / HALF_WIDTHS_PER_STDERR
        return Estimate(
            outcome.ratio * self.reference_ms, stderr * self.reference_ms, source="measured"
        )
