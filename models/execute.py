"""Runs a folded graph op by op in torch: the reference that writers and quantisers agree with.

It shows every tensor to an observer on the way, which is how activation ranges are found, and it
is the check that folding and lowering preserve the function of the module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch.nn import functional

from models.graph import INPUT

if TYPE_CHECKING:
    from models.fold import FloatArray, Weights
    from models.graph import Op
    from models.model import Model

_ACTIVATIONS = {
    "none": lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hardswish": functional.hardswish,
    "silu": functional.silu,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": functional.hardsigmoid,
}


class Observe(Protocol):
    """Is shown each tensor once, in order of execution; it must not change or keep it."""

    def __call__(self, name: str, tensor: torch.Tensor, /) -> None:
        """See tensor `name`: maps are (N, C, H, W), vectors (N, units)."""


def execute(
    model: Model, images: torch.Tensor | FloatArray, observe: Observe | None = None
) -> torch.Tensor:
    """Run a model on a batch in float32, without gradients and whatever its number format.

    Args:
        model: its ops and weights.
        images: (N, C, H, W) float32.
        observe: is shown the input and the output of every op.

    Returns:
        Logits, (N, classes).
    """
    graph, weights = model.graph, model.weights
    left = graph.consumers()
    tensors = {INPUT: torch.as_tensor(images).contiguous(memory_format=torch.channels_last)}
    with torch.no_grad():
        if observe is not None:
            observe(INPUT, tensors[INPUT])
        for op in graph.ops:
            result = _run(op, weights, [tensors[name] for name in op.inputs])
            if observe is not None:
                observe(op.name, result)
            tensors[op.name] = result
            for name in op.inputs:
                left[name] -= 1
                if not left[name]:
                    del tensors[name]
    return tensors[graph.output.name]


def _run(op: Op, weights: Weights, inputs: list[torch.Tensor]) -> torch.Tensor:
    x = inputs[0]
    if op.has_weights:
        x = _weighted(op, x, *map(_tensor, weights[op.name]))
    elif op.kind == "add":
        x = x + inputs[1]
    elif op.kind == "mul":
        x = x * inputs[1]
    elif op.kind == "mean":
        x = x.mean((2, 3), keepdim=op.keepdims)
    elif op.kind == "maxpool":
        x = _maxpool(op, x)
    activated: torch.Tensor = _ACTIVATIONS[op.act](x)
    return activated


def _weighted(op: Op, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    if op.kind == "dense":
        return functional.linear(x, weight, bias)
    depthwise = op.kind == "depthwise"
    # The stored layout is channels_last in memory: these are views.
    weight = weight.permute(3, 0, 1, 2) if depthwise else weight.permute(0, 3, 1, 2)
    groups = x.shape[1] if depthwise else 1
    top, bottom, left, right = op.padding
    if (top, left) == (bottom, right):
        return functional.conv2d(x, weight, bias, op.stride, (top, left), groups=groups)
    x = functional.pad(x, (left, right, top, bottom))
    return functional.conv2d(x, weight, bias, op.stride, groups=groups)


def _maxpool(op: Op, x: torch.Tensor) -> torch.Tensor:
    top, bottom, left, right = op.padding
    if (top, left) == (bottom, right):
        return functional.max_pool2d(x, op.kernel, op.stride, (top, left))
    x = functional.pad(x, (left, right, top, bottom), value=float("-inf"))
    return functional.max_pool2d(x, op.kernel, op.stride)


def _tensor(array: FloatArray) -> torch.Tensor:
    return torch.from_numpy(np.require(array, np.float32, ["C", "W"]))
