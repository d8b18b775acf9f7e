"""What a network is: ops with shapes, in execution order.

Cost counting, latency tables, exporters, quantisers and coders all read this op list, so they
cannot disagree about it. Batch normalisation does not appear: a convolution here is the folded
one. No torch.

Shapes are (height, width, channels) for maps and (units,) for vectors, without the batch. Every
op has one output, named like the op; the graph's input is named ``input``. Op names are also the
module paths in `models.build`, which is how weights find their op.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

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
