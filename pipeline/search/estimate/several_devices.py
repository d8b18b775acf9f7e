"""Latency on several devices at once: each estimates for itself, in a thread of its own.

The strategy and the objective see one ``latency_ms`` that stands for all of them; what each device
said is kept for the reports.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic

from device_agents.api import Failure
from pipeline.search.api import Estimate, Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.search.api import Estimator


@dataclass(frozen=True, slots=True)
class SeveralDevicesLatency(Generic[Spec]):
    """Estimator of ``latency_ms`` over devices.

    Attributes:
        by_device: each device's own estimator; they run side by side.
        combine: makes one estimate of the devices'.
        kept: what each device said, by spec.
    """

    by_device: Mapping[str, Estimator[Spec]]
    combine: Callable[[Mapping[str, Estimate]], Estimate]
    kept: dict[Spec, Mapping[str, Estimate]] = field(default_factory=dict)
    metric: str = "latency_ms"

    def estimate(self, specs: Sequence[Spec]) -> list[Estimate | Failure]:
        """Return one estimate per spec, or the failure of the first device that has one."""
        with ThreadPoolExecutor(len(self.by_device), thread_name_prefix="devices") as pool:
            asked = {
                name: pool.submit(estimator.estimate, specs)
                for name, estimator in self.by_device.items()
            }
            found = {name: future.result() for name, future in asked.items()}
        return [
            self._one(spec, {name: estimates[row] for name, estimates in found.items()})
            for row, spec in enumerate(specs)
        ]

    def _one(self, spec: Spec, found: Mapping[str, Estimate | Failure]) -> Estimate | Failure:
        estimates: dict[str, Estimate] = {}
        for name, estimate in found.items():
            if isinstance(estimate, Failure):
                return Failure(f"on {name}: {estimate.reason}", estimate.detail)
            estimates[name] = estimate
        self.kept[spec] = estimates
        return self.combine(estimates)
