"""The one lowering of a spec to the graph that everything else reads. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.activations import FUSED_ACTIVATIONS
from models.graph import INPUT, SQUEEZE_EXCITE, Graph, GraphBuilder
from models.ops import Conv, Dense, Depthwise, Mean
from models.window import Window, same_margins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.graph import Op
    from models.ops import Shape
    from models.spec import ArchSpec, Block, SqueezeExcite


def lower(spec: ArchSpec) -> Graph:
    """Lower a spec to its ops: those of its blocks, a mean over positions, dense layers."""
    chain = _Chain(spec.input, spec.padding)
    chain.blocks(spec.blocks)
    chain.part = "pool"
    chain.add("mean", "pool", Mean(keepdims=False))
    for index, layer in enumerate(spec.dense):
        chain.part = f"dense {index}"
        chain.add("dense", f"dense.{index}", Dense(layer.units), layer.act)
    return chain.builder.graph()


def lower_blocks(
    shape: tuple[int, int, int], blocks: Sequence[Block], padding: str
) -> tuple[tuple[Op, ...], tuple[int, int, int]]:
    """Lower a part of a chain: blocks behind a map of `shape` (height, width, channels).

    Returns:
        Their ops, and the shape of the map behind them.
    """
    chain = _Chain(shape, padding)
    chain.blocks(blocks)
    _, height, width, channels = chain.shape
    return tuple(chain.builder.ops), (height, width, channels)


def window_padding(size: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    """Return the zeros before and after along one axis.

    ``same`` is TensorFlow's rule, with the odd zero after; ``symmetric`` is torch's
    (kernel - 1) // 2 on both sides.
    """
    if padding == "same":
        return same_margins(size, kernel, stride)
    side = (kernel - 1) // 2
    return side, side


class _Chain:
    """Appends ops one behind the other.

    `at` is the tensor that the next op reads, `part` the part of the network it belongs to.
    """

    def __init__(self, shape: tuple[int, int, int], padding: str) -> None:
        self.builder = GraphBuilder()
        self.padding = padding
        self.part = ""
        self.at = self.builder.input(INPUT, (1, *shape))

    @property
    def shape(self) -> Shape:
        return self.builder.shapes[self.at]

    def add(
        self, kind: str, name: str, attributes: object = None, act: str = "linear", role: str = ""
    ) -> None:
        """Append an op that reads `at`."""
        self.join(kind, name, (self.at,), attributes, act, role)

    def join(
        self,
        kind: str,
        name: str,
        inputs: tuple[str, ...],
        attributes: object = None,
        act: str = "linear",
        role: str = "",
    ) -> None:
        """Append an op with `act` fused where a runtime can, else as an op of its own."""
        fused = "none" if act == "linear" else act
        alone = fused not in FUSED_ACTIVATIONS
        of = {"role": role, "block": self.part}
        self.at = self.builder.op(
            kind, name, inputs, attributes, act="none" if alone else fused, **of
        )
        if alone:
            self.at = self.builder.op("act", f"{name}.act", (self.at,), act=act, **of)

    def window(self, block: Block) -> dict[str, Any]:
        _, height, width, _ = self.shape
        top, bottom = window_padding(height, block.kernel, block.stride, self.padding)
        left, right = window_padding(width, block.kernel, block.stride, self.padding)
        return {
            "kernel": (block.kernel, block.kernel),
            "stride": (block.stride, block.stride),
            "padding": (top, bottom, left, right),
        }

    def blocks(self, blocks: Sequence[Block]) -> None:
        for index, block in enumerate(blocks):
            self.part = f"block {index}"
            self.block(f"blocks.{index}", block)

    def block(self, name: str, block: Block) -> None:
        source = self.at
        if block.op == "conv":
            conv = Conv(**self.window(block), out=block.out)
            self.add("conv", f"{name}.conv", conv, block.act)
        else:
            if block.mid:
                self.add("conv", f"{name}.expand", Conv(out=block.mid), block.act)
            depthwise = Depthwise(**self.window(block))
            self.add("depthwise", f"{name}.depthwise", depthwise, block.act)
        if block.se is not None:
            self.squeeze_excite(f"{name}.se", block.se)
        if block.op != "conv":
            act = block.act if block.op == "ds" else "linear"
            self.add("conv", f"{name}.project", Conv(out=block.out), act)
        if block.skip != "none":
            self.skip(name, block, source)

    def squeeze_excite(self, name: str, se: SqueezeExcite) -> None:
        source, channels = self.at, self.shape[-1]
        role = SQUEEZE_EXCITE
        self.add("mean", f"{name}.pool", Mean(), role=role)
        self.add("conv", f"{name}.reduce", Conv(out=se.channels), se.act, role)
        self.add("conv", f"{name}.expand", Conv(out=channels), se.gate, role)
        self.join("mul", f"{name}.scale", (source, self.at), role=role)

    def skip(self, name: str, block: Block, source: str) -> None:
        result = self.at
        if block.skip == "pool":
            window = Window(kernel=(3, 3), padding=(1, 1, 1, 1))
            self.join("maxpool", f"{name}.pool", (source,), window)
            source = self.at
        self.join("add", f"{name}.add", (source, result))
