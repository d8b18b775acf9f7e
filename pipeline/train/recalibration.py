"""Batch-normalisation statistics of a sub-network, taken anew from training images.

A sub-network of a supernet sees other activations than the networks whose averages its layers
carry; without this its accuracy is about that of guessing (mit-han-lab/once-for-all#8). The
statistics are those of all the images together: where the reference code averages the variances of
the batches, the variance between the batches is counted here too (Chan et al. 1979, eq. 2.1), so
the size of the batches does not matter to a layer. It matters a little to the layers above it,
whose inputs are normalised batch by batch on the way: take batches as large as memory allows. They
are made equally large, so that no small rest is normalised by its own few images.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class _Pooled:
    """Count, mean and sum of squared deviations of everything seen, (C,) each, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.deviations = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Take in (N, C, H, W)."""
        variance, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0)
        own = x.numel() // x.shape[1]
        total = self.count + own
        shift = mean.double() - self.mean
        between = shift**2 * (self.count * own / total)
        self.deviations = self.deviations + variance.double() * own + between
        self.mean = self.mean + shift * (own / total)
        self.count = total


def recalibrate(module: nn.Module, images: npt.NDArray[np.float32], *, batch_size: int) -> None:
    """Set every batch normalisation's mean and variance to those over `images`.

    The variance is the unbiased one, as in training. The module ends in evaluation mode; its
    weights do not change.

    Args:
        module: a network of (N, C, H, W) images.
        images: (N, C, H, W), a few hundred of the training split.
        batch_size: images at once, at most.
    """
    pooled = {layer: _Pooled() for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)}

    def observe(seen: _Pooled, _layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.add(inputs[0])

    hooks = [
        layer.register_forward_pre_hook(partial(observe, seen)) for layer, seen in pooled.items()
    ]
    module.train()
    try:
        with torch.no_grad():
            batches = -(-len(images) // batch_size)
            for batch in torch.tensor_split(torch.from_numpy(images), batches):
                module(batch.contiguous(memory_format=torch.channels_last))
    finally:
        for hook in hooks:
            hook.remove()
    for layer, seen in pooled.items():
        layer.running_mean.copy_(seen.mean)  # type: ignore[union-attr]
        layer.running_var.copy_(seen.deviations / max(seen.count - 1, 1))  # type: ignore[union-attr]
    module.eval()
