"""Layers of a TFLite file, and products of two tensors that are computed."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.codes import LayerCodes, WeightCodes
from models.ops import Conv, Deconv, Dense, Depthwise, Matmul
from models.window import Padding, Pair, Window, same_margins
from pipeline.formats.tflite import mediapipe
from pipeline.formats.tflite.values import UnknownError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.ops import Shape
    from pipeline.formats.tflite.file import FileOp
    from pipeline.formats.tflite.reading import Reading

Array = npt.NDArray[Any]

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
"""Those that can take up what stands around them."""

SAME = 0
"""The schema's number of the padding SAME; VALID is 1."""


@dataclass(frozen=True, slots=True)
class Around:
    """Zeros around a tensor, and phases that it is cut into, which the layer after takes up.

    Attributes:
        source: the tensor before.
        padding: zeros around it.
        block: (down, across): the layer sees every block-th row and column at a time.
    """

    source: int
    padding: Padding
    block: Pair = (1, 1)


@dataclass(frozen=True, slots=True)
class Apart:
    """A layer on the phases of a map; what puts them together again gives the layer's output."""

    layer: FileOp
    around: Around


def read_conv(reading: Reading, op: FileOp) -> None:
    """Read CONV_2D and DEPTHWISE_CONV_2D; one between phases waits until they are joined."""
    around = reading.skipped.get(reading.input_of(op))
    if isinstance(around, Around) and around.block != (1, 1):
        reading.skipped[op.outputs[0]] = Apart(op, around)
    else:
        add_conv(reading, op, op, around)


def add_conv(
    reading: Reading,
    op: FileOp,
    last: FileOp,
    around: Around | None,
    crops: Padding = (0, 0, 0, 0),
) -> None:
    """Add a convolution.

    Args:
        reading: where.
        op: the layer in the file.
        last: the op that gives its output: itself, or what joins its phases.
        around: what stands before it.
        crops: what is cut off the joined phases.
    """
    source = reading.input_of(op) if around is None else around.source
    name = reading.name(source)
    shape = reading.builder.shapes[name]
    weight = reading.needed(op, 1, "weight")
    if len(shape) != 4 or weight.ndim != 4:
        raise UnknownError(f"convolves {shape} with a weight of {weight.shape}")
    window = Window(
        kernel=(weight.shape[1], weight.shape[2]),
        stride=(op.option("stride_h"), op.option("stride_w")),
        dilation=(op.option("dilation_h"), op.option("dilation_w")),
    )
    padding, dilation = _padding(op, window, shape, around, crops)
    shared: dict[str, Any] = {
        "kernel": window.kernel,
        "stride": window.stride,
        "padding": padding,
        "dilation": dilation,
    }
    channels = shape[3]
    if op.kind == "DEPTHWISE_CONV_2D":
        if weight.shape[3] % channels:
            raise UnknownError(f"convolves {channels} channels with a weight of {weight.shape}")
        attributes: Any = Depthwise(**shared, multiplier=weight.shape[3] // channels)
        _layer(reading, op, last, "depthwise", name, attributes, channel_axis=3)
        return
    if channels % weight.shape[3]:
        raise UnknownError(f"convolves {channels} channels with a weight of {weight.shape}")
    attributes = Conv(**shared, out=weight.shape[0], groups=channels // weight.shape[3])
    _layer(reading, op, last, "conv", name, attributes)


def _padding(
    op: FileOp, window: Window, shape: Shape, around: Around | None, crops: Padding
) -> tuple[Padding, Pair]:
    """Return the zeros on all sides, and the dilation, of a layer with what stands around it."""
    before, block = ((0, 0, 0, 0), (1, 1)) if around is None else (around.padding, around.block)
    stride = window.stride
    if block != (1, 1) and (stride != (1, 1) or window.dilation != (1, 1)):
        raise UnknownError("moves in steps over the phases of a map")
    if min(*stride, *window.dilation, *window.kernel) < 1:
        raise UnknownError(f"has the window {window.key}")
    inner: list[int] = []
    for axis in range(2):
        size = shape[1 + axis] + before[2 * axis] + before[2 * axis + 1]
        margins = (0, 0)
        if op.option("padding") == SAME:
            margins = same_margins(size // block[axis], window.reach[axis], stride[axis])
        inner += [margin * block[axis] for margin in margins]
    padding = tuple(a + b - c for a, b, c in zip(before, inner, crops, strict=True))
    if min(padding) < 0:
        raise UnknownError(f"is cut by {crops} where it has margins of {before}")
    dilation = (window.dilation[0] * block[0], window.dilation[1] * block[1])
    return (padding[0], padding[1], padding[2], padding[3]), dilation


def _deconv(reading: Reading, op: FileOp) -> None:
    wanted = reading.ints(op, 0, "output shape")
    stride: Pair = (op.option("stride_h"), op.option("stride_w"))
    if len(wanted) != 4 or min(stride) < 1:
        raise UnknownError(f"makes {wanted} in steps of {stride}")
    same = op.option("padding") == SAME
    _add_deconv(reading, op, (2, 3), (wanted[1], wanted[2]), stride, same=same)


def _mediapipe_deconv(reading: Reading, op: FileOp) -> None:
    options = mediapipe.deconv_options(op.custom_options)
    shape, weight = reading.shape(reading.input_of(op)), reading.needed(op, 1, "weight")
    if options is None or len(shape) != 4 or weight.ndim != 4:
        raise UnknownError(f"convolves {shape} with a weight of {weight.shape}")
    size = options.output_size((shape[1], shape[2]), (weight.shape[1], weight.shape[2]))
    _add_deconv(reading, op, (0, 2), size, options.stride, same=options.same)


def _add_deconv(
    reading: Reading, op: FileOp, places: Pair, size: Pair, stride: Pair, *, same: bool
) -> None:
    """Add a transposed convolution that makes a map of `size`; `places` as `_layer` takes them."""
    weight = reading.needed(op, 1, "weight")
    name = reading.name(reading.input_of(op, places[0]))
    shape = reading.builder.shapes[name]
    if len(shape) != 4 or weight.ndim != 4:
        raise UnknownError(f"convolves {shape} with a weight of {weight.shape}")
    kernel: Pair = (weight.shape[1], weight.shape[2])
    padding: list[int] = []
    extra: list[int] = []
    for axis in range(2):
        before = same_margins(size[axis], kernel[axis], stride[axis])[0] if same else 0
        after = (shape[1 + axis] - 1) * stride[axis] + kernel[axis] - before - size[axis]
        padding += [before, max(after, 0)]
        extra += [max(-after, 0)]
    attributes = Deconv(
        kernel=kernel,
        stride=stride,
        padding=(padding[0], padding[1], padding[2], padding[3]),
        out=weight.shape[0],
        extra=(extra[0], extra[1]),
    )
    _layer(reading, op, op, "deconv", name, attributes, places=places)


def _dense(reading: Reading, op: FileOp) -> None:
    if op.option("weights_format"):
        raise UnknownError("has weights in an order of its own")
    source, weights = reading.input_of(op), reading.input_of(op, 1)
    shape, weight_shape = reading.shape(source), reading.shape(weights)
    if len(weight_shape) != 2:
        raise UnknownError(f"has a weight of shape {weight_shape}")
    units, width = weight_shape
    kept = bool(op.option("keepdims")) and len(shape) > 1
    target = shape if kept else (prod(shape) // max(width, 1), width)
    name = reading.operand(source, target)
    if reading.value(weights) is not None:
        _layer(reading, op, op, "dense", name, Dense(units))
        return
    matrix = reading.ranked(weights, len(target))
    act, bias = reading.activation(op), op.input(2)
    if bias is None:
        reading.emit(op, "matmul", [name, matrix], Matmul(transpose_b=True), act=act)
        return
    product = reading.step(op, "product", "matmul", [name, matrix], Matmul(transpose_b=True))
    scales = [reading.scale(number) for number in (source, weights)]
    added = reading.ranked(bias, len(target))
    if scales[0] is not None and scales[1] is not None:
        # A code of the bias counts the product of both scales.
        unit = scales[0].scale * scales[1].scale
        value = np.asarray(reading.needed(op, 2, "bias") * unit, np.float32)
        shape = (1,) * (len(target) - 1) + (units,)
        base = f"{reading.names[op.outputs[0]]}.bias"
        added = reading.constant(reading.unique(base), value.reshape(shape))
    reading.emit(op, "add", [product, added], act=act)


def _matmul(reading: Reading, op: FileOp) -> None:
    first, second = reading.input_of(op), reading.input_of(op, 1)
    turned = bool(op.option("transpose_a")), bool(op.option("transpose_b"))
    matrix = None if turned[0] else reading.value(second)
    plain = reading.scale(op.outputs[0]) is None and len(reading.shape(first)) > 1
    if matrix is not None and matrix.ndim == 2 and plain:
        # A layer: so it can be trained, and quantised by its outputs.
        weight = np.ascontiguousarray(matrix if turned[1] else matrix.T, np.float32)
        units = weight.shape[0]
        own = (weight, np.zeros(units, np.float32))
        made = reading.emit(op, "dense", [reading.name(first)], Dense(units), own=own)
        codes = _weight_codes(reading, second, 0 if turned[1] else 1, units)
        if codes is not None:
            held = codes.weight if turned[1] else np.ascontiguousarray(codes.weight.T)
            reading.codes[made] = WeightCodes(held, codes.scales)
            reading.turned_back[made] = second in reading.sources
        return
    rank = max(len(reading.shape(first)), len(reading.shape(second)))
    names = [reading.ranked(first, rank), reading.ranked(second, rank)]
    reading.emit(op, "matmul", names, Matmul(*turned))


def _layer(
    reading: Reading,
    op: FileOp,
    last: FileOp,
    kind: str,
    name: str,
    attributes: Any,
    *,
    channel_axis: int = 0,
    places: tuple[int, int] = (0, 2),
) -> None:
    """Add a layer with its weight, the bias it has or zeros, and the codes of both.

    `places` are those of its source and its bias among what the op reads.
    """
    source, bias = places
    weight, number = reading.needed(op, 1, "weight"), reading.input_of(op, 1)
    stored = reading.tensor(_origin(reading, number))
    if weight.dtype != np.float32:
        raise UnknownError(f"has a weight of {stored.dtype} without a scale")
    if kind != "dense" and stored.dtype == "int8" and stored.zero_points.any():
        raise UnknownError("has int8 weights with a zero point, which kernels do not heed")
    outputs = weight.shape[channel_axis]
    held = _weight_codes(reading, number, channel_axis, outputs)
    offset: Array = np.zeros(outputs, np.float32)
    if op.input(bias) is not None:
        offset = reading.needed(op, bias, "bias").reshape(-1)
    if offset.size != outputs:
        raise UnknownError(f"has a bias of {offset.size} values for {outputs} outputs")
    params = reading.scale(reading.input_of(op, source))
    codes = held
    if params is not None:
        unit = params.scale * _scales(reading, number, outputs)
        whole: npt.NDArray[np.integer[Any]]
        whole = offset.astype(np.int64 if params.dtype == "int16" else np.int32)
        codes = None if held is None else LayerCodes(held.weight, held.scales, whole)
        offset = whole * unit
    elif offset.dtype != np.float32:
        raise UnknownError(f"has a bias of {offset.dtype} beside real numbers")
    own = (weight, np.asarray(offset, np.float32))
    act = "none" if op.custom_options else reading.activation(op)
    made = reading.emit(last, kind, [name], attributes, act=act, own=own)
    if codes is not None:
        reading.codes[made] = codes
        reading.turned_back[made] = number in reading.sources
    if stored.dtype == "float16":
        reading.halves.add(made)


def _origin(reading: Reading, number: int) -> int:
    """Return the constant of the file that a known tensor is a copy of."""
    return reading.sources.get(number, number)


def _scales(reading: Reading, number: int, outputs: int) -> npt.NDArray[np.float64]:
    """Return the scale of each output's weights. Raises UnknownError where they have none."""
    tensor = reading.tensor(_origin(reading, number))
    if not tensor.quantized:
        raise UnknownError("reads codes with a weight that has no scales")
    return np.broadcast_to(tensor.scales.astype(np.float64), (outputs,))


def _weight_codes(
    reading: Reading, number: int, channel_axis: int, outputs: int
) -> WeightCodes | None:
    """Return the codes of a weight, if they are symmetric and of its output channels."""
    origin = _origin(reading, number)
    tensor = reading.tensor(origin)
    if not tensor.quantized or tensor.dtype not in ("int8", "int4") or tensor.zero_points.any():
        return None
    if tensor.scales.size > 1 and tensor.axis != channel_axis:
        return None
    held = reading.held(origin)
    scales = np.ascontiguousarray(tensor.scales, np.float32)
    if scales.size == 1 and held.ndim > 2:
        scales = np.full(outputs, scales[0], np.float32)
    return WeightCodes(np.ascontiguousarray(held, np.int8), scales)


LAYERS: Mapping[str, Callable[[Reading, FileOp], None]] = {
    "CONV_2D": read_conv,
    "DEPTHWISE_CONV_2D": read_conv,
    "TRANSPOSE_CONV": _deconv,
    f"CUSTOM {mediapipe.DECONV}": _mediapipe_deconv,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _matmul,
}
