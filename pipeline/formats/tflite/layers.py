"""How TFLite says layers: convolutions of every kind and dense layers, and their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.schema_py_generated import BuiltinOperator
from ai_edge_litert.schema_py_generated import Padding as WindowPadding

from models.window import Window
from pipeline.formats.layers import layer_weights
from pipeline.formats.tflite import versions
from pipeline.formats.tflite.windows import dilation, fused, padded, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.ops import Conv, Deconv, Depthwise, Shape
    from pipeline.formats.tflite.step import Step

_Array = npt.NDArray[Any]


def _conv(step: Step) -> None:
    conv: Conv = step.op.attributes
    mode, source = padded(step)
    inputs = [source, *_parameters(step, hybrid=True)]
    fields = (*steps(mode, conv), *fused(step), *dilation(conv))
    version = _hybrid(step, inputs[1], versions.HYBRID_CONVOLUTION)
    if conv.groups > 1:
        version = versions.GROUPED_CONVOLUTION
    step.finish(BuiltinOperator.CONV_2D, inputs, ("Conv2D", fields), version=version)


def _depthwise(step: Step) -> None:
    depthwise: Depthwise = step.op.attributes
    mode, source = padded(step)
    inputs = [source, *_parameters(step, hybrid=True)]
    multiplier = (("DepthMultiplier", depthwise.multiplier),)
    fields = (*steps(mode, depthwise), *multiplier, *fused(step), *dilation(depthwise))
    version = versions.DILATED_DEPTHWISE if depthwise.dilation != (1, 1) else 0
    version = max(version, _hybrid(step, inputs[1], versions.HYBRID_DEPTHWISE))
    options = ("DepthwiseConv2D", fields)
    step.finish(BuiltinOperator.DEPTHWISE_CONV_2D, inputs, options, version=version)


def _dense(step: Step) -> None:
    inputs = [*step.inputs(), *_parameters(step, hybrid=True)]
    version = _hybrid(step, inputs[1], versions.HYBRID_DENSE)
    held = step.writer.quantization.weights.get(step.op.name)
    if version and held is not None and len(held.scales) > 1:
        version = versions.HYBRID_DENSE_PER_OUTPUT
    asymmetric = (("AsymmetricQuantizeInputs", 1),) if version else ()
    options = ("FullyConnected", (*fused(step), *_any_rank(step), *asymmetric))
    if _any_rank(step):
        version = max(version, versions.DENSE_OF_ANY_RANK)
    step.finish(BuiltinOperator.FULLY_CONNECTED, inputs, options, version=version)


def _any_rank(step: Step) -> tuple[tuple[str, int], ...]:
    """Return the field that keeps all axes but the last; vectors do without."""
    return (("KeepNumDims", 1),) if len(step.op.in_shapes[0]) > 2 else ()


def dense_by_constant(step: Step, weight: _Array) -> None:
    """Emit the product with a constant matrix (units, in) as a dense layer without bias."""
    kernel = step.writer.file.tensor(
        f"{step.op.name}.weight", weight.shape, np.float32, data=weight
    )
    options = ("FullyConnected", (*fused(step), *_any_rank(step)))
    version = versions.DENSE_OF_ANY_RANK if _any_rank(step) else 0
    inputs = [step.input(0), kernel, _NO_BIAS]
    step.finish(BuiltinOperator.FULLY_CONNECTED, inputs, options, version=version)


_NO_BIAS = -1


def _deconv(step: Step) -> None:
    """Emit a transposed convolution: what SAME does not cut off is sliced off."""
    deconv: Deconv = step.op.attributes
    (source,) = step.inputs()
    batch, *_ = step.op.in_shapes[0]
    _, rows, columns, out = step.op.out_shape
    same = _is_same(step)
    top, _, left, _ = (0, 0, 0, 0) if same else deconv.padding
    whole = _uncut(step)
    spread = (batch, rows, columns, out)
    if not same:
        spread = (batch, max(top + rows, whole[0]), max(left + columns, whole[1]), out)
    kernel, bias = _parameters(step, hybrid=False, laid_out=_dense_kernel)
    inputs = [step.ints(spread), kernel, source, bias]
    mode = WindowPadding.SAME if same else WindowPadding.VALID
    act = fused(step) if step.op.act != "none" else ()
    options = ("TransposeConv", (*steps(mode, deconv), *act))
    version = versions.TRANSPOSED_WITH_ACTIVATION if act else versions.TRANSPOSED_WITH_BIAS
    code = BuiltinOperator.TRANSPOSE_CONV
    if spread == step.op.out_shape:
        step.finish(code, inputs, options, version=version)
        return
    params = step.params(step.op.name)
    result = step.temporary("whole", spread, params=params)
    step.emit(code, inputs, result, options, version=version)
    begin, size = step.ints((0, top, left, 0)), step.ints(step.op.out_shape)
    step.finish(BuiltinOperator.SLICE, [result, begin, size], ("Slice", ()))


def _uncut(step: Step) -> tuple[int, int]:
    """Return the rows and columns of a transposed convolution before anything is cut off."""
    deconv: Deconv = step.op.attributes
    _, height, width, _ = step.op.in_shapes[0]
    (down, across), (tall, wide) = deconv.stride, deconv.reach
    return (height - 1) * down + tall, (width - 1) * across + wide


def _is_same(step: Step) -> bool:
    """Tell whether SAME of the convolution that goes back cuts off what this op cuts off."""
    deconv: Deconv = step.op.attributes
    _, rows, columns, _ = step.op.out_shape
    back = Window(kernel=deconv.kernel, stride=deconv.stride, dilation=deconv.dilation)
    top, bottom, left, right = deconv.padding
    ends = (top, bottom - deconv.extra[0], left, right - deconv.extra[1])
    if ends != back.same_padding(rows, columns):
        return False
    down, across = deconv.stride
    _, height, width, _ = step.op.in_shapes[0]
    return (-(-rows // down), -(-columns // across)) == (height, width)


def _dense_kernel(step: Step, weight: _Array) -> _Array:
    """Return the kernel with zeros for what TFLite has not: gaps of a dilation, other groups."""
    deconv: Deconv = step.op.attributes
    out, *_, share = weight.shape
    down, across = deconv.dilation
    kernel = np.zeros((out, *deconv.reach, share * deconv.groups), weight.dtype)
    for group in range(deconv.groups):
        rows = slice(group * out // deconv.groups, (group + 1) * out // deconv.groups)
        columns = slice(group * share, (group + 1) * share)
        kernel[rows, ::down, ::across, columns] = weight[rows]
    return kernel


def _hybrid(step: Step, kernel: int, version: int) -> int:
    """Return the version of an operator of real activations whose weight is codes; 0 else."""
    codes = step.writer.file.tensors[kernel].dtype == np.int8
    return version if codes and not step.integer else 0


def _in_order(step: Step, values: _Array) -> _Array:
    """Return what a layer has for each output channel, in the order in which it gives them."""
    order = step.writer.channel_orders.get(step.op.name)
    return values if order is None or len(values) != len(order) else values[order]


def _parameters(
    step: Step, *, hybrid: bool, laid_out: Callable[[Step, _Array], _Array] = _in_order
) -> tuple[int, int]:
    """Add a layer's weight and bias; return their tensors.

    Args:
        step: of the layer.
        hybrid: whether its operator takes real activations beside a weight of codes.
        laid_out: brings a weight into TFLite's layout.
    """
    op, file, quantization = step.op, step.writer.file, step.writer.quantization
    names = f"{op.name}.weight", f"{op.name}.bias"
    weight, bias = layer_weights(op, step.writer.model.weights)
    if op.name in step.writer.gates:
        bias = bias + np.float32(3)  # half of the hard-sigmoid after it
    if step.integer:
        codes = quantization.layer(op, weight, bias)
        own = _in_order(step, codes.scales)
        scales = file.quantization(own, axis=op.layer.channel_axis)
        data = laid_out(step, codes.weight)
        kernel = file.tensor(names[0], data.shape, np.int8, data=data, quantization=scales)
        in_scale = quantization[op.inputs[0]].scale
        scales = file.quantization(own * np.float32(in_scale))
        data = _in_order(step, codes.bias)
        return kernel, file.tensor(names[1], bias.shape, data.dtype, data=data, quantization=scales)
    kernel = _real_kernel(step, names[0], weight, laid_out, hybrid=hybrid)
    data = _in_order(step, bias)
    return kernel, file.tensor(names[1], data.shape, np.float32, data=data)


def _real_kernel(
    step: Step,
    name: str,
    weight: _Array,
    laid_out: Callable[[Step, _Array], _Array],
    *,
    hybrid: bool,
) -> int:
    """Add the weight of a layer of real activations; as codes or halves where the model says so."""
    op, file, quantization = step.op, step.writer.file, step.writer.quantization
    if quantization.has_weight_codes(op):
        codes = quantization.weight(op, weight)
        scales = file.quantization(_in_order(step, codes.scales), axis=op.layer.channel_axis)
        data = laid_out(step, codes.weight)
        stored = file.tensor(name, data.shape, np.int8, data=data, quantization=scales)
        if hybrid and quantization.number_format.mode == "dynamic":
            return stored
        several = len(codes.scales) > 1
        version = versions.PER_CHANNEL_DEQUANTIZE if several else 0
        return _unpacked(step, stored, version)
    data = laid_out(step, weight)
    if quantization.number_format.weights != "float16" or op.name in quantization.float_ops:
        return file.tensor(name, data.shape, np.float32, data=data)
    with np.errstate(over="ignore"):
        halves = data.astype(np.float16)
    if not np.isfinite(halves).all():
        raise step.refuse(f"has weights up to {np.abs(data).max():.3g}, more than float16 holds")
    return _unpacked(step, file.tensor(name, data.shape, np.float16, data=halves), 0)


def _unpacked(step: Step, stored: int, version: int) -> int:
    """Return a weight as real numbers, behind the DEQUANTIZE that runtimes do once."""
    shape: Shape = step.writer.file.tensors[stored].shape
    real = step.temporary("weight.real", shape)
    options = ("Dequantize", ())
    return step.emit(BuiltinOperator.DEQUANTIZE, [stored], real, options, version=version)


LAYERS: Mapping[str, Callable[[Step], None]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "dense": _dense,
    "deconv": _deconv,
}
