"""The torch blocks of a spec. Module paths are the op names of `models.lower.lower`.

Maps are (N, C, H, W) and stay in channels_last memory. Nothing is padded by a copy unless
TensorFlow's ``same`` rule at stride 2 asks for different margins on the two sides.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from models.window import same_margins

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.spec import Block, SqueezeExcite

# The epsilon of every net in the zoo (tensorflow/tpu, mit-han-lab/proxylessnas). torch's 1e-5
# lets a nearly dead channel fold into a weight 10 times larger, which quantisation then pays for.
BN_EPSILON = 1e-3
# The papers' 0.99 (here 0.01) needs thousands of steps to forget its start; candidates of a
# search train for hundreds.
BN_MOMENTUM = 0.1


def activation(name: str) -> nn.Module:
    """Return the module of an activation, in place where the backward pass needs the output."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "linear": nn.Identity,
        "relu": lambda: nn.ReLU(inplace=True),
        "relu6": lambda: nn.ReLU6(inplace=True),
        "hardswish": nn.Hardswish,
        "silu": nn.SiLU,
        "sigmoid": nn.Sigmoid,
        "hardsigmoid": nn.Hardsigmoid,
    }
    return makers[name]()


class ConvBN(nn.Module):
    """Convolution without bias (`conv`), batch normalisation (`bn`), activation (`act`)."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        padding: str = "same",
        act: str = "linear",
    ) -> None:
        super().__init__()
        self.margins_vary = padding == "same" and stride > 1 and kernel > 1
        side = 0 if self.margins_vary else (kernel - 1) // 2
        self.conv = nn.Conv2d(channels, out, kernel, stride, side, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=BN_EPSILON, momentum=BN_MOMENTUM)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, out, H', W')."""
        if self.margins_vary:
            x = pad_same(x, self.conv.kernel_size[0], self.conv.stride[0])
        result: Tensor = self.act(self.bn(self.conv(x)))
        return result


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Add the zeros of TensorFlow's ``same`` rule, which may differ from side to side."""
    top, bottom = same_margins(x.shape[2], kernel, stride)
    left, right = same_margins(x.shape[3], kernel, stride)
    return functional.pad(x, (left, right, top, bottom))


class SqueezeExciteModule(nn.Module):
    """Scales each channel by a gate computed from the channel means (Hu et al. 2018, section 3)."""

    def __init__(self, channels: int, se: SqueezeExcite) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, se.channels, 1)
        self.act = activation(se.act)
        self.expand = nn.Conv2d(se.channels, channels, 1)
        self.gate = activation(se.gate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        pooled = x.mean((2, 3), keepdim=True)
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(pooled))))
        return x * gate


class BlockModule(nn.Sequential):
    """One block of the chain; children are named as its ops are: expand, depthwise, se, project."""

    expand: ConvBN
    depthwise: ConvBN
    se: SqueezeExciteModule
    project: ConvBN

    def __init__(self, channels: int, block: Block, padding: str) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        width = block.mid or channels
        window = partial(ConvBN, kernel=block.kernel, stride=block.stride, padding=padding)
        if block.op == "conv":
            width = block.out
            layers["conv"] = window(channels, width, act=block.act)
        else:
            if block.mid:
                layers["expand"] = ConvBN(channels, width, act=block.act)
            layers["depthwise"] = window(width, width, groups=width, act=block.act)
        if block.se is not None:
            layers["se"] = SqueezeExciteModule(width, block.se)
        if block.op != "conv":
            act = block.act if block.op == "ds" else "linear"
            layers["project"] = ConvBN(width, block.out, act=act)
        super().__init__(layers)
        self.skip = block.skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, out, H', W')."""
        result = x
        for layer in self:
            result = layer(result)
        return self.join(x, result)

    def join(self, x: Tensor, result: Tensor) -> Tensor:
        """Add what the block's skip takes from its input `x` to the result of its layers."""
        if self.skip == "none":
            return result
        return result + (functional.max_pool2d(x, 3, 1, 1) if self.skip == "pool" else x)


class Classifier(nn.Module):
    """A whole network: `blocks`, mean over positions, `dense`."""

    def __init__(self, blocks: list[nn.Module], dense: list[nn.Linear], acts: list[str]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.ModuleList(dense)
        self.acts = nn.ModuleList(activation(act) for act in acts)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        x = self.blocks(x).mean((2, 3))
        for dense, act in zip(self.dense, self.acts, strict=True):
            x = act(dense(x))
        return x
