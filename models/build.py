"""spec -> torch module, initialised for training."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

from models.blocks import BlockModule, Classifier

if TYPE_CHECKING:
    from models.spec import ArchSpec

# Small, so that the first logits are near 0 and the first loss is that of guessing.
_LOGITS_STD = 0.01


def build(spec: ArchSpec, *, generator: torch.Generator | None = None) -> Classifier:
    """Build the module of a spec, in training mode and channels_last memory.

    It takes images (N, C, H, W) of any size, not only the spec's, and returns logits
    (N, classes); layer names are the op names of `models.graph.lower`. Give it channels_last
    images: other layouts work and cost a copy.

    Args:
        spec: the network.
        generator: source of the initial weights; torch's global one if None (else left alone).
    """
    widths = [spec.blocks[-1].out if spec.blocks else spec.input[2]]
    widths += [layer.units for layer in spec.dense]
    # torch's own first weights are overwritten below; drawing them must not move its generator.
    with torch.random.fork_rng(devices=[]):
        blocks: list[nn.Module] = [
            BlockModule(channels, block, spec.padding) for channels, block in spec.chain()
        ]
        dense = [nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths)]
    network = Classifier(blocks, dense, [layer.act for layer in spec.dense])
    with torch.no_grad():
        for module in network.modules():
            _initialise(module, generator)
        dense[-1].weight.normal_(0.0, _LOGITS_STD, generator=generator)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it
    return network


def _initialise(module: nn.Module, generator: torch.Generator | None) -> None:
    """He et al. 2015, biases zero; for convolutions by fan-out (eq. 14), for dense by fan-in.

    Fan-out counts the outputs that one input reaches, so a depthwise filter reaches k x k of them
    and not k x k x C as `kaiming_normal_` has it, which would start it near zero.
    """
    if isinstance(module, nn.Conv2d):
        fan = module.out_channels // module.groups * module.kernel_size[0] ** 2
    elif isinstance(module, nn.Linear):
        fan = module.in_features
    else:
        return
    module.weight.normal_(0.0, (2.0 / fan) ** 0.5, generator=generator)
    if module.bias is not None:
        module.bias.zero_()
