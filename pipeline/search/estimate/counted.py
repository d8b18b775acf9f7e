"""Latency by counting multiply-accumulates: no measurement but the reference model's.

It is there to be compared with, and for a first look: networks of equal MACs differ by a factor of
two and more in latency on real devices, so the error it states is wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.cost import cost
from pipeline.search.api import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.spec import ArchSpec

RELATIVE_STDERR = 0.3
"""Latency over MACs varies about this much between networks of one space on one device."""


@dataclass(frozen=True, slots=True)
class CountedLatency:
    """Estimator of ``latency_ms``: MACs times what one MAC of the reference model took."""

    ms_per_mac: float
    metric: str = "latency_ms"

    @classmethod
    def scaled_on(cls, spec: ArchSpec, latency_ms: float) -> CountedLatency:
        """Return the estimator by which `spec` takes `latency_ms`."""
        return cls(latency_ms / _macs(spec))

    def estimate(self, specs: Sequence[ArchSpec]) -> list[Estimate]:
        """Return one estimate per spec, in order."""
        values = [_macs(spec) * self.ms_per_mac for spec in specs]
        return [Estimate(value, RELATIVE_STDERR * value, source="counted") for value in values]


def _macs(spec: ArchSpec) -> int:
    counted = cost(spec)
    return counted.macs + counted.se_macs
