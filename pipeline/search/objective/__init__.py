"""Objectives: make one score of the estimates of a candidate, higher is better.

    soft, hard             MnasNet's reward (`mnasnet`)
    mul-log, add-linear    ProxylessNAS's loss forms, negated (`proxyless`)
    constrained            the accuracy, if the limit holds with a stated chance (`constrained`)
    pareto                 the area that a candidate dominates (`pareto_area`)

Several devices at once are one more layer around any of them (`several`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_agents.errors import ConfigError
from pipeline.search.objective._reading import check_target
from pipeline.search.objective.constrained import Constrained
from pipeline.search.objective.mnasnet import MnasNetObjective
from pipeline.search.objective.pareto_area import ParetoArea
from pipeline.search.objective.proxyless import AddLinear, MulLog
from pipeline.search.objective.several import SeveralDevices

if TYPE_CHECKING:
    from pipeline.search.api import Objective

__all__ = [
    "LIMITS",
    "OBJECTIVES",
    "AddLinear",
    "Constrained",
    "MnasNetObjective",
    "MulLog",
    "ParetoArea",
    "SeveralDevices",
    "check_target",
    "create",
]

LIMITS = ("hard", "constrained")
"""Objectives that score below 0 what does not keep the limit, and nothing else."""

OBJECTIVES = ("soft", "hard", "mul-log", "add-linear", "constrained", "pareto")


def create(
    name: str, target_ms: float, *, exponent: float | None = None, probability: float = 0.9
) -> Objective:
    """Build an objective.

    Args:
        name: one of `OBJECTIVES`.
        target_ms: the latency aimed at.
        exponent: w of MnasNet's reward, of both sides for ``soft``, above the target for ``hard``;
            the paper's unless given. The others have none.
        probability: of ``constrained``: how sure it must be that the limit is met.

    Raises:
        ConfigError: no such objective, or a number that cannot be.
    """
    if name == "soft":
        exponent = -0.07 if exponent is None else exponent
        return MnasNetObjective(target_ms, alpha=exponent, beta=exponent)
    if name == "hard":
        return MnasNetObjective.hard(target_ms, -1.0 if exponent is None else exponent)
    if exponent is not None and name in OBJECTIVES:
        raise ConfigError(
            f"exponent is {exponent!r}, which is of the objectives soft and hard; {name} has none: "
            "leave it out"
        )
    if name == "mul-log":
        return MulLog(target_ms)
    if name == "add-linear":
        return AddLinear(target_ms)
    if name == "constrained":
        return Constrained(target_ms, probability)
    if name == "pareto":
        return ParetoArea(target_ms)
    raise ConfigError(f"no objective {name!r} known; have {', '.join(OBJECTIVES)}")
