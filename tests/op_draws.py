"""Random graphs of one op, of every kind, with sides that all differ, and values to run them on.

A kind without an entry in `DRAWS` fails the contract tests: that entry is all that a new row of
`models.ops` needs here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models import ops
from models.fold import random_weights
from models.graph import GraphBuilder
from models.model import Model
from models.ops import (
    KINDS,
    Arg,
    AvgPool,
    BatchNorm,
    Cast,
    Clip,
    Compare,
    Concat,
    Conv,
    Deconv,
    Dense,
    DepthToSpace,
    Depthwise,
    Elu,
    Gather,
    L2Norm,
    LayerNorm,
    LeakyRelu,
    Logical,
    Matmul,
    Mean,
    Pad,
    Reduce,
    Reshape,
    Resize,
    Slice,
    Softmax,
    SpaceToDepth,
    Tile,
    Transpose,
    Unary,
)
from models.ops.arithmetic import COMPARISONS, FUNCTIONS, LOGICAL
from models.ops.reducing import REDUCTIONS
from models.ops.resizing import COORDINATES, MODES, ROUNDING
from models.ops.shaping import PAD_MODES
from models.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.graph import Graph
    from models.ops import Shape

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Rng = np.random.Generator

SEEDS = 12
SAMPLES = 3


@dataclass(frozen=True)
class Draw:
    """Attributes of an op, and what it reads beside its first input, which is shaped `shape`.

    Attributes:
        attributes: of the op.
        shape: of its first input; None for the one that was offered.
        dtype: of its first input.
        more: (shape, type, whether it is a constant) of the other inputs.
    """

    attributes: Any = None
    shape: Shape | None = None
    dtype: str = "float32"
    more: tuple[tuple[Shape, str, bool], ...] = ()


def pair(rng: Rng, most: int) -> tuple[int, int]:
    down, across = (int(side) for side in rng.integers(1, most + 1, 2))
    return down, across


def window(rng: Rng) -> dict[str, Any]:
    """A window with sides, steps and paddings that differ; dilation only without a stride."""
    kernel = pair(rng, 5)
    dilation = pair(rng, 3) if rng.random() < 0.4 else (1, 1)
    least = Window(kernel=kernel, dilation=dilation).reach
    return {
        "kernel": kernel,
        "stride": pair(rng, 3) if dilation == (1, 1) else (1, 1),
        "padding": tuple(int(rng.integers(0, least[side // 2])) for side in range(4)),
        "dilation": dilation,
    }


def conv(rng: Rng, shape: Shape) -> Draw:
    groups = int(rng.choice([g for g in (1, 2, 3, 4) if shape[3] % g == 0]))
    return Draw(Conv(**window(rng), out=groups * int(rng.integers(1, 4)), groups=groups))


def avgpool(rng: Rng, _: Shape) -> Draw:
    if rng.random() < 0.5:
        return Draw(AvgPool(kernel=(3, 2), stride=(2, 1)))
    kernel = pair(rng, 4)
    padding = tuple(int(rng.integers(0, kernel[side // 2])) for side in range(4))
    counts = bool(rng.integers(2))
    return Draw(AvgPool(kernel=kernel, padding=padding, stride=pair(rng, 3), count_padding=counts))


def deconv(rng: Rng, shape: Shape) -> Draw:
    drawn = window(rng)
    drawn["padding"] = tuple(min(side, 2) for side in drawn["padding"])
    extra = tuple(int(rng.integers(0, step)) for step in drawn["stride"])
    groups = 2 if shape[3] % 2 == 0 and rng.random() < 0.3 else 1
    return Draw(Deconv(**drawn, out=groups * int(rng.integers(1, 4)), groups=groups, extra=extra))


def vector_or_more(rng: Rng, shape: Shape) -> Shape:
    """A shape of 2, 3 or 4 axes with the same channels."""
    return [(1, shape[3]), (1, *shape[2:]), shape][int(rng.integers(3))]


def any_rank(rng: Rng, shape: Shape) -> Shape:
    """A shape of 2 to 5 axes."""
    if rng.random() < 0.5:
        return shape
    _, _, width, channels = shape
    ranks: list[Shape] = [(1, channels), (1, width, channels), (1, 2, 3, width, channels)]
    return ranks[int(rng.integers(3))]


def axis(rng: Rng, shape: Shape) -> int:
    return int(rng.integers(1, len(shape)))


def two(rng: Rng, shape: Shape, dtype: str = "float32", attributes: Any = None) -> Draw:
    """Two inputs that broadcast."""
    first = any_rank(rng, shape)
    other = tuple(int(n) if rng.random() < 0.6 else 1 for n in first)
    return Draw(attributes, first, dtype, ((other, dtype, bool(rng.random() < 0.5)),))


def chosen(rng: Rng, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    return str(rng.choice(list(known)))


def matmul(rng: Rng, _: Shape) -> Draw:
    rows, inner, columns, heads = (int(n) for n in rng.integers(2, 7, 4))
    turn_a, turn_b = (bool(rng.integers(2)) for _ in range(2))
    a: Shape = (1, heads, inner, rows) if turn_a else (1, heads, rows, inner)
    b: Shape = (1, heads, columns, inner) if turn_b else (1, heads, inner, columns)
    if rng.random() < 0.3:
        b = (1, 1, *b[2:])
    return Draw(Matmul(turn_a, turn_b), a, more=((b, "float32", bool(rng.random() < 0.5)),))


def compare(rng: Rng, shape: Shape) -> Draw:
    dtype = chosen(rng, ("float32", "float32", "int32", "int64"))
    return two(rng, shape, dtype, Compare(chosen(rng, COMPARISONS)))


def where(rng: Rng, shape: Shape) -> Draw:
    first = any_rank(rng, shape)
    other = tuple(int(n) if rng.random() < 0.6 else 1 for n in first)
    return Draw(None, first, "bool", ((first, "float32", False), (other, "float32", True)))


def unary(rng: Rng, shape: Shape) -> Draw:
    function = list(FUNCTIONS)[int(rng.integers(len(FUNCTIONS)))]
    return Draw(Unary(function), any_rank(rng, shape), "bool" if function == "not" else "float32")


def cast(rng: Rng, shape: Shape) -> Draw:
    source, target = (chosen(rng, ("float32", "int32", "int64", "bool")) for _ in range(2))
    return Draw(Cast(target), any_rank(rng, shape), source)


def clip(rng: Rng, shape: Shape) -> Draw:
    low = float(rng.choice([-np.inf, -0.75, 0.0]))
    high = float(rng.choice([np.inf, 0.5, 1.25])) if np.isfinite(low) else 0.5
    return Draw(Clip(low, high), any_rank(rng, shape))


def prelu(rng: Rng, shape: Shape) -> Draw:
    first = vector_or_more(rng, shape)
    slope = (*(1,) * (len(first) - 1), first[-1])
    return Draw(None, first, more=((slope, "float32", True),))


def norm(rng: Rng, shape: Shape) -> Draw:
    first = vector_or_more(rng, shape)
    parameters = (first[-1:], "float32", True)
    return Draw(BatchNorm(float(rng.choice([1e-5, 1e-3]))), first, more=(parameters,) * 4)


def layernorm(rng: Rng, shape: Shape) -> Draw:
    first = vector_or_more(rng, shape)
    count = int(rng.integers(1, len(first)))
    parameters = (first[-count:], "float32", True)
    return Draw(LayerNorm(count, 1e-3), first, more=(parameters,) * 2)


def reduce(rng: Rng, shape: Shape) -> Draw:
    first = any_rank(rng, shape)
    count = int(rng.integers(1, len(first)))
    axes = tuple(sorted(int(a) for a in rng.choice(np.arange(1, len(first)), count, replace=False)))
    function = chosen(rng, REDUCTIONS)
    dtype = "bool" if function in ("any", "all") else "float32"
    return Draw(Reduce(function, axes, bool(rng.integers(2))), first, dtype)


def arg(rng: Rng, shape: Shape) -> Draw:
    first = any_rank(rng, shape)
    function, dtype = chosen(rng, ("argmax", "argmin")), chosen(rng, ("int32", "int64"))
    return Draw(Arg(function, axis(rng, first), bool(rng.integers(2)), dtype), first)


def reshape(rng: Rng, shape: Shape) -> Draw:
    _, height, width, channels = shape
    shapes: list[Shape] = [
        *((1, height * width, channels), (1, height * width * channels)),
        *((1, height, width * channels), (1, channels, height, width), (1, 1, *shape[1:])),
    ]
    return Draw(Reshape(shapes[int(rng.integers(len(shapes)))]))


def transpose(rng: Rng, shape: Shape) -> Draw:
    first = any_rank(rng, shape)
    order = rng.permutation(np.arange(1, len(first)))
    return Draw(Transpose((0, *(int(a) for a in order))), first)


def concat(rng: Rng, shape: Shape) -> Draw:
    first = any_rank(rng, shape)
    along = axis(rng, first)
    more = []
    for _ in range(int(rng.integers(0, 4))):
        other = (*first[:along], int(rng.integers(1, 5)), *first[along + 1 :])
        more.append((other, "float32", bool(rng.random() < 0.3)))
    return Draw(Concat(along), first, more=tuple(more))


def part(rng: Rng, shape: Shape) -> Draw:
    first = any_rank(rng, shape)
    begin = (0, *(int(rng.integers(0, n)) for n in first[1:]))
    end = (1, *(int(rng.integers(b + 1, n + 1)) for b, n in zip(begin[1:], first[1:], strict=True)))
    step = (1, *(int(rng.integers(1, 3)) for _ in first[1:]))
    return Draw(Slice(begin, end, step), first)


def pad(rng: Rng, shape: Shape) -> Draw:
    mode = chosen(rng, PAD_MODES)
    first = any_rank(rng, shape)
    most = [1 if size == 1 else min(size, 3) for size in first]
    margins = (
        (0, 0),
        *((int(rng.integers(0, m)), int(rng.integers(0, m))) for m in most[1:]),
    )
    value = float(rng.choice([0.0, 0.0, -1.5])) if mode == "constant" else 0.0
    return Draw(Pad(margins, value, mode), first)


def gather(rng: Rng, shape: Shape) -> Draw:
    if rng.random() < 0.5:  # an embedding
        return Draw(Gather(0), (11, shape[3]), more=(((1, 5), "int32", False),))
    first = any_rank(rng, shape)
    indices: Shape = [(), (3,), (2, 3)][int(rng.integers(3))]
    return Draw(Gather(axis(rng, first)), first, more=((indices, "int64", True),))


def resize(rng: Rng, shape: Shape) -> Draw:
    size = tuple(int(n * rng.choice([0.5, 1, 2, 3]) + rng.integers(2)) for n in shape[1:3])
    mode = chosen(rng, MODES)
    coordinates = chosen(rng, COORDINATES)
    return Draw(Resize((size[0], size[1]), mode, coordinates, chosen(rng, ROUNDING)))


def blocks(rng: Rng, shape: Shape) -> Draw:
    block = int(rng.integers(2, 4))
    first = (*shape[:3], shape[3] * block * block)
    return Draw(DepthToSpace(block, chosen(rng, ("DCR", "CRD"))), first)


def positions(rng: Rng, shape: Shape) -> Draw:
    block = int(rng.integers(2, 4))
    _, height, width, channels = shape
    return Draw(SpaceToDepth(block), (1, height // 3 * block, width // 3 * block, channels))


DRAWS: Mapping[str, Callable[[Rng, Shape], Draw]] = {
    "conv": conv,
    "depthwise": lambda rng, _: Draw(Depthwise(**window(rng), multiplier=int(rng.integers(1, 4)))),
    "deconv": deconv,
    "dense": lambda rng, s: Draw(Dense(int(rng.integers(1, 9))), vector_or_more(rng, s)),
    **dict.fromkeys(("add", "sub", "mul", "div", "maximum", "minimum", "pow"), two),
    "mod": two,
    "floordiv": two,
    "compare": compare,
    "logical": lambda rng, s: two(rng, s, "bool", Logical(chosen(rng, LOGICAL))),
    "where": where,
    "unary": unary,
    "cast": cast,
    "clip": clip,
    "matmul": matmul,
    "mean": lambda rng, _: Draw(Mean(keepdims=bool(rng.integers(2)))),
    "maxpool": lambda rng, _: Draw(Window(**window(rng))),
    "avgpool": avgpool,
    "reduce": reduce,
    "argmax": arg,
    "act": lambda rng, s: Draw(None, any_rank(rng, s)),
    "leakyrelu": lambda rng, s: Draw(LeakyRelu(float(rng.choice([0.01, 0.2]))), any_rank(rng, s)),
    "elu": lambda rng, s: Draw(Elu(float(rng.choice([1.0, 0.5]))), any_rank(rng, s)),
    "prelu": prelu,
    "softmax": lambda rng, s: Draw(Softmax(axis(rng, s)), s),
    "logsoftmax": lambda rng, s: Draw(Softmax(axis(rng, s)), s),
    "batchnorm": norm,
    "layernorm": layernorm,
    "l2norm": lambda rng, s: Draw(L2Norm(axis(rng, s)), s),
    "reshape": reshape,
    "transpose": transpose,
    "concat": concat,
    "slice": part,
    "pad": pad,
    "gather": gather,
    "tile": lambda rng, _: Draw(Tile((1, *(int(n) for n in rng.integers(1, 3, 3))))),
    "depthtospace": blocks,
    "spacetodepth": positions,
    "resize": resize,
}

ELEMENTWISE = ("add", "mul", "act")
"""Kinds that are surely drawn with every rank."""

_POSITIVE = ("log", "sqrt", "rsqrt", "reciprocal")


def drawn(kind: str, seed: int) -> Graph:
    """A graph of one random op, behind a convolution where formats fold half of it into one."""
    rng = np.random.default_rng([seed, *kind.encode()])
    height, width, channels = (int(n) for n in rng.integers([13, 13, 1], [18, 22, 7]))
    draw = DRAWS[kind](rng, (1, height, width, channels))
    shape = draw.shape or (1, height, width, channels)
    builder, row = GraphBuilder(), KINDS[kind]
    act = row.activations[seed % len(row.activations)]
    if act == "hardsigmoid" and len(shape) != 2:
        shape = (1, height, width, channels)
    if kind == "gather" and draw.attributes.axis == 0:
        reads = [builder.constant("x", shape)]
    else:
        reads = [builder.input("x", shape, draw.dtype)]
    if act == "hardsigmoid":
        attributes = Dense(5) if len(shape) == 2 else Conv(out=5)
        reads = [builder.op("dense" if len(shape) == 2 else "conv", "before", reads, attributes)]
    for number, (other, dtype, fixed) in enumerate(draw.more, 1):
        add = builder.constant if fixed else builder.input
        reads.append(add(f"y{number}", other, dtype))
    if kind in ("add", "mul") and rng.random() < 0.5:
        reads.reverse()
    builder.op(kind, "op", reads, draw.attributes, act=act)
    return builder.graph()


def values(graph: Graph, name: str, shape: Shape, rng: Rng) -> Array:
    """Values of a tensor that the op of a graph can compute with."""
    op = graph.ops[-1]
    dtype = graph.dtype(name)
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if op.kind == "gather" and name == op.inputs[1]:
        return rng.integers(0, op.in_shapes[0][op.attributes.axis], shape).astype(dtype)
    if dtype != "float32":
        return rng.integers(-5, 6, shape).astype(dtype)
    drawn_ = rng.standard_normal(shape, np.float32)
    place = op.inputs.index(name) if name in op.inputs else 0
    function = getattr(op.attributes, "function", "")
    divides = op.kind in ("div", "mod", "floordiv") and place == 1
    variance = op.kind == "batchnorm" and place == 4
    if function in _POSITIVE or op.kind == "pow" or divides or variance:
        return np.abs(drawn_) + np.float32(0.5)
    return drawn_


def modelled(graph: Graph, seed: int = 0) -> tuple[Model, Arrays]:
    """A graph with random weights, and samples for its inputs: one where it keeps no batch."""
    rng = np.random.default_rng(seed)
    samples = SAMPLES if graph.keeps_batch else 1
    inputs = {
        tensor.name: values(graph, tensor.name, (samples, *tensor.shape[1:]), rng)
        for tensor in graph.inputs
    }
    weights = dict(random_weights(graph, rng))
    if graph.ops[-1].kind not in ELEMENTWISE:
        for constant in graph.constants:
            weights[constant.name] = (values(graph, constant.name, constant.shape, rng),)
    return Model(graph, weights), inputs


def referred(model: Model, inputs: Arrays) -> Arrays:
    """What the references of a graph's ops give of its outputs."""
    known = {**inputs, **{t.name: model.weights[t.name][0] for t in model.graph.constants}}
    for op in model.graph.ops:
        own = model.weights[op.name] if op.has_weights else ()
        known[op.name] = ops.compute(op, [*(known[name] for name in op.inputs), *own])
    return {name: known[name] for name in model.graph.outputs}
