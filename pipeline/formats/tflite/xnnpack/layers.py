"""Rules of layers: convolutions, dense layers, products of matrices, pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.formats.tflite.mediapipe import deconv_options
from pipeline.formats.tflite.xnnpack.view import (
    FLOATS,
    View,
    need,
    need_bias,
    need_same,
    need_shape,
    need_type,
    need_weight,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_SPARSE_VERSION = 8


def take_conv(view: View) -> None:
    """Check CONV_2D; int8 weights beside float32 maps are quantised while running."""
    options = view.options
    _need_steps(options)
    _need_layer(view, axis=0)
    source, weight = view.input(0), view.input(1)
    if (source.dtype, weight.dtype) != ("float32", "int8"):
        need_same(source, weight)
    need(source.shape[3] >= weight.shape[3], "it has no whole group")
    view.need_fused()


def take_depthwise(view: View) -> None:
    """Check DEPTHWISE_CONV_2D."""
    _need_layer(view, axis=3)
    need_same(view.input(0), view.input(1))
    options = view.options
    _need_steps(options)
    multiplier, channels = options.depthMultiplier, view.input(1).shape[3]
    need(multiplier > 0 and not channels % multiplier, f"its depth multiplier is {multiplier}")
    view.need_fused()


def take_deconv(view: View) -> None:
    """Check TRANSPOSE_CONV."""
    view.need_counts((3, 4))
    sizes = view.table(0, "output sizes", "int32")
    need(sizes.shape == (4,), "its output sizes are not four")
    weight, source = view.input(1), view.input(2)
    need_shape(weight, 4, 4)
    view.need_fixed(1, "weights")
    need_type(source, "float32", "q8")
    need_shape(source, 4, 4)
    need_weight(weight, 0)
    if view.has(3):
        need_bias(view, 1, 3)
        need_shape(view.input(3), 1, 1)
        view.need_fixed(3, "biases")
    need_type(view.output, "float32", "q8")
    need_shape(view.output, 4, 4)
    need(weight.shape[0] == sizes[3], "its weights give other channels than it says")
    need(weight.shape[3] == source.shape[3], "its weights take other channels than it is given")
    options = view.options
    for length, size, window, step in zip(
        source.shape[1:3],
        sizes[1:3],
        weight.shape[1:3],
        (options.strideH, options.strideW),
        strict=True,
    ):
        if options.padding:  # VALID
            need(window <= size, "its window is larger than its output")
        else:
            need(-(-size // step) == length, "its output size does not fit its input")
            need(window >= step, "its steps are wider than its window")
    view.need_fused()


def take_mediapipe_deconv(view: View) -> None:
    """Check Convolution2DTransposeBias."""
    view.need_counts((3,))
    source, weight, bias = view.input(0), view.input(1), view.input(2)
    for tensor, dims in ((source, 4), (weight, 4), (bias, 1), (view.output, 4)):
        need_type(tensor, "float32")
        need_shape(tensor, dims, dims)
    view.need_fixed(1, "weights")
    view.need_fixed(2, "biases")
    need(deconv_options(view.op.options or b"") is not None, "its options are not known")


def take_dense(view: View) -> None:
    """Check FULLY_CONNECTED; small weights beside float32 are computed with while running."""
    options = view.options
    need(view.op.version != _SPARSE_VERSION, "its weights are sparse")
    need(not options.weightsFormat, "its weights are shuffled")
    need(not options.quantSpec, "its quantisation is of a special kind")
    view.need_counts((2, 3))
    source, weight = view.input(0), view.input(1)
    need_type(source, "float32", "q8")
    need_shape(weight, 2, 2)
    _need_dense_weight(view)
    if view.has(2):
        need(view.input(2).elements == weight.shape[0], "its bias does not fit its weights")
        need_bias(view, 1, 2)
        view.need_fixed(2, "biases")
    need_type(view.output, "float32", "q8")
    need_same(source, view.output)
    small = weight.dtype in ("int8", "int4", "int2")
    if not (small and source.dtype in ("float32", "int8")):
        need_same(source, weight)
    if weight.dtype == "int8" and source.dtype != "float32" and len(weight.scales) == 1:
        need(not weight.zero_points[0], "the zero point of its weights is not 0")
    need(weight.dtype != "int4" or not weight.shape[1] % 2, "its input channels are odd")
    need(weight.dtype != "int2" or not weight.shape[1] % 4, "its input channels are no fours")
    view.need_fused()


def take_matmul(view: View) -> None:
    """Check BATCH_MATMUL."""
    left, right = view.input(0), view.input(1)
    need_type(left, "float32", "q8")
    last = len(right.shape) - (2 if view.options.adjY else 1)
    need_weight(right, last)
    dynamic = (left.dtype, right.dtype) == ("float32", "int8")
    if right.dtype == "int8" and not dynamic:
        need(not right.zero_points[0], "the zero point of its second input is not 0")
    need_type(view.output, "float32", "q8")
    if not dynamic:
        need_same(left, right)
        need(len(right.scales) <= 1, "its second input has a scale for each channel")
    for tensor in (left, right):
        need(len(tensor.shape) >= 2, "an input of it is no matrix")


def take_pool(*types: str) -> Callable[[View], None]:
    """Return the check of a pooling op that takes these types."""

    def rule(view: View) -> None:
        view.need_counts((1,))
        need_type(view.input(0), *types)
        need_type(view.output, *types)
        options = view.options
        window = options.filterHeight, options.filterWidth
        steps = options.strideH, options.strideW
        need(min(*window, *steps) > 0, "its window is empty")
        fits = all(step <= length for step, length in zip(steps, window, strict=True))
        need(fits, "its steps are wider than its window")
        view.need_fused()

    return rule


def _need_layer(view: View, *, axis: int) -> None:
    """Require what convolutions share: a map, constant weights and bias, a map of its type."""
    view.need_counts((3,))
    source, weight = view.input(0), view.input(1)
    need_type(source, "float32", "q8")
    need_shape(source, 4, 4)
    need_weight(weight, axis)
    need_shape(weight, 4, 4)
    if len(weight.scales) > 1:
        need(len(weight.scales) == weight.shape[axis], "its weights lack a scale for each channel")
    view.need_fixed(1, "weights")
    need(view.has(2), "it has no bias")
    need_bias(view, 1, 2)
    need_shape(view.input(2), 1, 1)
    view.need_fixed(2, "biases")
    need_type(view.output, "float32", "q8")
    need_shape(view.output, 4, 4)
    need_same(source, view.output)


def _need_dense_weight(view: View) -> None:
    weight = view.input(1)
    view.need_fixed(1, "weights")
    if weight.dtype in FLOATS:
        return
    if weight.dtype == "uint8":
        need_type(weight, "q8")
    need(weight.dtype in ("int8", "uint8", "int4", "int2"), f"its weights are {weight.dtype}")
    if not weight.blockwise:
        need(bool(weight.scales), "its weights have no scales")
        several = len(weight.scales) > 1
        need(not several or not weight.axis, f"scales of its weights run along axis {weight.axis}")
        each = len(weight.scales) == weight.shape[0]
        need(weight.dtype != "int2" or each, "its 2-bit weights lack a scale for each channel")


def _need_steps(options: Any) -> None:
    steps = (options.strideH, options.strideW, options.dilationHFactor, options.dilationWFactor)
    need(min(steps) > 0, "its steps are 0")
