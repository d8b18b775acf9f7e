"""The two loss forms of ProxylessNAS, with latency as a share of the target.

mit-han-lab/proxylessnas, `search/modules/mix_op.py` and `nas_manager.py`:

    mul-log       a CE (ln E / ln T)^b        a = 0.2, b = 0.3
    add-linear    CE + lambda (E - T) / T     lambda = 0.1

The first depends on the unit of latency and is undefined below 1: at T = 80 ms the elasticity at
the target is b / ln 80 = 0.0685, the trade-off of MnasNet's 0.07; in microseconds it is 0.027. So
latency is taken here in units in which the target is 80, the paper's own target: ln(80 E / T)
instead of ln E. The factor a, which scales the loss as a whole, is left out.

A candidate of an ask/tell search has an accuracy and no cross-entropy: -ln(accuracy) stands for it,
which is what a classifier's cross-entropy would be if it were as sure as it is right.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.search.objective._reading import check_target, need, possible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.search.api import Estimate

_UNIT = 80.0
_POWER = 0.3
_LAMBDA = 0.1
_NEAREST = 1e-6
"""How near an accuracy counts to 0 and to 1: without, the fastest of all that make no mistake on a
small validation split would be worth no more than the slowest, 0 times anything being 0."""


def mul_log(ratio: float) -> float:
    """Return what the loss is multiplied by at a latency of `ratio` times the target; 1 at 1.

    Below 1/80 of the target the logarithm has no meaning any more: it stays at 0 there.
    """
    return float(max(0.0, math.log(_UNIT * ratio) / math.log(_UNIT)) ** _POWER)


def add_linear(ratio: float) -> float:
    """Return what is added to the loss at a latency of `ratio` times the target; 0 at 1."""
    return _LAMBDA * (ratio - 1.0)


@dataclass(frozen=True, slots=True)
class _LossForm(ABC):
    """A loss of cross-entropy and latency, negated.

    Raises:
        ConfigError: on construction, a target not above 0.
    """

    target_ms: float

    def __post_init__(self) -> None:
        check_target(self.target_ms)

    @abstractmethod
    def loss(self, cross_entropy: float, ratio: float) -> float:
        """Return the loss at a latency of `ratio` times the target."""

    def score(self, estimates: Mapping[str, Estimate]) -> float:
        """Return minus the loss of the estimates ``accuracy`` and ``latency_ms``."""
        accuracy, latency = need(estimates, ("accuracy", "latency_ms"), type(self).__name__)
        if not possible(accuracy.value, latency.value):
            return -math.inf
        return -self.loss(_cross_entropy(accuracy.value), latency.value / self.target_ms)


class MulLog(_LossForm):
    """The multiplicative form, negated."""

    def loss(self, cross_entropy: float, ratio: float) -> float:
        """Return the product."""
        return cross_entropy * mul_log(ratio)


class AddLinear(_LossForm):
    """The additive form, negated."""

    def loss(self, cross_entropy: float, ratio: float) -> float:
        """Return the sum."""
        return cross_entropy + add_linear(ratio)


def _cross_entropy(accuracy: float) -> float:
    return -math.log(min(max(accuracy, _NEAREST), 1.0 - _NEAREST))
