"""TFLite files of one random op each: types, shapes, scales, options and which inputs are fixed.

`KINDS` maps an op to a function that draws its file. Draws are not always files that a runtime
takes: whoever uses them leaves out those that it refuses.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.tflite_maker import TFLiteFile

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

_MIXED = ("float32", "float32", "int8", "int8", "uint8", "float16", "int32")
_MAPS = ("float32", "float32", "int8", "uint8", "float16")
_LAYERS = ("float32", "float32", "int8", "int8", "uint8")
_FUSED = (0, 0, 0, 1, 2, 3, 4)

Shape = tuple[int, ...]
Quantization = dict[str, Any]


class Draw:
    """A file in the making, with the choices that its op is made of."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.file, self.fed = rng, TFLiteFile(), []  # type: ignore[var-annotated]

    def tensor(self, shape: Shape, dtype: str, **more: Any) -> int:
        return self.file.tensor(f"t{len(self.file.graph.tensors)}", shape, dtype, **more)

    def op(
        self,
        kind: str,
        inputs: list[int],
        outputs: list[int],
        table: str = "",
        *,
        version: int = 1,
        **fields: Any,
    ) -> None:
        self.file.op(kind, inputs, outputs, (table, fields) if table else None, version=version)

    def scales(self, dtype: str) -> Quantization:
        if dtype not in ("int8", "uint8"):
            return {}
        wide = self.rng.random() < 0.2
        scale = 10 ** self.rng.uniform(-6, 3) if wide else 10 ** self.rng.uniform(-3, 0)
        least, most = (-128, 127) if dtype == "int8" else (0, 255)
        zero = self.rng.randint(least, most) if self.rng.random() < 0.6 else 0
        return {"scale": scale, "zero_point": zero}

    def weight_scales(self, dtype: str, channels: int, axis: int) -> Quantization:
        if dtype == "int8" and self.rng.random() < 0.6:
            along = axis if self.rng.random() < 0.9 else 1
            return {"scale": (0.01,) * channels, "axis": along}
        zero = self.rng.choice((0, 0, 0, 3))
        return {} if dtype == "float32" else {"scale": 0.02, "zero_point": zero}

    def input(self, shape: Shape, dtype: str, scales: Quantization | None = None) -> int:
        given = self.scales(dtype) if scales is None else scales
        self.fed.append(self.tensor(shape, dtype, **given))
        return self.fed[-1]

    def constant(self, shape: Shape, dtype: str, scales: Quantization | None = None) -> int:
        values = np.abs(np.random.default_rng(0).normal(0, 3, shape))
        given = self.scales(dtype) if scales is None else scales
        return self.tensor(shape, dtype, data=np.asarray(values).astype(dtype), **given)

    def either(self, shape: Shape, dtype: str, scales: Quantization | None = None) -> int:
        make = self.constant if self.rng.random() < 0.8 else self.input
        return make(shape, dtype, scales)

    def table(self, values: Any, dtype: str = "int32") -> int:
        """Add an operand, which is a constant most times."""
        array = np.array(values, dtype)
        if self.rng.random() < 0.1:
            return self.input(array.shape, dtype)
        return self.tensor(array.shape, dtype, data=array)

    def output(self, shape: Shape, dtype: str, scales: Quantization | None = None) -> int:
        given = self.scales(dtype) if scales is None else scales
        return self.tensor(shape, dtype, **given)

    def shape(self, least: int = 1, most: int = 6) -> Shape:
        dims = self.rng.randint(least, most)
        return (1, *(self.rng.randint(1, 4) for _ in range(dims - 1))) if dims else ()

    def bias(self, channels: int, dtype: str, source: Quantization, weight: Quantization) -> int:
        if self.rng.random() < 0.08:
            return -1
        if dtype == "float32":
            return self.either((channels,), dtype)
        given = {"scale": source.get("scale", 0.1) * np.atleast_1d(weight["scale"])}
        return self.constant((channels,), "int32", given)

    def content(self, *outputs: int) -> bytes:
        return self.file.content(self.fed, list(outputs))


def unary(kind: str, draw: Draw) -> bytes:
    rng, dtype, shape = draw.rng, draw.rng.choice(_MIXED), draw.shape(0, 7)
    source = draw.input(shape, dtype)
    output = draw.output(shape, dtype)
    options: dict[str, tuple[str, dict[str, Any]]] = {
        "LEAKY_RELU": ("LeakyReluOptions", {"alpha": rng.choice((0.1, -0.2, 0.0, 1e-3, 2.0))}),
        "GELU": ("GeluOptions", {"approximate": rng.random() < 0.5}),
        "SOFTMAX": ("SoftmaxOptions", {"beta": rng.choice((1.0, 1.0, 2.0))}),
    }
    table, fields = options.get(kind, ("", {}))
    draw.op(kind, [source], [output], table, **fields)
    return draw.content(output)


def requantize(kind: str, draw: Draw) -> bytes:
    codes, floats = ("int8", "uint8"), ("float32", "float16")
    types = ((*floats, *codes), codes) if kind == "QUANTIZE" else ((*codes, "float16"), floats)
    shape = draw.shape()
    source = draw.either(shape, draw.rng.choice(types[0]))
    output = draw.output(shape, draw.rng.choice(types[1]))
    draw.op(kind, [source], [output])
    return draw.content(output)


def binary(kind: str, draw: Draw) -> bytes:
    rng, dtype, shape = draw.rng, draw.rng.choice(_MIXED), draw.shape(0, 6)
    other = shape if rng.random() < 0.6 else shape[rng.randint(0, len(shape)) :]
    inputs = [draw.input(shape, dtype), draw.either(other, dtype)]
    output = draw.output(shape, dtype)
    table = f"{kind.capitalize()}Options" if kind in ("ADD", "SUB", "MUL", "DIV") else ""
    fields = {"fusedActivationFunction": rng.choice(_FUSED)} if table else {}
    draw.op(kind, inputs, [output], table, **fields)
    return draw.content(output)


def conv(kind: str, draw: Draw) -> bytes:
    rng, dtype = draw.rng, draw.rng.choice(_LAYERS)
    weights = dtype if rng.random() < 0.8 else "int8"
    side, depth, window = rng.randint(4, 8), rng.choice((2, 4)), rng.choice((1, 2, 3))
    step, dilation, valid = rng.choice((1, 2)), rng.choice((1, 1, 2)), rng.choice((0, 1))
    reach = (window - 1) * dilation + 1
    across = -(-(side - reach + 1) // step) if valid else -(-side // step)
    depthwise = kind == "DEPTHWISE_CONV_2D"
    multiplier, groups = rng.choice((1, 2)), rng.choice((1, 1, 2))
    channels = depth * multiplier if depthwise else rng.choice((2, 4, 8))
    whole = (channels, window, window, depth // groups)
    shape = (1, window, window, channels) if depthwise else whole
    given = draw.scales(dtype)
    source = draw.input((1, side, side, depth), dtype, given)
    scales = draw.weight_scales(weights, channels, 3 if depthwise else 0)
    weight = draw.either(shape, weights, scales)
    bias = draw.bias(channels, weights if dtype != "float32" else dtype, given, scales)
    output = draw.output((1, max(across, 1), max(across, 1), channels), dtype)
    fields = {
        "padding": valid,
        "strideW": step,
        "strideH": step,
        "dilationWFactor": dilation,
        "dilationHFactor": dilation,
        "fusedActivationFunction": rng.choice(_FUSED),
        **({"depthMultiplier": multiplier} if depthwise else {}),
    }
    table = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
    version = 3 if dtype == weights else 6 if depthwise else 5
    draw.op(kind, [source, weight, bias], [output], table, version=version, **fields)
    return draw.content(output)


def deconv(kind: str, draw: Draw) -> bytes:
    rng, dtype = draw.rng, draw.rng.choice(_LAYERS)
    side, depth, channels = rng.randint(2, 5), rng.choice((2, 3)), rng.choice((2, 4))
    window, step, valid = rng.choice((1, 2, 3, 4)), rng.choice((1, 2, 3)), rng.choice((0, 1))
    across = (side - 1) * step + window if valid else side * step - rng.choice((0, 0, step - 1))
    size, given = (1, across, across, channels), draw.scales(dtype)
    source = draw.input((1, side, side, depth), dtype, given)
    scales = draw.weight_scales(dtype, channels, 0)
    weight = draw.either((channels, window, window, depth), dtype, scales)
    inputs = [draw.table(size), weight, source]
    if rng.random() < 0.6:
        inputs.append(draw.bias(channels, dtype, given, scales))
    output = draw.output(size, dtype)
    fields = {"padding": valid, "strideW": step, "strideH": step}
    version = 4 if len(inputs) > 3 else 2
    draw.op(kind, inputs, [output], "TransposeConvOptions", version=version, **fields)
    return draw.content(output)


def dense(kind: str, draw: Draw) -> bytes:
    rng, dtype = draw.rng, draw.rng.choice(_LAYERS)
    weights = dtype if rng.random() < 0.7 else "int8"
    depth, channels, lead = rng.choice((3, 4, 8)), rng.choice((1, 2, 5)), draw.shape(1, 3)
    given, scales = draw.scales(dtype), draw.weight_scales(weights, channels, 0)
    inputs = [draw.input((*lead, depth), dtype, given)]
    inputs.append(draw.either((channels, depth), weights, scales))
    if rng.random() < 0.8:
        inputs.append(draw.bias(channels, weights if dtype != "float32" else dtype, given, scales))
    keep = rng.random() < 0.5
    rows = lead if keep else (int(np.prod(lead)),)
    output = draw.output((*rows, channels), dtype)
    fields = {"keepNumDims": keep, "fusedActivationFunction": rng.choice(_FUSED)}
    version = 4 if dtype == weights else 9
    draw.op(kind, inputs, [output], "FullyConnectedOptions", version=version, **fields)
    return draw.content(output)


def matmul(kind: str, draw: Draw) -> bytes:
    rng, dtype = draw.rng, draw.rng.choice(("float32", "float32", "int8", "int8"))
    other = dtype if rng.random() < 0.75 else "int8"
    m, k, n = rng.choice((1, 3)), rng.choice((2, 4)), rng.choice((2, 5))
    lead = draw.shape(1, 2)
    turned = rng.random() < 0.3, rng.random() < 0.5
    left = draw.input((*lead, k, m) if turned[0] else (*lead, m, k), dtype)
    zero = rng.choice((0, 0, 4))
    scales = {"scale": 0.02, "zero_point": zero} if other == "int8" else {}
    right = draw.either((*lead, n, k) if turned[1] else (*lead, k, n), other, scales)
    output = draw.output((*lead, m, n), dtype)
    fields = {"adjX": turned[0], "adjY": turned[1]}
    draw.op(kind, [left, right], [output], "BatchMatMulOptions", version=4, **fields)
    return draw.content(output)


def pool(kind: str, draw: Draw) -> bytes:
    rng, dtype, side = draw.rng, draw.rng.choice(_MAPS), draw.rng.randint(4, 7)
    window, step, valid = rng.choice((1, 2, 3)), rng.choice((1, 2, 3)), rng.choice((0, 1))
    across = -(-(side - window + 1) // step) if valid else -(-side // step)
    scales = draw.scales(dtype)
    source = draw.input((1, side, side, 2), dtype, scales)
    output = draw.output((1, across, across, 2), dtype, scales)
    fields = {"strideW": step, "strideH": step, "filterWidth": window, "filterHeight": window}
    fields |= {"padding": valid, "fusedActivationFunction": rng.choice(_FUSED)}
    draw.op(kind, [source], [output], "Pool2DOptions", version=2, **fields)
    return draw.content(output)


def reduce(kind: str, draw: Draw) -> bytes:
    rng, dtype, shape = draw.rng, draw.rng.choice((*_MAPS, "int32")), draw.shape()
    axes = sorted(rng.sample(range(len(shape)), rng.randint(1, len(shape))))
    keep, scales = rng.random() < 0.5, draw.scales(dtype)
    lengths = [1 if axis in axes else n for axis, n in enumerate(shape) if keep or axis not in axes]
    source = draw.input(shape, dtype, scales)
    output = draw.output(tuple(lengths), dtype, scales)
    fields = {"keepDims": keep}
    inputs = [source, draw.table(axes)]
    draw.op(kind, inputs, [output], "ReducerOptions", version=2, **fields)
    return draw.content(output)


def concat(kind: str, draw: Draw) -> bytes:
    rng, dtype, shape = draw.rng, draw.rng.choice((*_MAPS, "int32")), draw.shape(1, 4)
    axis, scales, count = rng.randrange(-1, len(shape)), draw.scales(dtype), rng.randint(1, 7)
    inputs = [draw.input(shape, dtype, scales) for _ in range(count)]
    lengths = list(shape)
    lengths[axis] *= count
    output = draw.output(tuple(lengths), dtype, scales if rng.random() < 0.9 else None)
    draw.op(kind, inputs, [output], "ConcatenationOptions", version=2, axis=axis)
    return draw.content(output)


def split(kind: str, draw: Draw) -> bytes:
    rng, dtype, parts = draw.rng, draw.rng.choice((*_MAPS, "int32")), draw.rng.randint(1, 6)
    scales = draw.scales(dtype)
    inputs = [draw.table(rng.choice((1, -2))), draw.input((1, parts * 2, 3), dtype, scales)]
    outputs = [draw.output((1, 2, 3), dtype, scales) for _ in range(parts)]
    draw.op(kind, inputs, outputs, "SplitOptions", version=2, numSplits=parts)
    return draw.content(*outputs)


def pad(kind: str, draw: Draw) -> bytes:
    rng, dtype, shape = draw.rng, draw.rng.choice((*_MAPS, "int32")), draw.shape(1, 5)
    margins = [(rng.randint(0, 2), rng.randint(0, 2)) for _ in shape]
    scales = draw.scales(dtype)
    lengths = tuple(n + sum(margin) for n, margin in zip(shape, margins, strict=True))
    inputs = [draw.input(shape, dtype, scales), draw.table(margins, rng.choice(("int32", "int64")))]
    output = draw.output(lengths, dtype, scales)
    draw.op(kind, inputs, [output], "PadOptions", version=2)
    return draw.content(output)


def reshape(kind: str, draw: Draw) -> bytes:
    rng, dtype, shape = draw.rng, draw.rng.choice(_MIXED), draw.shape(0, 6)
    count = int(np.prod(shape))
    ones = (1,) * rng.randint(1, 6)
    target = rng.choice([(count,), (1, count), tuple(reversed(shape)), (*ones, count)])
    scales, lengths = draw.scales(dtype), list(target)
    if lengths and rng.random() < 0.3:
        lengths[rng.randrange(len(lengths))] = -1
    inputs = [draw.input(shape, dtype, scales)]
    if rng.random() < 0.6:
        inputs.append(draw.table(lengths))
    output = draw.output(target, dtype, scales if rng.random() < 0.9 else None)
    new = np.array(lengths, np.int32)
    draw.op(kind, inputs, [output], "ReshapeOptions", newShape=new)
    return draw.content(output)


def resize(kind: str, draw: Draw) -> bytes:
    rng, dtype = draw.rng, draw.rng.choice(_MAPS)
    size, scales = (rng.randint(1, 7), rng.randint(1, 7)), draw.scales(dtype)
    inputs = [draw.input((1, 3, 4, 2), dtype, scales), draw.table(size)]
    output = draw.output((1, *size, 2), dtype, scales)
    way = rng.choice(({}, {"alignCorners": True}, {"halfPixelCenters": True}))
    named = "Bilinear" if kind == "RESIZE_BILINEAR" else "NearestNeighbor"
    draw.op(kind, inputs, [output], f"Resize{named}Options", version=3, **way)
    return draw.content(output)


def cut(kind: str, draw: Draw) -> bytes:
    """SLICE and STRIDED_SLICE."""
    rng, dtype = draw.rng, draw.rng.choice(_MIXED)
    shape = tuple(rng.randint(1, 5) for _ in range(rng.randint(1, 4)))
    begins = [rng.randint(0, n - 1) for n in shape]
    ends = [rng.randint(begin + 1, n) for begin, n in zip(begins, shape, strict=True)]
    sizes = [end - begin for begin, end in zip(begins, ends, strict=True)]
    scales = draw.scales(dtype)
    source = draw.input(shape, dtype, scales)
    if kind == "SLICE":
        pairs = zip(sizes, ends, shape, strict=True)
        open_ = [-1 if end == n and rng.random() < 0.2 else size for size, end, n in pairs]
        inputs = [source, draw.table(begins), draw.table(open_)]
        output = draw.output(tuple(sizes), dtype, scales)
        draw.op(kind, inputs, [output], "SliceOptions", version=2)
        return draw.content(output)
    steps = [rng.choice((1, 1, 1, 2)) for _ in shape]
    whole = [end == n and rng.random() < 0.5 for end, n in zip(ends, shape, strict=True)]
    fields = {"endMask": sum(1 << axis for axis, masked in enumerate(whole) if masked)}
    lost = [size == 1 and rng.random() < 0.2 for size in sizes]
    fields["shrinkAxisMask"] = sum(1 << axis for axis, gone in enumerate(lost) if gone)
    lengths = [-(-n // s) for n, s, gone in zip(sizes, steps, lost, strict=True) if not gone]
    inputs = [source, draw.table(begins), draw.table(ends), draw.table(steps)]
    output = draw.output(tuple(lengths), dtype, scales)
    draw.op(kind, inputs, [output], "StridedSliceOptions", version=4, **fields)
    return draw.content(output)


def transpose(kind: str, draw: Draw) -> bytes:
    dtype, shape = draw.rng.choice(_MIXED), draw.shape()
    order = draw.rng.sample(range(len(shape)), len(shape))
    scales = draw.scales(dtype)
    inputs = [draw.input(shape, dtype, scales), draw.table(order)]
    output = draw.output(tuple(shape[axis] for axis in order), dtype, scales)
    draw.op(kind, inputs, [output], version=2)
    return draw.content(output)


def blocks(kind: str, draw: Draw) -> bytes:
    """DEPTH_TO_SPACE and SPACE_TO_DEPTH."""
    rng, dtype, block, side = draw.rng, draw.rng.choice(_MAPS), draw.rng.choice((1, 2, 3)), 2
    scales = draw.scales(dtype)
    shapes = (1, side, side, block * block), (1, side * block, side * block, 1)
    first, second = shapes if kind == "DEPTH_TO_SPACE" else shapes[::-1]
    source, output = draw.input(first, dtype, scales), draw.output(second, dtype, scales)
    named = "DepthToSpace" if kind == "DEPTH_TO_SPACE" else "SpaceToDepth"
    version = rng.choice((1, 2))
    draw.op(kind, [source], [output], f"{named}Options", version=version, blockSize=block)
    return draw.content(output)


_UNARY = (
    *("ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG"),
    *("LOGISTIC", "LOG_SOFTMAX", "NEG", "RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT"),
    *("SIGN", "SIN", "SOFTMAX", "SQRT", "SQUARE", "TANH"),
)
_BINARY = (
    *("ADD", "DIV", "FLOOR_DIV", "MAXIMUM", "MINIMUM", "MUL", "POW", "PRELU", "SUB"),
    "SQUARED_DIFFERENCE",
)
_DRAWS: dict[str, Callable[[str, Draw], bytes]] = {
    **dict.fromkeys(_UNARY, unary),
    **dict.fromkeys(("QUANTIZE", "DEQUANTIZE"), requantize),
    **dict.fromkeys(_BINARY, binary),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), conv),
    "TRANSPOSE_CONV": deconv,
    "FULLY_CONNECTED": dense,
    "BATCH_MATMUL": matmul,
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), pool),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), reduce),
    "CONCATENATION": concat,
    "SPLIT": split,
    "PAD": pad,
    "RESHAPE": reshape,
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), resize),
    **dict.fromkeys(("SLICE", "STRIDED_SLICE"), cut),
    "TRANSPOSE": transpose,
    **dict.fromkeys(("DEPTH_TO_SPACE", "SPACE_TO_DEPTH"), blocks),
}
KINDS = {kind: partial(draw, kind) for kind, draw in _DRAWS.items()}
