"""How TFLite says each kind of op: one function a kind, found by look-up in `EMITTERS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType, BuiltinOperator
from ai_edge_litert.schema_py_generated import Padding as WindowPadding

from models.codes import CODE_MIN, SIGMOID, SIXTH
from pipeline.formats.api import ExportError
from pipeline.formats.layers import activation_emitter, check_gate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.graph import Op
    from models.ops import Conv, Depthwise, Mean
    from models.window import Window
    from pipeline.formats.tflite.write import Writer

Fields = tuple[tuple[str, int], ...]

_FUSED = {
    "none": ActivationFunctionType.NONE,
    "relu": ActivationFunctionType.RELU,
    "relu6": ActivationFunctionType.RELU6,
}
# (float32, int8): what TFLiteConverter 2.21 writes. A version is a look-up key that an old
# runtime refuses when it is higher than what it knows, so never higher than needed.
VERSIONS = {
    BuiltinOperator.CONV_2D: (1, 3),
    BuiltinOperator.DEPTHWISE_CONV_2D: (1, 3),
    BuiltinOperator.FULLY_CONNECTED: (1, 4),
    BuiltinOperator.ADD: (1, 2),
    BuiltinOperator.MUL: (1, 2),
    BuiltinOperator.PAD: (1, 2),
    BuiltinOperator.PADV2: (1, 2),
    BuiltinOperator.MEAN: (1, 2),
    BuiltinOperator.MAX_POOL_2D: (1, 2),
    BuiltinOperator.LOGISTIC: (1, 2),
    BuiltinOperator.HARD_SWISH: (1, 1),
    BuiltinOperator.QUANTIZE: (1, 1),
    BuiltinOperator.DEQUANTIZE: (1, 2),
}

_GROUPED = 6
"""The version of CONV_2D that knows groups."""
_DILATED = 2
"""The version of DEPTHWISE_CONV_2D that knows dilation."""


def _conv(writer: Writer, op: Op) -> None:
    conv: Conv = op.attributes
    mode, source = _padded(writer, op)
    inputs = [source, *writer.parameters(op, *writer.weights(op))]
    fields = (*_steps(mode, conv), *_fused(writer, op), *_dilation(conv))
    version = _GROUPED if conv.groups > 1 else 0
    options = ("Conv2D", fields)
    writer.emit(BuiltinOperator.CONV_2D, inputs, writer.output(op), options, version=version)


def _depthwise(writer: Writer, op: Op) -> None:
    depthwise: Depthwise = op.attributes
    mode, source = _padded(writer, op)
    inputs = [source, *writer.parameters(op, *writer.weights(op))]
    multiplier = (("DepthMultiplier", depthwise.multiplier),)
    fields = (*_steps(mode, depthwise), *multiplier, *_fused(writer, op), *_dilation(depthwise))
    version = _DILATED if depthwise.dilation != (1, 1) else 0
    options = ("DepthwiseConv2D", fields)
    code = BuiltinOperator.DEPTHWISE_CONV_2D
    writer.emit(code, inputs, writer.output(op), options, version=version)


def _dense(writer: Writer, op: Op) -> None:
    inputs = [*writer.operands(op), *writer.parameters(op, *writer.weights(op))]
    options = ("FullyConnected", _fused(writer, op))
    writer.emit(BuiltinOperator.FULLY_CONNECTED, inputs, writer.output(op), options)


def _add(writer: Writer, op: Op) -> None:
    options = ("Add", _fused(writer, op))
    writer.emit(BuiltinOperator.ADD, writer.operands(op), writer.output(op), options)


def _mul(writer: Writer, op: Op) -> None:
    options = ("Mul", _fused(writer, op))
    writer.emit(BuiltinOperator.MUL, writer.operands(op), writer.output(op), options)


def _mean(writer: Writer, op: Op) -> None:
    mean: Mean = op.attributes
    inputs = [*writer.operands(op), writer.int_constant((1, 2))]
    options = ("Reducer", (("KeepDims", int(mean.keepdims)),))
    writer.emit(BuiltinOperator.MEAN, inputs, writer.output(op), options)


def _maxpool(writer: Writer, op: Op) -> None:
    window: Window = op.attributes
    if window.dilation != (1, 1):
        raise ExportError(
            f"op {op.name!r} is a max pool with dilation {window.dilation}, which TFLite cannot "
            "express; it knows (1, 1)"
        )
    if writer.params(op.name) != writer.params(op.inputs[0]):
        raise ExportError(
            f"op {op.name!r} is a max pool whose quantisation parameters differ from its "
            "input's; TFLite needs them equal"
        )
    mode, source = _padded(writer, op, lowest=True)
    height, width = window.kernel
    fields = (*_steps(mode, window), ("FilterWidth", width), ("FilterHeight", height))
    writer.emit(BuiltinOperator.MAX_POOL_2D, [source], writer.output(op), ("Pool2D", fields))


def _hardswish(writer: Writer, op: Op) -> None:
    options = ("HardSwish", ())
    writer.emit(BuiltinOperator.HARD_SWISH, writer.operands(op), writer.output(op), options)


def _sigmoid(writer: Writer, op: Op) -> None:
    writer.emit(BuiltinOperator.LOGISTIC, writer.operands(op), writer.output(op))


def _silu(writer: Writer, op: Op) -> None:
    scales = writer.scales(SIGMOID)
    gate = writer.file.tensor(f"{op.name}.sigmoid", op.out_shape, writer.dtype, quantization=scales)
    writer.emit(BuiltinOperator.LOGISTIC, writer.operands(op), gate)
    _scale(writer, op, gate)


def _hardsigmoid(writer: Writer, op: Op) -> None:
    """Emit the sixth: the layer before computes relu6(x + 3)."""
    check_gate(writer.graph, op)
    _scale(writer, op, writer.constant("constant.sixth", np.array([1 / 6], np.float32), SIXTH))


def _scale(writer: Writer, op: Op, factor: int) -> None:
    options = ("Mul", (("FusedActivationFunction", ActivationFunctionType.NONE),))
    inputs = [*writer.operands(op), factor]
    writer.emit(BuiltinOperator.MUL, inputs, writer.output(op), options)


_ACTIVATIONS: Mapping[str, Callable[[Writer, Op], None]] = {
    "hardswish": _hardswish,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "hardsigmoid": _hardsigmoid,
}


def _act(writer: Writer, op: Op) -> None:
    activation_emitter(_ACTIVATIONS, op, "TFLite")(writer, op)


EMITTERS: Mapping[str, Callable[[Writer, Op], None]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "dense": _dense,
    "add": _add,
    "mul": _mul,
    "mean": _mean,
    "maxpool": _maxpool,
    "act": _act,
}


def _padded(writer: Writer, op: Op, *, lowest: bool = False) -> tuple[int, int]:
    """Return (padding mode, tensor to read), behind a PAD where no mode gives the padding.

    With `lowest` the padding loses against every value, as a max pool needs it.
    """
    window: Window = op.attributes
    (source,) = writer.operands(op)
    _, height, width, channels = op.in_shapes[0]
    if window.padding == window.same_padding(height, width):
        return WindowPadding.SAME, source
    if not any(window.padding):
        return WindowPadding.VALID, source
    top, bottom, left, right = window.padding
    shape = (1, height + top + bottom, width + left + right, channels)
    padded = writer.tensor(f"{op.name}.pad", shape, like=op.inputs[0])
    table = writer.int_constant((0, 0, top, bottom, left, right, 0, 0), (4, 2))
    if not lowest:
        writer.emit(BuiltinOperator.PAD, [source, table], padded, ("Pad", ()))
        return WindowPadding.VALID, padded
    least = np.array(-np.inf, np.float32)
    params = writer.params(op.inputs[0])
    if params is not None:
        least = params.dequantize(np.array(CODE_MIN))
    below = writer.constant(f"{op.name}.lowest", least, params)
    writer.emit(BuiltinOperator.PADV2, [source, table, below], padded, ("PadV2", ()))
    return WindowPadding.VALID, padded


def _steps(mode: int, window: Window) -> Fields:
    down, across = window.stride
    return ("Padding", mode), ("StrideW", across), ("StrideH", down)


def _dilation(window: Window) -> Fields:
    """Return the dilation, whose default TFLite leaves out."""
    if window.dilation == (1, 1):
        return ()
    down, across = window.dilation
    return ("DilationWFactor", across), ("DilationHFactor", down)


def _fused(writer: Writer, op: Op) -> Fields:
    act = "relu6" if op.name in writer.gates else op.act
    return (("FusedActivationFunction", _FUSED[act]),)
