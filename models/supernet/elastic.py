"""A Once-for-all network: one set of weights that holds every smaller network (Cai et al. 2020).

A sub-network uses the first blocks of each stage (depth), the first middle channels of each block
(width) and, for a smaller depthwise kernel, the centre of the larger one times a learnt matrix,
shared by the channels of a layer and chained: f5 = M75 vec(centre f7), f3 = M53 vec(centre f5)
(section 3.3). It runs on slices of the shared weights; `extract` copies them into a plain network
with the same outputs. Any image size will do, so resolution is the caller's affair.

The matrices begin as identities, which makes a smaller kernel the centre of the larger one.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import weights_file
from models.blocks import BlockModule, ConvBN, SqueezeExciteModule, pad_same
from models.build import build
from models.network import Network
from models.spec import ArchSpec, SpecError
from models.supernet._fit import SMALLEST_KERNEL, Part, fit
from models.supernet._sorting import sort_block

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_VERSION = 1


class ElasticNet(nn.Module):
    """The full network's weights (`net`), the kernel matrices, and the sub-network selected.

    Attributes:
        full: the deepest, widest network with the largest kernels.
        net: its module.
        matrices: by block and the two kernel sizes, ``<block>_<from>_<to>``, (to², to²) each.
    """

    def __init__(self, full: ArchSpec, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.full = full
        self.net = build(full, generator=generator)
        self.matrices = nn.ParameterDict(
            {
                f"{index}_{small + 2}_{small}": torch.eye(small**2)
                for index, block in enumerate(full.blocks)
                if block.op != "conv"
                for small in range(block.kernel - 2, SMALLEST_KERNEL - 1, -2)
            }
        )
        self.select(full)

    def select(self, spec: ArchSpec) -> None:
        """Let `forward` be the network of `spec`, which may have any height and width.

        Raises:
            SpecError: `spec` does not fit inside `full`; names the block and what does not fit.
        """
        self._parts = fit(self.full, spec)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to the selected sub-network's logits (N, classes)."""
        for part in self._parts:
            x = self._block(part, x)
        x = x.mean((2, 3))
        for dense, act in zip(self.net.dense, self.net.acts, strict=True):
            x = act(dense(x))
        return x

    def kernel(self, index: int, size: int, width: int) -> Tensor:
        """Return the depthwise kernel of a block at a size, (width, 1, size, size)."""
        layer = cast("BlockModule", self.net.blocks[index]).depthwise
        weight = _first(layer.conv.weight, width)
        for big in range(weight.shape[-1], size, -2):
            centre = weight[:, :, 1:-1, 1:-1].flatten(1)  # (width, small²)
            moved = functional.linear(centre, self.matrices[f"{index}_{big}_{big - 2}"])
            weight = moved.view(width, 1, big - 2, big - 2)
        return weight

    def extract(self, spec: ArchSpec) -> Network:
        """Return a sub-network as a plain network in evaluation mode, its weights copied.

        Its batch normalisation has the statistics of the supernet: `pipeline.train.recalibration`
        replaces them before the network is used by itself.

        Raises:
            SpecError: `spec` does not fit inside `full`.
        """
        module = build(spec, generator=torch.Generator())
        state = self.net.state_dict()
        own = module.state_dict()
        parts = fit(self.full, spec)
        for name, target in own.items():
            owner, *rest = name.split(".")
            source = name
            if owner == "blocks":
                source = ".".join((owner, str(parts[int(rest[0])].index), *rest[1:]))
            if name.endswith("depthwise.conv.weight"):
                kernel = self.kernel(parts[int(rest[0])].index, target.shape[-1], len(target))
                target.copy_(kernel.detach())
            else:
                # Whatever a sub-network uses of a tensor is its first part along every axis.
                target.copy_(state[source][tuple(slice(length) for length in target.shape)])
        return Network(spec, module.eval(), ("supernet",))

    def sort_channels(self, supported: Sequence[ArchSpec] = ()) -> None:
        """Put the most important middle channels of every block first; `full` stays what it is.

        The importance of a channel is the L1 norm of what reads it: the projection for a middle
        channel, the expansion for a squeeze channel. `supported` are sub-networks that have been
        trained already: channels stay on their side of each of their widths, so that those
        networks too stay what they are.

        Raises:
            SpecError: one of `supported` does not fit inside `full`.
        """
        smaller: dict[int, list[Part]] = {}
        for part in itertools.chain.from_iterable(fit(self.full, spec) for spec in supported):
            smaller.setdefault(part.index, []).append(part)
        for index, block in enumerate(self.full.blocks):
            if block.mid:
                kept = [part.block for part in smaller.get(index, ())]
                sort_block(cast("BlockModule", self.net.blocks[index]), kept)

    def check_data(self, channels: int, classes: int) -> None:
        """Refuse images of another kind than it was trained on. Raises SpecError."""
        for what, own, given in (
            ("channels", self.full.input[2], channels),
            ("classes", self.full.classes, classes),
        ):
            if own != given:
                raise SpecError(
                    f"the supernet is for images of {own} {what}, the data set has {given}; "
                    "train one for this data set"
                )

    def digest(self) -> str:
        """Return a 16-digit hash of the full spec and the weights."""
        return weights_file.digest(self.full.digest(), self._arrays())

    def save(self, path: Path | str) -> None:
        """Write the full spec and the weights to one .npz. Raises ConfigError if it cannot."""
        header = {"version": _VERSION, "full": self.full.to_json(), "digest": self.digest()}
        weights_file.write(path, "supernet", header, self._arrays())

    @classmethod
    def load(cls, path: Path | str) -> ElasticNet:
        """Read what `save` wrote, in evaluation mode.

        Raises:
            ConfigError: if there is no such file, it is not a supernet, or it is damaged.
        """

        def make(header: dict[str, Any], arrays: weights_file.Arrays) -> ElasticNet:
            full = ArchSpec.from_json(header["full"])
            weights_file.refuse_mismatch(full, arrays)
            net = cls(full, generator=torch.Generator())
            net.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
            net.eval()
            return net

        return weights_file.read(path, "supernet", make)

    def _arrays(self) -> weights_file.Arrays:
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.state_dict().items()}

    def _block(self, part: Part, x: Tensor) -> Tensor:
        module = cast("BlockModule", self.net.blocks[part.index])
        block, largest = part.block, self.full.blocks[part.index]
        if block == largest:
            whole: Tensor = module(x)
            return whole
        result, width = x, block.mid or len(module.depthwise.conv.weight)
        if block.mid:
            weight = _first(module.expand.conv.weight, width)
            result = _conv_bn(module.expand, result, weight)
        kernel = self.kernel(part.index, block.kernel, width)
        result = _conv_bn(module.depthwise, result, kernel)
        if block.se is not None:
            result = _squeeze_excite(module.se, result, block.se.channels)
        result = _conv_bn(module.project, result, _first(module.project.conv.weight, width, 1))
        return module.join(x, result)


def _first(tensor: Tensor, length: int, axis: int = 0) -> Tensor:
    """Return the first part of a tensor along an axis.

    All of it is the tensor itself: the gradient of a slice is a copy as large as the tensor.
    """
    return tensor if tensor.shape[axis] == length else tensor.narrow(axis, 0, length)


def _conv_bn(layer: ConvBN, x: Tensor, weight: Tensor) -> Tensor:
    """Run a layer with another weight (out, in / groups, k, k) and the first `out` statistics."""
    kernel, stride, out = weight.shape[-1], layer.conv.stride[0], len(weight)
    side = (kernel - 1) // 2
    if layer.margins_vary:
        x, side = pad_same(x, kernel, stride), 0
    groups = 1 if layer.conv.groups == 1 else out
    x = functional.conv2d(x, weight, None, stride, side, groups=groups)
    bn = layer.bn
    mean, variance = cast("Tensor", bn.running_mean), cast("Tensor", bn.running_var)
    x = functional.batch_norm(
        x,
        _first(mean, out),
        _first(variance, out),
        _first(bn.weight, out),
        _first(bn.bias, out),
        training=bn.training,
        momentum=cast("float", bn.momentum),
        eps=bn.eps,
    )
    result: Tensor = layer.act(x)
    return result


def _squeeze_excite(layer: SqueezeExciteModule, x: Tensor, channels: int) -> Tensor:
    """Run squeeze-and-excite on (N, C, H, W) with the first C and `channels` of its units."""
    width = x.shape[1]
    reduce, expand = layer.reduce, layer.expand
    reduce_bias, expand_bias = cast("Tensor", reduce.bias), cast("Tensor", expand.bias)
    weight = _first(_first(reduce.weight, channels), width, 1)
    pooled = x.mean((2, 3), keepdim=True)
    squeezed = layer.act(functional.conv2d(pooled, weight, _first(reduce_bias, channels)))
    weight = _first(_first(expand.weight, width), channels, 1)
    gate: Tensor = layer.gate(functional.conv2d(squeezed, weight, _first(expand_bias, width)))
    return x * gate
