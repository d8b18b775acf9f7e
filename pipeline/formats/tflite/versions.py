"""The version of an operator: the lowest whose kernels know what a file asks of them.

A version is a look-up key that a runtime refuses when it is higher than what it knows, so never
higher than needed. The numbers are those that TFLiteConverter 2.21 writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_edge_litert.schema_py_generated import BuiltinOperator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.formats.tflite.file_builder import TensorSpec

GROUPED_CONVOLUTION = 6
DILATED_DEPTHWISE = 2
HYBRID_CONVOLUTION = 5
"""Real activations, int8 weights with a scale for each output channel."""
HYBRID_DEPTHWISE = 6
HYBRID_DENSE = 9
"""Of one scale, its inputs made int8 with a zero point."""
HYBRID_DENSE_PER_OUTPUT = 12
"""Which tflite-runtime 2.14 does not know."""
DENSE_OF_ANY_RANK = 5
TRANSPOSED_WITH_BIAS = 3
TRANSPOSED_WITH_ACTIVATION = 4
PER_CHANNEL_DEQUANTIZE = 5
CENTRED_RESIZE = 3
RESCALING_MUL = 3
"""Of codes, where input scale * input scale / output scale is 1 or more."""

_SECOND_FOR_INT8 = (
    *("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"),
    *("MAX_POOL_2D", "AVERAGE_POOL_2D", "LOGISTIC", "TANH", "RELU", "RELU6", "GELU"),
    *("SOFTMAX", "LOG_SOFTMAX", "L2_NORMALIZATION", "PAD", "PADV2", "MIRROR_PAD", "TRANSPOSE"),
    *("SLICE", "STRIDED_SLICE", "CONCATENATION", "GATHER", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH"),
    *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "BATCH_MATMUL", "DEQUANTIZE"),
    *("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"),
)

_OF_DTYPE: Mapping[int, Mapping[str, int]] = {
    **{getattr(BuiltinOperator, name): {"int8": 2} for name in _SECOND_FOR_INT8},
    BuiltinOperator.CONV_2D: {"int8": 3},
    BuiltinOperator.DEPTHWISE_CONV_2D: {"int8": 3},
    BuiltinOperator.FULLY_CONNECTED: {"int8": 4},
    BuiltinOperator.ADD: {"int8": 2, "int64": 4},
    BuiltinOperator.SUB: {"int8": 2, "int64": 4},
    BuiltinOperator.MUL: {"int8": 2, "int64": 5},
    BuiltinOperator.TILE: {"int8": 3},
    BuiltinOperator.FLOOR_DIV: {"float32": 2},
    BuiltinOperator.ABS: {"int32": 5},
    BuiltinOperator.SIGN: {"int32": 2},
    BuiltinOperator.TRANSPOSE: {"int8": 2, "bool": 3},
    BuiltinOperator.STRIDED_SLICE: {"int8": 2, "bool": 3},
    BuiltinOperator.GATHER: {"int8": 2, "bool": 3},
    BuiltinOperator.ARG_MAX: {"int8": 2, "bool": 3},
    BuiltinOperator.ARG_MIN: {"int8": 2, "bool": 3},
    BuiltinOperator.CAST: {"int8": 3},
    BuiltinOperator.DEQUANTIZE: {"int8": 2, "float16": 3},
}

_OF_RANK: Mapping[int, Mapping[int, int]] = {
    BuiltinOperator.TRANSPOSE: {5: 4, 6: 6},
    BuiltinOperator.SLICE: {5: 5},
    BuiltinOperator.STRIDED_SLICE: {5: 4},
    BuiltinOperator.PAD: {5: 4},
    BuiltinOperator.PADV2: {5: 4},
}


def lowest_version(code: int, first: TensorSpec, result: TensorSpec) -> int:
    """Return the version for an operator's first input and output; options may need a higher."""
    if code == BuiltinOperator.QUANTIZE:
        return 2 if result.dtype.name == "int16" else 1
    # What knows int16 codes has the version of int8 ones.
    dtype = {"int16": "int8"}.get(first.dtype.name, first.dtype.name)
    if (code, first.dtype.name) == (BuiltinOperator.LEAKY_RELU, "int16"):
        return 2
    by_rank = _OF_RANK.get(code, {}).get(len(first.shape), 1)
    return max(_OF_DTYPE.get(code, {}).get(dtype, 1), by_rank)
