"""How ONNX says each kind of op: one function a kind, found by look-up in `EMITTERS`.

Each appends nodes and returns the name of what they give, before the fused activation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from models.codes import SIGMOID, SIXTH
from pipeline.formats.api import ExportError
from pipeline.formats.layers import activation_emitter, check_gate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.graph import Op
    from models.ops import Mean
    from models.window import Window
    from pipeline.formats.onnx.write import Writer


def _convolve(writer: Writer, op: Op) -> str:
    inputs = [*writer.operands(op), *writer.parameters(op)]
    weight = op.weight_shape[op.layer.to_torch[1]]
    groups = op.in_shapes[0][3] // weight
    return writer.node("Conv", inputs, op.name, group=groups, **_window(op.attributes))


def _dense(writer: Writer, op: Op) -> str:
    inputs = [*writer.operands(op), *writer.parameters(op)]
    return writer.node("Gemm", inputs, op.name, transB=1)


def _add(writer: Writer, op: Op) -> str:
    return writer.node("Add", writer.operands(op), op.name)


def _mul(writer: Writer, op: Op) -> str:
    return writer.node("Mul", writer.operands(op), op.name)


def _mean(writer: Writer, op: Op) -> str:
    mean: Mean = op.attributes
    if mean.keepdims:
        return writer.node("GlobalAveragePool", writer.operands(op), op.name)
    return writer.node("ReduceMean", writer.operands(op), op.name, axes=[2, 3], keepdims=0)


def _maxpool(writer: Writer, op: Op) -> str:
    window: Window = op.attributes
    (height, width), (top, bottom, left, right) = window.kernel, window.padding
    if max(top, bottom) >= height or max(left, right) >= width:
        raise ExportError(
            f"op {op.name!r} is a max pool of {height}x{width} with padding {window.padding}, "
            "which onnxruntime refuses; it takes less padding than the kernel has rows and columns"
        )
    return writer.node("MaxPool", writer.operands(op), op.name, **_window(window))


def _hardswish(writer: Writer, op: Op) -> str:
    return writer.node("HardSwish", writer.operands(op), op.name)


def _sigmoid(writer: Writer, op: Op) -> str:
    return writer.node("Sigmoid", writer.operands(op), op.name)


def _silu(writer: Writer, op: Op) -> str:
    (source,) = writer.operands(op)
    gate = writer.node("Sigmoid", [source], f"{op.name}.sigmoid")
    gate = writer.quantized(f"{op.name}.sigmoid", gate, SIGMOID)
    return writer.node("Mul", [source, gate], op.name)


def _hardsigmoid(writer: Writer, op: Op) -> str:
    check_gate(writer.graph, op)
    (source,) = writer.operands(op)
    if writer.quantization is None:
        return writer.node("HardSigmoid", [source], op.name, alpha=1 / 6, beta=0.5)
    # The layer before computed relu6(x + 3) already: one sixth of that is left.
    sixth = writer.constant_codes("sixth", np.array(1 / 6, np.float32), SIXTH, f"{op.name}.sixth")
    return writer.node("Mul", [source, sixth], op.name)


_ACTIVATIONS: Mapping[str, Callable[[Writer, Op], str]] = {
    "hardswish": _hardswish,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "hardsigmoid": _hardsigmoid,
}


def _act(writer: Writer, op: Op) -> str:
    return activation_emitter(_ACTIVATIONS, op, "ONNX")(writer, op)


EMITTERS: Mapping[str, Callable[[Writer, Op], str]] = {
    "conv": _convolve,
    "depthwise": _convolve,
    "dense": _dense,
    "add": _add,
    "mul": _mul,
    "mean": _mean,
    "maxpool": _maxpool,
    "act": _act,
}


def _window(window: Window) -> dict[str, Any]:
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
