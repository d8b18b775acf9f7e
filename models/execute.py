"""Runs a folded graph op by op in torch: the reference that writers and quantisers agree with.

It shows every tensor to an observer on the way, which is how activation ranges are found, and it
is the check that folding and lowering preserve the function of the module. Maps are (N, C, H, W)
in channels_last memory; a kind of op without a form in torch is computed by its numpy reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from models import ops

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.fold import FloatArray
    from models.graph import Op
    from models.model import Model
    from models.window import Window

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
        observe: is shown the input, every constant and the output of every op.

    Returns:
        Logits, (N, classes).
    """
    x = torch.as_tensor(images).contiguous(memory_format=torch.channels_last)
    graph = model.graph
    return _execute(model, {graph.inputs[0].name: x}, observe)[graph.output.name]


def execute_all(
    model: Model, inputs: Mapping[str, FloatArray], observe: Observe | None = None
) -> dict[str, FloatArray]:
    """Run a model of any inputs and outputs as `execute` does, in the graph's own layout.

    Args:
        model: its ops, weights and constants.
        inputs: by their names in the graph, of its types, shaped as the graph says but for N
            samples in place of the batch dimension of 1.
        observe: is shown every input, every constant and the output of every op; of each sample
            by itself where the graph does not keep the batch (`Graph.keeps_batch`).

    Returns:
        The outputs by their names in the graph, shaped as the graph says but for N samples.
    """
    whole = all(inputs[tensor.name].shape == tensor.shape for tensor in model.graph.inputs)
    if not model.graph.keeps_batch and not whole:
        count = max((len(value) for value in inputs.values()), default=1)
        if count > 1:
            each = [
                execute_all(model, {name: x[i : i + 1] for name, x in inputs.items()}, observe)
                for i in range(count)
            ]
            return {name: np.concatenate([one[name] for one in each]) for name in each[0]}
    given = {name: channels_first(_tensor(value)) for name, value in inputs.items()}
    outputs = _execute(model, given, observe)
    return {name: channels_last(value).numpy() for name, value in outputs.items()}


def _execute(
    model: Model, tensors: dict[str, torch.Tensor], observe: Observe | None
) -> dict[str, torch.Tensor]:
    graph, weights = model.graph, model.weights
    left = graph.readers()
    for constant in graph.constants:
        tensors[constant.name] = channels_first(_tensor(weights[constant.name][0]))
    with torch.no_grad():
        if observe is not None:
            for name, tensor in tensors.items():
                observe(name, tensor)
        for op in graph.ops:
            own = [_tensor(array) for array in weights[op.name]] if op.has_weights else []
            result = run_op(op, [tensors[name] for name in op.inputs], own)
            if observe is not None:
                observe(op.name, result)
            tensors[op.name] = result
            for name in op.inputs:
                left[name] -= 1
                if not left[name]:
                    del tensors[name]
    return {name: tensors[name] for name in graph.outputs}


def run_op(op: Op, inputs: list[torch.Tensor], own: list[torch.Tensor]) -> torch.Tensor:
    """Run an op on its inputs and its own weight and bias, both in the graph's layout."""
    if op.kind in _FORMS and op.act in _ACTIVATIONS:
        activated: torch.Tensor = _ACTIVATIONS[op.act](_FORMS[op.kind](op, *inputs, *own))
        return activated
    arrays = [channels_last(tensor).numpy() for tensor in inputs] + [t.numpy() for t in own]
    return channels_first(_tensor(np.asarray(ops.compute(op, arrays))))


def _convolve(op: Op, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    # The stored layout is channels_last in memory: this is a view.
    weight = weight.permute(op.layer.to_torch)
    groups = x.shape[1] // weight.shape[1]
    window: Window = op.attributes
    x, padding = _padded(window, x)
    return functional.conv2d(x, weight, bias, window.stride, padding, window.dilation, groups)


def _maxpool(op: Op, x: torch.Tensor) -> torch.Tensor:
    window: Window = op.attributes
    top, bottom, left, right = window.padding
    # torch pads a pool by at most half its kernel.
    fits = top <= window.kernel[0] // 2 and left <= window.kernel[1] // 2
    padding = (top, left)
    if not fits or (top, left) != (bottom, right):
        x, padding = functional.pad(x, (left, right, top, bottom), value=float("-inf")), (0, 0)
    return functional.max_pool2d(x, window.kernel, window.stride, padding, window.dilation)


def _padded(window: Window, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
    """Return a map and the zeros that torch can still add on both sides: all, where it can."""
    top, bottom, left, right = window.padding
    if (top, left) == (bottom, right):
        return x, (top, left)
    return functional.pad(x, (left, right, top, bottom)), (0, 0)


def channels_first(x: torch.Tensor) -> torch.Tensor:
    """Return a map (N, H, W, C) as a view (N, C, H, W); other tensors as they are."""
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Return a map (N, C, H, W) as a view (N, H, W, C); other tensors as they are."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def _tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    array = array if array.flags.c_contiguous and array.flags.writeable else array.copy()
    return torch.from_numpy(array)


_FORMS: Mapping[str, Callable[..., torch.Tensor]] = {
    "conv": _convolve,
    "depthwise": _convolve,
    "dense": lambda _, x, weight, bias: channels_first(
        functional.linear(channels_last(x), weight, bias)
    ),
    "add": lambda _, x, y: x + y,
    "mul": lambda _, x, y: x * y,
    "mean": lambda op, x: x.mean((2, 3), keepdim=op.attributes.keepdims),
    "maxpool": _maxpool,
    "act": lambda _, x: x,
}
"""Kind -> what torch does for it, from the values of its inputs and its weight and bias."""
