"""How TFLite says activations that are ops of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType, BuiltinOperator

from models.codes import SIGMOID, SIXTH, QParams
from pipeline.formats.layers import activation_emitter
from pipeline.formats.tflite.broadcasting import finish_broadcast
from pipeline.formats.tflite.moving import along_last

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.ops import Softmax
    from pipeline.formats.tflite.file_builder import Options
    from pipeline.formats.tflite.step import Step

_NO_ACTIVATION = (("FusedActivationFunction", ActivationFunctionType.NONE),)
_MUL: Options = ("Mul", _NO_ACTIVATION)


def _one(code: int, options: Options | None = None) -> Callable[[Step], None]:
    return lambda step: step.finish(code, step.inputs(), options)


def _silu(step: Step) -> None:
    (x,) = step.inputs()
    gate = step.temporary("sigmoid", step.op.out_shape, params=SIGMOID if step.integer else None)
    step.emit(BuiltinOperator.LOGISTIC, [x], gate)
    step.finish(BuiltinOperator.MUL, [x, gate], _MUL)


_GATE = QParams.of_range(0.0, 6.0)
_THREE = QParams.of_range(0.0, 3.0)


def _hardsigmoid(step: Step) -> None:
    """Emit the sixth; the layer before computes relu6(x + 3) already if it can."""
    (x,) = step.inputs()
    if step.op.inputs[0] not in step.writer.gates:
        three = np.array(3, np.float32)
        below = step.writer.constant("constant.three", three, _THREE if step.integer else None)
        shifted = step.temporary(
            "shifted", step.op.out_shape, params=_GATE if step.integer else None
        )
        relu6 = (("FusedActivationFunction", ActivationFunctionType.RELU6),)
        x = step.emit(BuiltinOperator.ADD, [x, below], shifted, ("Add", relu6))
    sixth = np.array(1 / 6, np.float32)
    factor = step.writer.constant("constant.sixth", sixth, SIXTH if step.integer else None)
    step.finish(BuiltinOperator.MUL, [x, factor], _MUL)


def _softplus_of(step: Step) -> tuple[int, int]:
    """Emit max(x, 0) and log(sigmoid(|x|)), whose difference is log(1 + exp(x)) of any x."""
    (x,), shape = step.inputs(), step.op.out_shape
    positive = step.apply(BuiltinOperator.RELU, [x], "positive", shape)
    size = step.apply(BuiltinOperator.ABS, [x], "size", shape)
    gate = step.apply(BuiltinOperator.LOGISTIC, [size], "sigmoid", shape)
    return positive, step.apply(BuiltinOperator.LOG, [gate], "log", shape)


def _softplus(step: Step) -> None:
    step.finish(BuiltinOperator.SUB, _softplus_of(step), ("Sub", _NO_ACTIVATION))


def _mish(step: Step) -> None:
    (x,), shape, options = step.inputs(), step.op.out_shape, ("Sub", _NO_ACTIVATION)
    softplus = step.apply(BuiltinOperator.SUB, _softplus_of(step), "softplus", shape, options)
    gate = step.apply(BuiltinOperator.TANH, [softplus], "tanh", shape)
    step.finish(BuiltinOperator.MUL, [x, gate], _MUL)


_ACTIVATIONS: Mapping[str, Callable[[Step], None]] = {
    "relu": _one(BuiltinOperator.RELU),
    "relu6": _one(BuiltinOperator.RELU6),
    "hardswish": _one(BuiltinOperator.HARD_SWISH, ("HardSwish", ())),
    "sigmoid": _one(BuiltinOperator.LOGISTIC),
    "tanh": _one(BuiltinOperator.TANH),
    "gelu": _one(BuiltinOperator.GELU, ("Gelu", ())),
    "gelu_tanh": _one(BuiltinOperator.GELU, ("Gelu", (("Approximate", 1),))),
    "silu": _silu,
    "hardsigmoid": _hardsigmoid,
    "softplus": _softplus,
    "mish": _mish,
}


def _act(step: Step) -> None:
    activation_emitter(_ACTIVATIONS, step.op, "TFLite")(step)


def _leakyrelu(step: Step) -> None:
    options = ("LeakyRelu", (("Alpha", step.op.attributes.alpha),))
    step.finish(BuiltinOperator.LEAKY_RELU, step.inputs(), options)


def _elu(step: Step) -> None:
    """Emit elu; of another alpha than 1 its negative part is scaled."""
    (x,), shape, alpha = step.inputs(), step.op.out_shape, step.op.attributes.alpha
    if alpha == 1:
        step.finish(BuiltinOperator.ELU, [x])
        return
    positive = step.apply(BuiltinOperator.RELU, [x], "positive", shape)
    elu = step.apply(BuiltinOperator.ELU, [x], "elu", shape)
    negative = step.apply(BuiltinOperator.MINIMUM, [elu, step.number(0)], "negative", shape)
    scaled = step.apply(BuiltinOperator.MUL, [negative, step.number(alpha)], "scaled", shape, _MUL)
    step.finish(BuiltinOperator.ADD, [positive, scaled], ("Add", _NO_ACTIVATION))


def _prelu(step: Step) -> None:
    finish_broadcast(step, BuiltinOperator.PRELU, step.inputs())


def _softmax(step: Step) -> None:
    softmax: Softmax = step.op.attributes
    options = ("Softmax", (("Beta", 1.0),))
    along_last(step, softmax.axis, BuiltinOperator.SOFTMAX, options)


def _logsoftmax(step: Step) -> None:
    softmax: Softmax = step.op.attributes
    along_last(step, softmax.axis, BuiltinOperator.LOG_SOFTMAX, ("LogSoftmax", ()))


ACTIVATIONS: Mapping[str, Callable[[Step], None]] = {
    "act": _act,
    "leakyrelu": _leakyrelu,
    "elu": _elu,
    "prelu": _prelu,
    "softmax": _softmax,
    "logsoftmax": _logsoftmax,
}
