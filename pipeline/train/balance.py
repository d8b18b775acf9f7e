"""One learning rate for layers whose weights are of different sizes.

A network that is fed pixels from 0 to 255, or has batch normalisation folded in, computes the same
as one whose layers are all of the usual size, but has gradients thousands of times as large in some
channels, and weights thousands of times as small. At a rate that suits most layers those are
destroyed in a few steps.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from models.graph_module import GraphModule

_LEAST = 0.01
"""A channel of nearly no weights is taken for one of this share of its layer's size."""


def balance_gradients(module: GraphModule) -> None:
    """Let each weight be trained as in the network whose channels are all of the usual size.

    Usual is the standard deviation sqrt(2 / fan-in) of He et al. 2015, equation 10. A weight that
    is f times that, and would be f times a weight of that size, gets f squared of its gradient:
    steps of the optimiser are then in units of the weight, whatever a layer reads and gives.
    """
    weights = module.layer_weights()
    for op in module.graph.ops:
        if not op.has_weights:
            continue
        weight = weights[op.name]
        fan_in = prod(weight.shape) // op.out_shape[-1]
        axes = [axis for axis in range(weight.ndim) if axis != op.layer.channel_axis]
        size = weight.detach().square().mean(axes, keepdim=True).sqrt()
        size = size.clamp_min(_LEAST * float(size.mean()))
        if float(size.min()) > 0:  # a layer of zeros says nothing
            share = size.square() * fan_in / 2
            weight.register_hook(_scaled_by(share))  # type: ignore[no-untyped-call]


def _scaled_by(share: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda gradient: gradient * share.to(gradient.device)
