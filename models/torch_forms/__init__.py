"""What torch does for each kind of op: one table, which runs graphs and trains them.

A form takes the op, the values of its inputs (maps as (N, C, H, W), all else as the graph has it)
and a layer's weight and bias, both in the graph's layout. All are differentiable where the kind
is. A kind without a form is computed by its numpy reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from models import ops
from models.torch_forms import elementwise, layers, shaping
from models.torch_forms.axes import channels_first, channels_last

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.graph import Op
    from models.torch_forms.axes import Form

ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hardswish": functional.hardswish,
    "silu": functional.silu,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": functional.hardsigmoid,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "softplus": functional.softplus,
    "mish": functional.mish,
}

FORMS: Mapping[str, Form] = {**layers.FORMS, **elementwise.FORMS, **shaping.FORMS}


def run_op(op: Op, inputs: Sequence[torch.Tensor], own: Sequence[torch.Tensor]) -> torch.Tensor:
    """Run an op, its activation included.

    Args:
        op: the op.
        inputs: values of its inputs: maps (N, C, H, W), all else as the graph has it.
        own: a layer's weight and bias, in the graph's layout.
    """
    if op.kind in FORMS:
        return ACTIVATIONS[op.act](FORMS[op.kind](op, *inputs, *own))
    arrays = [channels_last(tensor).detach().cpu().numpy() for tensor in inputs]
    result = np.asarray(ops.compute(op, arrays + [tensor.detach().cpu().numpy() for tensor in own]))
    made = torch.from_numpy(np.require(result, None, ["C", "W"])).to(inputs[0].device)
    return channels_first(made)
