"""Runs a folded graph op by op in torch: the reference that writers and quantisers agree with.

It shows every tensor to an observer on the way, which is how activation ranges are found, and it
is the check that folding and lowering preserve the function of the module. Maps are (N, C, H, W)
in channels_last memory; what torch does for a kind of op is said in `models.torch_forms`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from models.torch_forms import run_op
from models.torch_forms.axes import channels_first, channels_last

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.fold import FloatArray
    from models.model import Model


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
            # A single number has no axis for a batch and gets one, as files give it.
            join = {name: np.concatenate if each[0][name].ndim else np.stack for name in each[0]}
            return {name: put([one[name] for one in each]) for name, put in join.items()}
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


def _tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    array = array if array.flags.c_contiguous and array.flags.writeable else array.copy()
    return torch.from_numpy(array)
