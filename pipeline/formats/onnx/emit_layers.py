"""How ONNX says layers and products of matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.formats.onnx.axes import CHANNELS_FIRST, as_it_is
from pipeline.formats.onnx.codes import add_weight_codes, to_unsigned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from models.graph import Op
    from models.ops import Deconv, Matmul
    from models.window import Window
    from pipeline.formats.onnx.places import Made, Place
    from pipeline.formats.onnx.write import Writer

FIRST = CHANNELS_FIRST[4]


def window_attributes(window: Window) -> dict[str, Any]:
    """Return a window as attributes; dilation, whose default may be left out, if there is any."""
    top, bottom, left, right = window.padding
    attributes: dict[str, Any] = {
        "kernel_shape": list(window.kernel),
        "strides": list(window.stride),
        "pads": [top, left, bottom, right],
    }
    if window.dilation != (1, 1):
        attributes["dilations"] = list(window.dilation)
    return attributes


def _convolve(writer: Writer, op: Op) -> Made:
    inputs = [writer.operand(op, FIRST), *writer.parameters(op)]
    weight = op.weight_shape[op.layer.to_torch[1]]
    groups = op.in_shapes[0][3] // weight
    window = window_attributes(op.attributes)
    return writer.aligned(
        op, writer.file.node("Conv", inputs, op.name, group=groups, **window), FIRST
    )


def _convolve_transposed(writer: Writer, op: Op) -> Made:
    deconv: Deconv = op.attributes
    attributes = {**window_attributes(deconv), "group": deconv.groups}
    if any(deconv.extra):
        attributes["output_padding"] = list(deconv.extra)
    source = writer.operand(op, FIRST)
    if writer.quantization is None or not writer.is_integer(op):
        weight, bias = writer.weights(op)
        kernel = writer.file.constant(f"{op.name}.weight", _grouped(weight, deconv.groups))
        inputs = [source, kernel, writer.real_bias(op, bias)]
        value = writer.file.node("ConvTranspose", inputs, op.name, **attributes)
        return writer.aligned(op, value, FIRST)
    codes = writer.quantization.layer(op, *writer.weights(op))
    in_scale = writer.quantization[op.inputs[0]].scale
    laid, zero = _grouped(codes.weight, deconv.groups), 0
    if writer.weight_type == np.uint8:
        laid, zero = to_unsigned(laid), 128
    name, offset = f"{op.name}.weight", f"{op.name}.bias"
    bias_scales = codes.scales * np.float32(in_scale)
    if deconv.groups == 1:
        kernel = add_weight_codes(writer.file, name, laid, codes.scales, zero, channel_axis=1)
        inputs = [source, kernel, add_weight_codes(writer.file, offset, codes.bias, bias_scales)]
        value = writer.file.node("ConvTranspose", inputs, op.name, **attributes)
        return writer.aligned(op, value, FIRST)
    # The scales of all groups' channels lie along no axis of the weight: they follow.
    kernel = add_weight_codes(writer.file, name, laid, np.ones(1, np.float32), zero)
    sums = writer.file.node("ConvTranspose", [source, kernel], f"{op.name}.sums", **attributes)
    scales = writer.file.constant(f"{op.name}.scales", codes.scales.reshape(1, -1, 1, 1))
    scaled = writer.file.node("Mul", [sums, scales], f"{op.name}.scaled")
    bias = (codes.bias * bias_scales).astype(np.float32).reshape(1, -1, 1, 1)
    inputs = [scaled, writer.file.constant(offset, bias)]
    return writer.aligned(op, writer.file.node("Add", inputs, op.name), FIRST)


def _grouped(weight: npt.NDArray[Any], groups: int) -> npt.NDArray[Any]:
    """Bring (out, height, width, in / groups) into ONNX's (in, out / groups, height, width)."""
    out, height, width, share = weight.shape
    parts = weight.reshape(groups, out // groups, height, width, share)
    return parts.transpose(0, 4, 1, 2, 3).reshape(groups * share, out // groups, height, width)


def _dense(writer: Writer, op: Op) -> Made:
    rank = len(op.in_shapes[0])
    if rank == 2:
        return _vector(writer, op)
    place = writer.place(op)
    if writer.is_integer(op):
        # The integer kernel is that of Gemm, which takes matrices.
        rows = place.reshape((place.size // op.in_shapes[0][-1], op.in_shapes[0][-1]))
        inputs = [rows.give(as_it_is(2)), *writer.parameters(op)]
        value = writer.file.node("Gemm", inputs, op.name, transB=1)
        return writer.shaped(value, (*rows.shape[:1], op.out_shape[-1]))
    weight, bias = writer.weights(op)
    kernel = writer.file.constant(f"{op.name}.weight", weight.T)
    product = [place.give(as_it_is(rank)), kernel]
    if not bias.any():
        value = writer.file.node("MatMul", product, op.name)
    else:
        value = writer.file.node("MatMul", product, f"{op.name}.product")
        value = writer.file.node("Add", [value, writer.real_bias(op, bias)], op.name)
    return writer.aligned(op, value, as_it_is(rank))


def _vector(writer: Writer, op: Op) -> Made:
    """Write a dense layer of vectors; where one lies in another order, its weights do too."""
    place = writer.place(op)
    source, order = None, None
    if place.shape[0] == 1 and not place.holds(as_it_is(2)):
        source, order = place.give_as_held()
    source = source or place.give(as_it_is(2))
    inputs = [source, *writer.parameters(op, order)]
    return writer.aligned(op, writer.file.node("Gemm", inputs, op.name, transB=1), as_it_is(2))


def _matmul(writer: Writer, op: Op) -> Made:
    matmul: Matmul = op.attributes
    rank = len(op.out_shape)
    last = {False: (rank - 2, rank - 1), True: (rank - 1, rank - 2)}
    batch = as_it_is(rank)[:-2]
    inputs = [
        writer.operand(op, (*batch, *last[turned]), number)
        for number, turned in enumerate((matmul.transpose_a, matmul.transpose_b))
    ]
    return writer.aligned(op, writer.file.node("MatMul", inputs, op.name), as_it_is(rank))


EMITTERS: Mapping[str, Callable[[Writer, Op], Made | Place]] = {
    "conv": _convolve,
    "depthwise": _convolve,
    "deconv": _convolve_transposed,
    "dense": _dense,
    "matmul": _matmul,
}
