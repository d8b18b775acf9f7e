"""Weights that earlier passes have made zero, which training leaves so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from models.graph_module import GraphModule


class Zeros:
    """The weights of a module's layers that are exactly zero as it begins to be trained."""

    def __init__(self, module: GraphModule) -> None:
        self._module = module
        found = {name: weight == 0 for name, weight in module.layer_weights().items()}
        self._places = {name: where for name, where in found.items() if where.any()}

    def restore(self, _share: float) -> None:
        """Make them zero again, after a step of the optimiser."""
        weights = self._module.layer_weights()
        for name, where in self._places.items():
            weights[name].masked_fill_(where.to(weights[name].device), 0.0)

    @property
    def words(self) -> str:
        """Say how many there are, as the end of a sentence; empty where there are none."""
        count = sum(int(torch.count_nonzero(where)) for where in self._places.values())
        return f"; {count} weights that were zero stay zero" if count else ""
