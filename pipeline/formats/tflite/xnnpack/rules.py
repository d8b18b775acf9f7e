"""The rule of each kind of op, and what a file's ops come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.formats.tflite import mediapipe
from pipeline.formats.tflite.xnnpack import elementwise, layers, shaping
from pipeline.formats.tflite.xnnpack.view import FLOATS, LeftError, View

if TYPE_CHECKING:
    from collections.abc import Callable

_FLOAT_UNARY = (
    *("ABS", "CEIL", "COS", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LOG", "NEG", "RELU_N1_TO_1"),
    *("RELU", "RELU6", "ROUND", "RSQRT", "SIN", "SQRT", "SQUARE"),
)
_RULES: dict[str, Callable[[View], None]] = {
    **dict.fromkeys(_FLOAT_UNARY, elementwise.take_unary(*FLOATS)),
    "DEQUANTIZE": elementwise.take_unary("q8", into=FLOATS),
    "ELU": elementwise.take_unary(*FLOATS, "qs8"),
    **dict.fromkeys(("LOGISTIC", "TANH"), elementwise.take_unary(*FLOATS, "q8")),
    "LEAKY_RELU": elementwise.take_leaky_relu,
    "QUANTIZE": elementwise.take_quantize,
    **dict.fromkeys(("ADD", "SUB"), elementwise.take_sum),
    "MUL": elementwise.take_product,
    "PRELU": elementwise.take_prelu,
    **dict.fromkeys(
        ("DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"),
        elementwise.take_binary,
    ),
    "SOFTMAX": elementwise.take_softmax,
    "CONV_2D": layers.take_conv,
    "DEPTHWISE_CONV_2D": layers.take_depthwise,
    "TRANSPOSE_CONV": layers.take_deconv,
    "FULLY_CONNECTED": layers.take_dense,
    "BATCH_MATMUL": layers.take_matmul,
    "AVERAGE_POOL_2D": layers.take_pool(*FLOATS),
    "MAX_POOL_2D": layers.take_pool("float32", "q8"),
    "CONCATENATION": shaping.take_concat,
    "SPLIT": shaping.take_split,
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), shaping.take_reduce),
    "PAD": shaping.take_pad,
    "RESHAPE": shaping.take_reshape,
    "RESIZE_BILINEAR": shaping.take_resize,
    "SLICE": shaping.take_slice,
    "STRIDED_SLICE": shaping.take_strided_slice,
    "TRANSPOSE": shaping.take_transpose,
    "DEPTH_TO_SPACE": shaping.take_depth_to_space,
    "SPACE_TO_DEPTH": shaping.take_space_to_depth,
}

_CUSTOM_RULES = {mediapipe.DECONV: layers.take_mediapipe_deconv}

UNKNOWN = {
    "STABLEHLO_COMPOSITE": "a composite op, which LiteRT may replace by those that it is made of",
    "MaxPoolingWithArgmax2D": "a custom op of MediaPipe",
    "MaxUnpooling2D": "a custom op of MediaPipe",
    "odml.scaled_dot_product_attention": "a custom op for attention",
}
"""Ops that XNNPACK may take by rules that are not known here -> what they are."""

KERNELS = ("AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess")
"""Custom ops that LiteRT has kernels for; it loads no file with another one that XNNPACK leaves."""


def why_left(view: View) -> str:
    """Return in a clause why the delegate leaves an op; empty where it takes it."""
    op = view.op
    rule = _RULES.get(op.kind) if op.kind != "CUSTOM" else _CUSTOM_RULES.get(op.custom)
    if rule is None:
        return "XNNPACK has no such op"
    try:
        rule(view)
    except LeftError as error:
        return str(error)
    return ""
