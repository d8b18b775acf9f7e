"""Random networks of many ops, whose tensors have every rank, are moved, joined and cut."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from models.graph import Graph, GraphBuilder
from models.ops import (
    AvgPool,
    Clip,
    Concat,
    Conv,
    Deconv,
    Dense,
    DepthToSpace,
    Gather,
    LayerNorm,
    LeakyRelu,
    Matmul,
    Mean,
    Pad,
    Reduce,
    Reshape,
    Resize,
    Slice,
    Softmax,
    Tile,
    Transpose,
    Unary,
)
from models.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.ops import Shape

    Rng = np.random.Generator
    Step = Callable[[GraphBuilder, str, str, Rng], str | None]
    """Add an op (the builder, its name, a tensor to read, the draws); None where none fits."""

MOST_VALUES = 4096


def random_graph(rng: Rng, *, ops: int = 10) -> Graph:
    """Return a network of float32 ops whose outputs are its last op and some other."""
    builder = GraphBuilder()
    sides = [int(n) for n in rng.integers(2, 9, 4)]
    shapes: list[Shape] = [
        *((1, *sides[:3]), (1, *sides[:3]), (1, *sides[:2]), (1, sides[0] * sides[1])),
    ]
    tensors = [builder.input("x", shapes[int(rng.integers(len(shapes)))])]
    steps = list(STEPS.items())
    while len(builder.ops) < ops:
        kind, step = steps[int(rng.integers(len(steps)))]
        # Mostly what was made last, so that networks are deep.
        place = -1 if rng.random() < 0.7 else int(rng.integers(len(tensors)))
        made = step(builder, f"{kind}{len(builder.ops)}", tensors[place], rng)
        if made is not None:
            tensors.append(made)
    some = tensors[int(rng.integers(1, len(tensors)))]
    return builder.graph(*dict.fromkeys((some, tensors[-1])))


def _conv(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str | None:
    shape = builder.shapes[x]
    if len(shape) != 4 or min(shape[1:3]) < 2:
        return None
    same = {"kernel": (2, 1), "padding": (1, 0, 0, 0)} if rng.random() < 0.5 else {}
    act = ("none", "relu", "relu6")[int(rng.integers(3))]
    return builder.op("conv", name, [x], Conv(out=int(rng.integers(1, 9)), **same), act=act)


def _deconv(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str | None:
    shape = builder.shapes[x]
    if len(shape) != 4 or prod(shape) * 4 > MOST_VALUES:
        return None
    window = {"kernel": (2, 2), "stride": (2, 2)}
    return builder.op("deconv", name, [x], Deconv(out=int(rng.integers(1, 5)), **window))


def _pool(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str | None:
    shape = builder.shapes[x]
    if len(shape) != 4 or min(shape[1:3]) < 3:
        return None
    if rng.random() < 0.5:
        return builder.op("maxpool", name, [x], Window(kernel=(2, 3), stride=(1, 2)))
    return builder.op("avgpool", name, [x], AvgPool(kernel=(3, 2), stride=(2, 1)))


def _map(kind: str) -> Step:
    def add(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str | None:
        shape = builder.shapes[x]
        if len(shape) != 4:
            return None
        if kind == "mean":
            return builder.op("mean", name, [x], Mean(keepdims=bool(rng.integers(2))))
        if kind == "depthtospace":
            if shape[3] % 4:
                return None
            return builder.op(kind, name, [x], DepthToSpace(2, "DCR"))
        if prod(shape) * 4 > MOST_VALUES:
            return None
        size = (shape[1] * 2, shape[2] * 2)
        return builder.op("resize", name, [x], Resize(size, "nearest", "asymmetric", "floor"))

    return add


def _dense(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str | None:
    if len(builder.shapes[x]) < 2:
        return None
    return builder.op("dense", name, [x], Dense(int(rng.integers(1, 9))))


def _unary(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str:
    chosen = int(rng.integers(5))
    if chosen == 0:
        return builder.op("unary", name, [x], Unary(("abs", "neg", "sin")[int(rng.integers(3))]))
    if chosen == 1:
        return builder.op("leakyrelu", name, [x], LeakyRelu(0.2))
    if chosen == 2:
        return builder.op("clip", name, [x], Clip(-0.5, 0.75))
    acts = ("relu", "hardswish", "silu", "sigmoid", "tanh", "gelu")
    return builder.op("act", name, [x], act=acts[int(rng.integers(len(acts)))])


def _binary(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str:
    shape = builder.shapes[x]
    kind = ("add", "sub", "mul", "maximum")[int(rng.integers(4))]
    alike = [
        other
        for other, size in builder.shapes.items()
        if size == shape and other not in builder.constants
    ]
    if rng.random() < 0.5:
        other = alike[int(rng.integers(len(alike)))]
    else:
        sides = tuple(n if rng.random() < 0.6 else 1 for n in shape)
        other = builder.constant(f"{name}.constant", sides)
    reads = [x, other] if rng.random() < 0.5 else [other, x]
    return builder.op(kind, name, reads)


def _reshape(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str:
    size, sides = prod(builder.shapes[x]), [1]
    while size > 1 and len(sides) < 5:
        divisors = [n for n in range(2, size + 1) if size % n == 0]
        side = divisors[int(rng.integers(len(divisors)))]
        sides.append(side)
        size //= side
    sides[-1] *= size
    return builder.op("reshape", name, [x], Reshape(tuple(sides)))


def _transpose(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str | None:
    rank = len(builder.shapes[x])
    order = [0, *(int(axis) for axis in rng.permutation(np.arange(1, rank)))]
    return builder.op("transpose", name, [x], Transpose(tuple(order))) if rank > 2 else None


def _concat(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str | None:
    shape = builder.shapes[x]
    if len(shape) < 2 or 2 * prod(shape) > MOST_VALUES:
        return None
    axis = int(rng.integers(1, len(shape)))
    fitting = [
        other
        for other, size in builder.shapes.items()
        if len(size) == len(shape)
        and (*size[:axis], 0, *size[axis + 1 :]) == (*shape[:axis], 0, *shape[axis + 1 :])
        and other not in builder.constants
    ]
    return builder.op("concat", name, [x, fitting[int(rng.integers(len(fitting)))]], Concat(axis))


def _slice(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str:
    shape = builder.shapes[x]
    begin = tuple(int(rng.integers(0, n)) if rng.random() < 0.3 else 0 for n in shape)
    end = tuple(int(rng.integers(b + 1, n + 1)) for b, n in zip(begin, shape, strict=True))
    return builder.op("slice", name, [x], Slice(begin, end, (1,) * len(shape)))


def _pad(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str | None:
    shape = builder.shapes[x]
    if 4 * prod(shape) > MOST_VALUES:
        return None
    margins = ((0, 0), *((int(rng.integers(2)), int(rng.integers(2))) for _ in shape[1:]))
    return builder.op("pad", name, [x], Pad(margins))


def _reduce(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str | None:
    rank = len(builder.shapes[x])
    if rank < 3:
        return None
    axis = int(rng.integers(1, rank))
    function = ("mean", "sum", "max")[int(rng.integers(3))]
    return builder.op("reduce", name, [x], Reduce(function, (axis,), bool(rng.integers(2))))


def _softmax(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str | None:
    rank = len(builder.shapes[x])
    return (
        None if rank < 2 else builder.op("softmax", name, [x], Softmax(int(rng.integers(1, rank))))
    )


def _layernorm(builder: GraphBuilder, name: str, x: str, _: Rng) -> str | None:
    shape = builder.shapes[x]
    if len(shape) < 2 or shape[-1] < 3:
        return None
    reads = [builder.constant(f"{name}.{what}", shape[-1:]) for what in ("scale", "shift")]
    return builder.op("layernorm", name, [x, *reads], LayerNorm(1, 1e-2))


def _matmul(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str | None:
    shape = builder.shapes[x]
    if len(shape) < 3 or prod(shape) * max(shape) > MOST_VALUES:
        return None
    turned = bool(rng.integers(2))
    return builder.op("matmul", name, [x, x], Matmul(turned, not turned))


def _gather(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str | None:
    rank = len(builder.shapes[x])
    if not 2 <= rank <= 4:
        return None
    indices = builder.constant(f"{name}.indices", [(), (3,), (2, 2)][int(rng.integers(3))], "int64")
    return builder.op("gather", name, [x, indices], Gather(int(rng.integers(1, rank))))


def _tile(builder: GraphBuilder, name: str, x: str, rng: Rng) -> str | None:
    shape = builder.shapes[x]
    if len(shape) < 2 or 2 * prod(shape) > MOST_VALUES:
        return None
    repeats = [1] * len(shape)
    repeats[int(rng.integers(1, len(shape)))] = 2
    return builder.op("tile", name, [x], Tile(tuple(repeats)))


STEPS: Mapping[str, Step] = {
    "conv": _conv,
    "deconv": _deconv,
    "pool": _pool,
    "mean": _map("mean"),
    "depthtospace": _map("depthtospace"),
    "resize": _map("resize"),
    "dense": _dense,
    "unary": _unary,
    "binary": _binary,
    "reshape": _reshape,
    "transpose": _transpose,
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "reduce": _reduce,
    "softmax": _softmax,
    "layernorm": _layernorm,
    "matmul": _matmul,
    "gather": _gather,
    "tile": _tile,
}
"""Name of an op -> what adds one."""
