"""Latency measured on the device: the very int8 file that would be deployed, timed there.

How, and what its error is, `pipeline.measure.timer` says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from device_agents.api import BenchProtocol, Failure, Measurement
from models.lower import lower
from pipeline.search.api import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.spec import ArchSpec
    from pipeline.measure.timer import Timer


@dataclass(slots=True)
class MeasuredLatency:
    """Estimator of ``latency_ms``; safe to use from one thread beside a reader of `kept`.

    Attributes:
        timer: measures, or remembers.
        protocol: how thoroughly.
        kept: measurements by spec.
    """

    timer: Timer
    protocol: BenchProtocol = field(default_factory=BenchProtocol.quick)
    kept: dict[ArchSpec, Measurement] = field(default_factory=dict)
    metric: str = "latency_ms"

    def estimate(self, specs: Sequence[ArchSpec]) -> list[Estimate | Failure]:
        """Return the normalised latency of each spec in milliseconds, or why there is none."""
        return [self._one(spec) for spec in specs]

    def _one(self, spec: ArchSpec) -> Estimate | Failure:
        found = self.timer.time_graph(lower(spec), self.protocol)
        if isinstance(found, Failure):
            return found
        self.kept[spec] = found.measurement
        return Estimate(found.latency_ms, found.stderr_ms, source="measured")
