"""What every objective asks of a candidate's estimates and of its own target."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.search.api import Estimate


def need(estimates: Mapping[str, Estimate], metrics: tuple[str, ...], who: str) -> list[Estimate]:
    """Return the estimates of `metrics`, in that order.

    Raises:
        ConfigError: one of them was not estimated.
    """
    for metric in metrics:
        if metric not in estimates:
            have = ", ".join(sorted(estimates)) or "nothing"
            raise ConfigError(
                f"the {who} objective needs {metric!r}, but the estimators gave {have}; "
                f"add an estimator of {metric} to the search"
            )
    return [estimates[metric] for metric in metrics]


def check_target(target_ms: float) -> None:
    """Refuse a target that is no latency. Raises ConfigError."""
    if not (math.isfinite(target_ms) and target_ms > 0):
        raise ConfigError(f"target_ms is {target_ms!r}; give milliseconds above 0")


def possible(accuracy: float, latency_ms: float) -> bool:
    """Whether both can be: a NaN accuracy comes of a training that diverged."""
    return math.isfinite(accuracy) and math.isfinite(latency_ms) and latency_ms > 0
