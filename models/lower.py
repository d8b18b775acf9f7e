"""The one lowering of a spec to the graph that everything else reads. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.graph import FUSED_ACTIVATIONS, INPUT, Graph, Op, Shape

if TYPE_CHECKING:
    from models.spec import ArchSpec, Block, SqueezeExcite


def lower(spec: ArchSpec) -> Graph:
    """Lower a spec to its ops."""
    builder = _Builder(spec)
    for index, block in enumerate(spec.blocks):
        builder.block(f"blocks.{index}", block)
    builder.add(Op("mean", "pool", (builder.at,), (), (builder.shape[-1],), keepdims=False))
    for index, layer in enumerate(spec.dense):
        builder.add(Op("dense", f"dense.{index}", (builder.at,), (), (layer.units,)), layer.act)
    return Graph(spec.input, tuple(builder.ops))


def window_padding(size: int, kernel: int, stride: int, padding: str) -> tuple[int, int, int]:
    """Return (output size, zeros before, zeros after) along one axis.

    ``same`` is TensorFlow's rule, ceil(size / stride) outputs with the odd zero after;
    ``symmetric`` is torch's (kernel - 1) // 2 on both sides.
    """
    if padding == "same":
        out = -(-size // stride)
        total = max((out - 1) * stride + kernel - size, 0)
        return out, total // 2, total - total // 2
    side = (kernel - 1) // 2
    return (size + 2 * side - kernel) // stride + 1, side, side


@dataclass(slots=True)
class _Builder:
    """Appends ops to a chain; `at` is the tensor the next op reads."""

    spec: ArchSpec
    ops: list[Op] = field(default_factory=list)
    at: str = INPUT
    shapes: dict[str, Shape] = field(init=False)

    def __post_init__(self) -> None:
        self.shapes = {INPUT: self.spec.input}

    @property
    def shape(self) -> Shape:
        return self.shapes[self.at]

    def add(self, op: Op, act: str = "linear") -> None:
        """Append `op`, with `act` fused where a runtime can, else as an op of its own."""
        fused = {"linear": "none"}.get(act, act)
        alone = fused not in FUSED_ACTIVATIONS
        in_shapes = tuple(self.shapes[name] for name in op.inputs)
        self.ops.append(
            Op(
                op.kind,
                op.name,
                op.inputs,
                in_shapes,
                op.out_shape,
                op.kernel,
                op.stride,
                op.padding,
                op.act if op.kind == "act" else ("none" if alone else fused),
                op.keepdims,
            )
        )
        self.shapes[op.name] = op.out_shape
        self.at = op.name
        if alone:
            self.add(Op("act", f"{op.name}.act", (op.name,), (), op.out_shape, act=act))

    def window(self, kind: str, name: str, block: Block, out: int, act: str) -> None:
        height, width, _ = self.shape
        rows, top, bottom = window_padding(height, block.kernel, block.stride, self.spec.padding)
        cols, left, right = window_padding(width, block.kernel, block.stride, self.spec.padding)
        pads = (top, bottom, left, right)
        shape = (rows, cols, out)
        self.add(Op(kind, name, (self.at,), (), shape, block.kernel, block.stride, pads), act)

    def pointwise(self, name: str, out: int, act: str) -> None:
        self.add(Op("conv", name, (self.at,), (), (*self.shape[:2], out)), act)

    def block(self, name: str, block: Block) -> None:
        source = self.at
        if block.op == "conv":
            self.window("conv", f"{name}.conv", block, block.out, block.act)
        else:
            if block.mid:
                self.pointwise(f"{name}.expand", block.mid, block.act)
            width = self.shape[-1]
            self.window("depthwise", f"{name}.depthwise", block, width, block.act)
        if block.se is not None:
            self.squeeze_excite(f"{name}.se", block.se)
        if block.op != "conv":
            act = block.act if block.op == "ds" else "linear"
            self.pointwise(f"{name}.project", block.out, act)
        if block.skip != "none":
            self.skip(name, block, source)

    def squeeze_excite(self, name: str, se: SqueezeExcite) -> None:
        source, channels = self.at, self.shape[-1]
        self.add(Op("mean", f"{name}.pool", (source,), (), (1, 1, channels)))
        self.pointwise(f"{name}.reduce", se.channels, se.act)
        self.pointwise(f"{name}.expand", channels, se.gate)
        self.add(Op("mul", f"{name}.scale", (source, self.at), (), self.shapes[source]))

    def skip(self, name: str, block: Block, source: str) -> None:
        result, shape = self.at, self.shape
        if block.skip == "pool":
            pads = (1, 1, 1, 1)
            self.add(Op("maxpool", f"{name}.pool", (source,), (), shape, 3, 1, pads))
            source = self.at
        self.add(Op("add", f"{name}.add", (source, result), (), shape))
