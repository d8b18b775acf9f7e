"""Forms of torch's activations and limits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from models.ops import Clip, Elu, LeakyRelu, Softmax, Unary
from pipeline.formats.torch.elementwise import scale_by, valued
from pipeline.formats.torch.writer import Unsaid, Value, known

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.torch.calls import Call
    from pipeline.formats.torch.writer import Writer


def _act(name: str) -> Callable[[Writer, Call], Value]:
    return lambda w, call: w.op("act", [call.first], act=name)


def _gelu(w: Writer, call: Call) -> Value:
    act = "gelu_tanh" if call["approximate"] == "tanh" else "gelu"
    return w.op("act", [call.first], act=act)


def _softplus(w: Writer, call: Call) -> Value:
    x = scale_by(w, call.first, call["beta"])
    return scale_by(w, w.op("act", [x], act="softplus"), 1 / call["beta"])


def _log_sigmoid(w: Writer, call: Call) -> Value:
    soft = w.op("act", [scale_by(w, call.first, -1.0)], act="softplus")
    return w.op("unary", [soft], Unary("neg"))


def _elu(w: Writer, call: Call) -> Value:
    if call["input_scale"] != 1:
        raise Unsaid(f"its input_scale is {call['input_scale']}; known is 1")
    return scale_by(w, w.op("elu", [call.first], Elu(call["alpha"])), call["scale"])


def _leaky_relu(w: Writer, call: Call) -> Value:
    return w.op("leakyrelu", [call.first], LeakyRelu(call["negative_slope"]))


def _random_relu(w: Writer, call: Call) -> tuple[Value, None]:
    """Write rrelu as it is when it does not train: by the mean of its slopes."""
    slope = (call["lower"] + call["upper"]) / 2
    return w.op("leakyrelu", [call.first], LeakyRelu(slope)), None


def _prelu(w: Writer, call: Call) -> Value:
    x, slope = call.args.values()
    known(slope, "slope")
    rank = len(x.shape)
    last = w.to_last(x) if rank > 2 else x
    if len(slope.shape) == 1:
        slope = w.reshape(slope, (1,) * (rank - 1) + slope.shape)
    else:
        slope = w.to_last(slope)
    made = w.op("prelu", [last, slope])
    return w.to_first(made) if rank > 2 else made


def _clamp(w: Writer, call: Call) -> Value:
    """Write limits: as an activation where they are one's, element-wise where they are tensors."""
    x, low, high = (*call.args.values(), None)[:3]
    x = w.cast(x, call.dtype)
    if isinstance(low, Value) or isinstance(high, Value) or x.dtype != "float32":
        for limit, kind in ((low, "maximum"), (high, "minimum")):
            if limit is not None:
                x = w.op(kind, w.fit([x, w.cast(valued(limit, x.dtype), x.dtype)]))
        return x
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    if low == 0 and high in (6, math.inf):
        return w.op("act", [x], act="relu6" if high == 6 else "relu")
    return w.op("clip", [x], Clip(float(low), float(high)))


def _lower_limit(w: Writer, call: Call) -> Value:
    x, low = call.args.values()
    return w.op("maximum", w.fit([x, w.cast(valued(low, x.dtype), x.dtype)]))


def _upper_limit(w: Writer, call: Call) -> Value:
    x, high = call.args.values()
    return w.op("minimum", w.fit([x, w.cast(valued(high, x.dtype), x.dtype)]))


def _softmax(kind: str) -> Callable[[Writer, Call], Value]:
    def write(w: Writer, call: Call) -> Value:
        x = w.cast(call.first, call.dtype)
        return w.op(kind, [x], Softmax(call["dim"] % len(x.shape)))

    return write


FORMS: Mapping[str, Callable[[Writer, Call], Any]] = {
    **{
        name: _act(name)
        for name in ("relu", "hardswish", "silu", "sigmoid", "hardsigmoid", "tanh", "mish")
    },
    "relu6": _act("relu6"),
    "gelu": _gelu,
    "softplus": _softplus,
    "log_sigmoid": _log_sigmoid,
    "elu": _elu,
    "leaky_relu": _leaky_relu,
    "rrelu_with_noise_functional": _random_relu,
    "prelu": _prelu,
    "hardtanh": _clamp,
    "clamp": _clamp,
    "clamp_min": _lower_limit,
    "clamp_max": _upper_limit,
    "softmax": _softmax("softmax"),
    "_softmax": _softmax("softmax"),
    "_safe_softmax": _softmax("softmax"),
    "log_softmax": _softmax("logsoftmax"),
    "_log_softmax": _softmax("logsoftmax"),
}
"""Torch's name of an op -> what writes it."""
