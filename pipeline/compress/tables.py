"""Weights as places in tables of a few values, which are trained in their stead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.graph_module import GraphModule
    from pipeline.compress.clusters import Shared


class _Table(nn.Module):
    """Makes a weight of a table of values; the gradient of a value is the sum of its weights'.

    What is trained are the values times the square roots of how many weights have them. A step then
    moves the weights as far as a step of all of them would, and a learning rate means what it means
    elsewhere: values that thousands share would leap with it, and the network be lost.
    """

    places: torch.Tensor
    values: torch.Tensor
    lengths: torch.Tensor

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self.register_buffer("places", torch.from_numpy(shared.places.astype("int64")))
        self.register_buffer("values", torch.from_numpy(shared.values.copy()))
        counts = torch.from_numpy(shared.counts.clip(1))
        self.register_buffer("lengths", counts.sqrt().float())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return (values / self.lengths)[self.places]

    def right_inverse(self, _weight: torch.Tensor) -> torch.Tensor:
        return self.values * self.lengths


def share_values(module: GraphModule, shared: Mapping[str, Shared]) -> Tables:
    """Let layers of a module have tables of values in place of their weights.

    Args:
        module: whose parameters become the values, where a layer shares them.
        shared: by the name of the layer.
    """
    weights = module.layer_weights()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    tables = {}
    for layer, one in shared.items():
        name = names[id(weights[layer])]
        parametrize.register_parametrization(module, name, _Table(one))
        tables[name] = torch.from_numpy(one.values != 0)
    return Tables(module, tables)


class Tables:
    """The tables of a module."""

    def __init__(self, module: GraphModule, trained: Mapping[str, torch.Tensor]) -> None:
        self._module, self._trained = module, trained

    def __call__(self, _share: float) -> None:
        """Hold the value 0 at 0, whatever it has learnt."""
        for name, others in self._trained.items():
            values = self._module.parametrizations[name].original  # type: ignore[index,union-attr]
            values.mul_(others.to(values.device))
