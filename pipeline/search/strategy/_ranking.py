"""How evolutions rank what they are told under a latency limit: constraint domination.

Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II" (2002), section VI: what
keeps the limit is better than what does not; of two that do not the one nearer to it is better,
so that a search that begins outside the limit is drawn inside. A failure is behind all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.search.api import Spec, Trial

Rank = tuple[int, float]
"""(2, merit) within the limit, (1, minus latency) outside, (0, 0) failed; the larger the better."""

FAILED: Rank = (0, 0.0)


def latency_ms(trial: Trial[Spec]) -> float:
    """Return the trial's latency; NaN if it has none."""
    found = trial.estimates.get("latency_ms")
    return math.nan if found is None else found.value


def merit(trial: Trial[Spec], limit_ms: float | None) -> float:
    """Return what is maximised: the score, or under a limit the accuracy where there is one."""
    accuracy = trial.estimates.get("accuracy")
    return trial.score if limit_ms is None or accuracy is None else accuracy.value


def rank(trial: Trial[Spec], limit_ms: float | None) -> Rank:
    """Return the trial's place; a latency above the limit counts even without an accuracy."""
    if limit_ms is not None and "latency_ms" in trial.estimates:
        latency = latency_ms(trial)
        if not math.isfinite(latency):
            return FAILED
        if latency > limit_ms:
            return (1, -latency)
    value = merit(trial, limit_ms)
    return FAILED if trial.failure is not None or not math.isfinite(value) else (2, value)


def check_limit(what: str, limit_ms: float | None) -> None:
    """Raise ConfigError for a limit that cannot be; `what` begins the sentence."""
    if limit_ms is not None and not 0 < limit_ms < math.inf:
        raise ConfigError(f"{what}, latency_limit_ms: {limit_ms} is not above 0")
