"""Reads convolutions and products with weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.ops import Conv, Deconv, Dense, Depthwise, Matmul
from pipeline.formats.onnx.node import Array, Node, UnknownError, Value, known
from pipeline.formats.onnx.read_codes import keep_layer_codes
from pipeline.formats.onnx.read_window import (
    as_before,
    as_map,
    margins,
    pair,
    sides,
    steps,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.window import Padding, Pair
    from pipeline.formats.onnx.reading import Reading

_MATRIX, _SEQUENCE = 2, 3


def read_conv(reading: Reading, node: Node) -> Value:
    """Read a convolution of a sequence or a map, with any groups."""
    x, weight = node.input(0), node.input(1)
    return convolve(reading, node, x, weight, node.optional(2))


def convolve(reading: Reading, node: Node, x: Value, weight: Value, bias: Value | None) -> Value:
    """Add a convolution of `x`; see `read_conv`."""
    out, share, *kernel = _kernels(weight, x).shape
    groups = node.attribute("group", 1)
    size, stride = _pair(kernel), steps(node, "strides", x.rank)
    dilation = steps(node, "dilations", x.rank)
    window: dict[str, Any] = {
        "kernel": size,
        "stride": stride,
        "dilation": dilation,
        "padding": margins(node, x, size, stride, dilation),
    }
    channels = x.shape[1]
    if groups > 1 and groups == channels and share == 1:
        attributes: Any = Depthwise(**window, multiplier=out // channels)
        kind, axes = "depthwise", (1, 2, 3, 0)
    else:
        attributes = Conv(**window, out=out, groups=groups)
        kind, axes = "conv", (0, 2, 3, 1)
    held = _Held(weight, 0, lambda array: _with_rows(array, x.rank).transpose(axes))
    return _layer_of_map(reading, node, x, (kind, attributes), held, bias)


def read_conv_transpose(reading: Reading, node: Node) -> Value:
    """Read a transposed convolution of a sequence or a map."""
    x, weight = node.input(0), node.input(1)
    groups = node.attribute("group", 1)
    rows, share, *kernel = _kernels(weight, x).shape
    size, stride = _pair(kernel), steps(node, "strides", x.rank)
    dilation = steps(node, "dilations", x.rank)
    extra = pair(node.attribute("output_padding") or (0,) * (x.rank - 2), 0)
    padding, extra = _cut(node, x, size, stride, dilation, extra)
    attributes = Deconv(
        kernel=size,
        stride=stride,
        dilation=dilation,
        padding=padding,
        out=share * groups,
        groups=groups,
        extra=extra,
    )

    def arrange(array: Array) -> Array:
        """Make (in, out / groups, …), a group's inputs together, (out, …, in / groups)."""
        parts = _with_rows(array, x.rank).reshape(groups, rows // groups, share, *size)
        return parts.transpose(0, 2, 3, 4, 1).reshape(share * groups, *size, rows // groups)

    held = _Held(weight, 1 if groups == 1 else -1, arrange)
    return _layer_of_map(reading, node, x, ("deconv", attributes), held, node.optional(2))


def _cut(
    node: Node, x: Value, kernel: Pair, stride: Pair, dilation: Pair, extra: Pair
) -> tuple[Padding, Pair]:
    """Return what is cut off a transposed convolution, and what it has more at its end."""
    auto = node.attribute("auto_pad", "NOTSET")
    wanted = node.attribute("output_shape")
    if auto == "VALID" or (wanted is None and auto in ("NOTSET", "")):
        pads = () if auto == "VALID" else node.attribute("pads") or ()
        return sides(pads or (0,) * (2 * (x.rank - 2))), extra
    lengths = pair(x.shape[2:])
    if wanted is None:
        sizes = tuple(length * step for length, step in zip(lengths, stride, strict=True))
    else:
        sizes = pair(wanted[-(x.rank - 2) :])
    found: list[int] = []
    more: list[int] = []
    for length, size, step, gap, reach, added in zip(
        lengths, sizes, stride, dilation, kernel, extra, strict=True
    ):
        total = step * (length - 1) + added + (reach - 1) * gap + 1 - size
        more.append(added if wanted is None else added - min(total, 0))
        half = max(total, 0) // 2
        rest = max(total, 0) - half
        found.extend((half, rest) if auto == "SAME_UPPER" else (rest, half))
    top, bottom, left, right = found
    return (top, bottom, left, right), (more[0], more[1])


@dataclass(frozen=True, slots=True)
class _Held:
    """A weight of the file, its axis of output channels, and what brings it into our layout."""

    weight: Value
    axis: int
    arrange: Callable[[Array], Array]


def _kernels(weight: Value, x: Value) -> Array:
    """Return the weight of a convolution with two axes of positions."""
    kernels = known(weight, "weight")
    if kernels.ndim != x.rank:
        raise UnknownError(f"has a weight {kernels.shape} for {x.shape}")
    return _with_rows(kernels, x.rank)


def _with_rows(kernels: Array, rank: int) -> Array:
    """Return the weight of a convolution of sequences as one of maps."""
    return np.expand_dims(kernels, 2) if rank == _SEQUENCE else kernels


def _pair(kernel: list[int]) -> Pair:
    if len(kernel) != 2:
        raise UnknownError(f"has a window of {len(kernel)} axes; sequences and maps are known")
    return kernel[0], kernel[1]


def _layer_of_map(
    reading: Reading,
    node: Node,
    x: Value,
    what: tuple[str, Any],
    held: _Held,
    bias: Value | None,
) -> Value:
    """Add a layer of maps, and its bias by itself where that is not known."""
    kind, attributes = what
    out = attributes.multiplier * x.shape[1] if kind == "depthwise" else attributes.out
    shift, own = np.zeros(out), None
    if bias is not None and bias.array is not None and bias.array.size == out:
        shift, own = bias.array.reshape(-1), bias
    map_ = as_map(reading, x, name=node.name)
    weight = held.arrange(known(held.weight, "weight"))
    made = reading.layer(kind, map_, attributes, weight, shift, name=node.name)
    keep_layer_codes(reading, made.name, held.weight, own, axis=held.axis, arrange=held.arrange)
    result = as_before(reading, made, x.rank, name=node.name)
    if bias is None or own is not None:
        return result
    shape = (1, bias.shape[0], *(1,) * (x.rank - 2))
    added = reading.reshape(bias, shape, name=f"{node.name}.bias")
    return reading.op("add", [result, added], name=f"{node.name}.biased")


def read_gemm(reading: Reading, node: Node) -> Value:
    """Read alpha * A' B' + beta * C."""
    a, b, c = node.input(0), node.input(1), node.optional(2)
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    turned_a, turned_b = node.attribute("transA", 0), node.attribute("transB", 0)
    if b.array is None or a.array is not None:
        attributes = Matmul(bool(turned_a), bool(turned_b))
        made = reading.op("matmul", [a, b], attributes, name=f"{node.name}.product")
        made = _scaled(reading, made, alpha, name=f"{node.name}.scaled")
    else:
        if turned_a:
            a = reading.transpose(a, (1, 0), name=f"{node.name}.turned")
        weight = b.array if turned_b else b.array.T
        units = weight.shape[0]
        own = c is not None and c.array is not None and _is_bias(c, units)
        shift = np.zeros(units)
        if c is not None and c.array is not None and own:
            shift = np.broadcast_to(c.array.reshape(-1) * beta, (units,))
        name = node.name if own or c is None else f"{node.name}.product"
        made = reading.layer("dense", a, Dense(units), weight * alpha, shift, name=name)
        if alpha == 1:
            plain = c if own and beta == 1 else None
            axis, arrange = (0, np.asarray) if turned_b else (1, np.transpose)
            keep_layer_codes(reading, made.name, b, plain, axis=axis, arrange=arrange)
        if own:
            return made
    if c is None:
        return made
    c = _scaled(reading, c, beta, name=f"{node.name}.c")
    return reading.op("add", reading.aligned([made, c], name=node.name), name=node.name)


def _scaled(reading: Reading, x: Value, by: float, *, name: str) -> Value:
    return x if by == 1 else reading.op("mul", [x, reading.number(x, by)], name=name)


def _is_bias(c: Value, units: int) -> bool:
    """Tell whether what is added to a matrix is the same in every row."""
    return c.shape in ((), (1,), (units,), (1, 1), (1, units))


def read_matmul(reading: Reading, node: Node) -> Value:
    """Read a product of matrices; one with a known matrix on the right is a dense layer."""
    return multiply(reading, node, node.input(0), node.input(1))


def multiply(reading: Reading, node: Node, a: Value, b: Value) -> Value:
    """Add a product of matrices; see `read_matmul`."""
    first, second, name = a, b, node.name
    if a.rank == 1:
        a = reading.reshape(a, (1, *a.shape), name=f"{name}.row")
    if b.rank == 1:
        b = reading.reshape(b, (*b.shape, 1), name=f"{name}.column")
    if b.array is not None and a.array is None and b.shape[:-2] == (1,) * (b.rank - _MATRIX):
        a = reading.ranked(a, max(a.rank, b.rank), name=name)
        weight = b.array.reshape(b.shape[-2:]).T
        made = reading.layer(
            "dense", a, Dense(b.shape[-1]), weight, np.zeros(b.shape[-1]), name=name
        )
        if b.rank == _MATRIX:
            keep_layer_codes(reading, made.name, b, None, axis=1, arrange=np.transpose)
    else:
        made = reading.op("matmul", reading.aligned([a, b], name=name), Matmul(), name=name)
    shape = list(made.shape)
    if second.rank == 1:
        del shape[-1]
    if first.rank == 1:
        del shape[-1 if second.rank == 1 else -2]
    return reading.reshape(made, shape, name=f"{name}.vector")


LAYERS = {
    "Conv": read_conv,
    "ConvTranspose": read_conv_transpose,
    "Gemm": read_gemm,
    "MatMul": read_matmul,
}
