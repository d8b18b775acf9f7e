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
    (N, classes); layer names are the op names of `models.lower.lower`. Give it channels_last
    images: other layouts work and cost a copy.

    Args:
        spec: the network.
        generator: source of the initial weights; torch's global one if None.
    """
    with torch.random.fork_rng(devices=[], enabled=generator is not None):
        if generator is not None:
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        network = _network(spec)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it
    return network


def _network(spec: ArchSpec) -> Classifier:
    """Build with torch's own initial weights, but logits that start near 0.

    Tried against He et al. 2015 by fan-out on three small nets: after two epochs torch's gave 1 to
    20 points more (docs/log.md).
    """
    blocks: list[nn.Module] = [
        BlockModule(channels, block, spec.padding) for channels, block in spec.chain()
    ]
    widths = [spec.blocks[-1].out if spec.blocks else spec.input[2]]
    widths += [layer.units for layer in spec.dense]
    dense = [nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths)]
    with torch.no_grad():
        dense[-1].weight.normal_(0.0, _LOGITS_STD)
        dense[-1].bias.zero_()
    return Classifier(blocks, dense, [layer.act for layer in spec.dense])
