"""Weights that become 0 little by little while the network is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from pipeline.compress.magnitude import folded_weights, largest_weights
from pipeline.compress.zeros import Zeros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.graph import Op
    from models.graph_module import GraphModule
    from pipeline.compress.magnitude import Scope

RAMP = 0.75
"""Share of the training in which weights go; in the rest those that stay make up for it."""

_TIMES = 100
"""How often it is chosen anew which go."""


def ratio_at(share: float, first: float, last: float) -> float:
    """Return the share of weights that are 0 when a share of the ramp is behind, both 0..1.

    s_t = s_f + (s_i - s_f)(1 - t)^3: fast at first, while there is much that is not needed (Zhu &
    Gupta 2017, equation 1).
    """
    return last + (first - last) * (1 - share) ** 3


class Thinning:
    """Holds a module's smallest weights at 0, more of them with every step.

    What is held is chosen anew now and then, by the weights of that time: one that has become
    important again comes back, unless it was 0 before the training. It is part of the module's
    state, so that a training goes on where it was.

    Args:
        module: that is trained.
        layers: whose weights go.
        ratio: of them that are 0 in the end.
        scope: see `largest_weights`; the pattern 2:4 is chosen once.
    """

    def __init__(
        self, module: GraphModule, layers: Sequence[Op], ratio: float, scope: Scope
    ) -> None:
        self._module, self._layers, self._scope = module, layers, scope
        self._last, self._before = ratio, Zeros(module)
        weights = [module.layer_weights()[op.name] for op in layers]
        alive = sum(int(torch.count_nonzero(weight)) for weight in weights)
        self._first = min(1 - alive / sum(weight.numel() for weight in weights), ratio)
        for place, weight in enumerate(weights):
            module.register_buffer(f"stays:{place}", torch.ones_like(weight, dtype=torch.bool))
        module.register_buffer("chosen", torch.zeros((), dtype=torch.int64))
        if scope == "2:4":
            self._choose(ratio)

    def __call__(self, share: float) -> None:
        """Hold weights at 0 when a share of the training is behind, 0..1."""
        self._before.restore(share)
        ramp = min(share / RAMP, 1.0)
        due = int(_TIMES * ramp)
        if self._scope != "2:4" and due > int(self._buffer("chosen")):
            self._choose(ratio_at(ramp, self._first, self._last))
            self._buffer("chosen").fill_(due)
        weights = self._module.layer_weights()
        for place, op in enumerate(self._layers):
            weights[op.name].mul_(self._buffer(f"stays:{place}"))

    def _choose(self, ratio: float) -> None:
        held = folded_weights(self._module.model(), self._layers)
        stays = largest_weights(held, ratio, self._scope)
        for place, op in enumerate(self._layers):
            self._buffer(f"stays:{place}").copy_(torch.from_numpy(stays[op.name]))

    def _buffer(self, name: str) -> Any:
        return getattr(self._module, name)
