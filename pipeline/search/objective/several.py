"""One network for several devices: their latencies combined, in front of any objective.

Every device has a target of its own. A candidate that takes r_d times the target of device d is
treated as one that takes r times the target of the first device, where r is the largest of the r_d
(``worst``: every target is to be met) or their mean by weight (``weighted``: slowness here can be
paid for by speed there). The error of the largest is stretched where another device, for all its
smaller r_d, is less sure to meet its target: the chance is that of the least sure one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from device_agents.errors import ConfigError
from pipeline.search.api import Estimate
from pipeline.search.objective._reading import check_target, need

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.search.api import Objective


def metric(device: str) -> str:
    """Return the name of the estimate of a device's latency."""
    return f"latency_ms:{device}"


@dataclass(frozen=True, slots=True)
class DeviceTarget:
    """What is wanted of one device; `weight` counts for ``weighted`` only."""

    device: str
    target_ms: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class SeveralDevices:
    """Combines the estimates ``latency_ms:<device>`` to ``latency_ms`` and asks `objective`.

    Attributes:
        objective: its target is that of the first device.
        targets: the devices, each once.
        combine: worst | weighted.

    Raises:
        ConfigError: on construction, no device, one named twice, or a number not above 0.
    """

    objective: Objective
    targets: tuple[DeviceTarget, ...]
    combine: Literal["worst", "weighted"] = "worst"

    def __post_init__(self) -> None:
        names = [target.device for target in self.targets]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"devices of one search: {names}; give each once, at least one")
        for target in self.targets:
            check_target(target.target_ms)
            if not (math.isfinite(target.weight) and target.weight > 0):
                raise ConfigError(f"weight of {target.device} is {target.weight!r}, not above 0")

    def combine_latencies(self, estimates: Mapping[str, Estimate]) -> dict[str, Estimate]:
        """Return the estimates with one ``latency_ms`` that stands for all devices.

        Raises:
            ConfigError: a device's latency was not estimated.
        """
        metrics = tuple(metric(target.device) for target in self.targets)
        found = need(estimates, metrics, "several-devices")
        shares = [
            Estimate(e.value / t.target_ms, e.stderr / t.target_ms, e.source)
            for e, t in zip(found, self.targets, strict=True)
        ]
        if self.combine == "worst":
            one = _worst(shares)
        else:
            total = sum(target.weight for target in self.targets)
            weights = [target.weight / total for target in self.targets]
            one = Estimate(
                sum(w * s.value for w, s in zip(weights, shares, strict=True)),
                math.hypot(*(w * s.stderr for w, s in zip(weights, shares, strict=True))),
                shares[0].source,
            )
        first_ms = self.targets[0].target_ms
        latency = Estimate(one.value * first_ms, one.stderr * first_ms, one.source)
        return {**estimates, "latency_ms": latency}

    def score(self, estimates: Mapping[str, Estimate]) -> float:
        """Return the objective's score of the combined estimates."""
        return self.objective.score(self.combine_latencies(estimates))


def _worst(shares: Sequence[Estimate]) -> Estimate:
    """Return the largest share, with the error that makes it as sure to be below 1 as any is."""
    largest = max(shares, key=lambda share: share.value)
    room = 1.0 - largest.value
    if room <= 0.0:
        return largest
    # In standard errors the room of a share is (1 - value) / stderr; here that of the least sure.
    stderr = max(room * share.stderr / (1.0 - share.value) for share in shares)
    return Estimate(largest.value, stderr, largest.source)
