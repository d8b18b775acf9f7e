"""The one lowering of a spec to ops with shapes.

Cost counting, latency tables, exporters, quantisers and coders all read this op list, so they
cannot disagree about what a network is. Batch normalisation does not appear: a convolution here
is the folded one. No torch.

Shapes are (height, width, channels) for maps and (units,) for vectors, without the batch. Every
op has one output, named like the op; the graph's input is named ``input``. Op names are also the
module paths in `models.build`, which is how weights find their op.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.spec import ArchSpec, Block, SqueezeExcite

INPUT = "input"
FUSED_ACTIVATIONS = ("none", "relu", "relu6")

Shape = tuple[int, ...]
Padding = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Op:
    """One operation.

    Attributes:
        kind: conv | depthwise | dense | add | mul | mean | maxpool | act.
        name: unique; also the name of its output tensor.
        inputs: names of the tensors read; `mul` reads (map, gate of shape (1, 1, C)).
        in_shapes: their shapes.
        out_shape: shape of the output.
        kernel: window height and width.
        stride: step of the window.
        padding: zeros (top, bottom, left, right); minus infinity for maxpool.
        act: fused activation (`FUSED_ACTIVATIONS`); for kind `act` the function itself:
            hardswish | silu | sigmoid | hardsigmoid.
        keepdims: of `mean`: (1, 1, C) if true, else (C,).
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    in_shapes: tuple[Shape, ...]
    out_shape: Shape
    kernel: int = 1
    stride: int = 1
    padding: Padding = (0, 0, 0, 0)
    act: str = "none"
    keepdims: bool = True

    @property
    def has_weights(self) -> bool:
        """Whether the op owns a weight and a bias."""
        return self.kind in ("conv", "depthwise", "dense")

    @property
    def weight_shape(self) -> Shape:
        """TFLite layout: conv (out, kh, kw, in), depthwise (1, kh, kw, C), dense (out, in)."""
        k, c_in, c_out = self.kernel, self.in_shapes[0][-1], self.out_shape[-1]
        if self.kind == "conv":
            return (c_out, k, k, c_in)
        return (1, k, k, c_out) if self.kind == "depthwise" else (c_out, c_in)

    @property
    def key(self) -> str:
        """What its cost on a device depends on, as a string: the key of latency tables."""
        shapes = "+".join("x".join(map(str, s)) for s in self.in_shapes)
        out = "x".join(map(str, self.out_shape))
        window = f"k{self.kernel}s{self.stride}p{'.'.join(map(str, self.padding))}"
        return f"{self.kind}:{shapes}->{out}:{window}:{self.act}"


@dataclass(frozen=True, slots=True)
class Graph:
    """Ops in execution order; the last one gives the output."""

    input_shape: tuple[int, int, int]
    ops: tuple[Op, ...]

    @property
    def output(self) -> Op:
        """The op whose output is the network's."""
        return self.ops[-1]

    def shape(self, tensor: str) -> Shape:
        """Return the shape of a tensor by name; KeyError if there is none."""
        return self.input_shape if tensor == INPUT else self[tensor].out_shape

    def __getitem__(self, name: str) -> Op:
        """Return the op of that name; KeyError if there is none."""
        for op in self.ops:
            if op.name == name:
                return op
        raise KeyError(name)

    def consumers(self) -> Counter[str]:
        """Return how many ops read each tensor."""
        return Counter(tensor for op in self.ops for tensor in op.inputs)

    def digest(self) -> str:
        """Return a 16-digit hash of all that latency can depend on: op keys and wiring."""
        wiring = [f"{op.key}@{','.join(op.inputs)}>{op.name}" for op in self.ops]
        return hashlib.sha256("\n".join(wiring).encode()).hexdigest()[:16]


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
