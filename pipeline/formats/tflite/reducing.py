"""How TFLite says ops that make one value of many: pools, reductions and normalisations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType, BuiltinOperator
from ai_edge_litert.schema_py_generated import Padding as WindowPadding

from pipeline.formats.api import ExportError
from pipeline.formats.tflite.file_builder import type_code
from pipeline.formats.tflite.integer_kernels import is_plain_l2norm
from pipeline.formats.tflite.windows import counts_unevenly, fused, padded, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.ops import Arg, AvgPool, L2Norm, LayerNorm, Mean, Reduce
    from models.window import Window
    from pipeline.formats.tflite.file_builder import Fields
    from pipeline.formats.tflite.step import Step

_NO_ACTIVATION = (("FusedActivationFunction", ActivationFunctionType.NONE),)
_MUL, _ADD, _SUB = (("Mul", _NO_ACTIVATION), ("Add", _NO_ACTIVATION), ("Sub", _NO_ACTIVATION))


def _mean(step: Step) -> None:
    mean: Mean = step.op.attributes
    inputs = [*step.inputs(), step.ints((1, 2))]
    step.finish(BuiltinOperator.MEAN, inputs, _keeping(keepdims=mean.keepdims))


def _keeping(*, keepdims: bool) -> tuple[str, Fields]:
    return ("Reducer", (("KeepDims", int(keepdims)),))


def _maxpool(step: Step) -> None:
    window: Window = step.op.attributes
    _check_dilation(step, "max")
    # Zeros lose as well where nothing is negative, and PAD is delegated where PADV2 is not.
    mode, source = padded(step, outside=0 if step.reads_nonnegative() else -np.inf)
    step.finish(BuiltinOperator.MAX_POOL_2D, [source], _pool(mode, window))


def _check_dilation(step: Step, which: str) -> None:
    window: Window = step.op.attributes
    if window.dilation != (1, 1):
        raise ExportError(
            f"op {step.op.name!r} is a {which} pool with dilation {window.dilation}, which TFLite "
            "cannot express; it knows (1, 1)"
        )


def _pool(mode: int, window: Window, act: Fields = ()) -> tuple[str, Fields]:
    height, width = window.kernel
    return "Pool2D", (*steps(mode, window), ("FilterWidth", width), ("FilterHeight", height), *act)


def _avgpool(step: Step) -> None:
    pool: AvgPool = step.op.attributes
    _check_dilation(step, "average")
    uneven, code = counts_unevenly(step.op), BuiltinOperator.AVERAGE_POOL_2D
    mode, source = padded(step, as_zeros=pool.count_padding or uneven)
    if not uneven:
        act = fused(step) if step.op.act != "none" else ()
        step.finish(code, [source], _pool(mode, pool, act))
        return
    # The zeros of a PAD counted as values: each mean is to be that of the values alone.
    shape = step.op.out_shape
    mean = step.apply(code, [source], "mean", shape, _pool(WindowPadding.VALID, pool))
    ones = np.ones((1, *step.op.in_shapes[0][1:3], 1), np.float32)
    values = sum(read for _, _, read in pool.over(ones, 0))
    area = pool.kernel[0] * pool.kernel[1]
    factor = step.writer.constant(f"{step.op.name}.factor", np.asarray(area / values, np.float32))
    step.finish(BuiltinOperator.MUL, [mean, factor], ("Mul", fused(step)))


_REDUCTIONS = {
    "mean": BuiltinOperator.MEAN,
    "sum": BuiltinOperator.SUM,
    "max": BuiltinOperator.REDUCE_MAX,
    "min": BuiltinOperator.REDUCE_MIN,
    "prod": BuiltinOperator.REDUCE_PROD,
    "any": BuiltinOperator.REDUCE_ANY,
    "all": BuiltinOperator.REDUCE_ALL,
}


def _reduce(step: Step) -> None:
    reduce: Reduce = step.op.attributes
    if not reduce.axes:
        step.finish(BuiltinOperator.RESHAPE, [*step.inputs(), step.ints(step.op.out_shape)])
        return
    inputs = [*step.inputs(), step.ints(reduce.axes)]
    step.finish(_REDUCTIONS[reduce.function], inputs, _keeping(keepdims=reduce.keepdims))


def _argmax(step: Step) -> None:
    arg: Arg = step.op.attributes
    if step.op.in_dtypes[0] == "int64":
        raise step.refuse(f"is the {arg.function} of int64")
    (x,), shape = step.inputs(), step.op.in_shapes[0]
    inputs = [x, step.ints((arg.axis,), ())]
    largest = arg.function == "argmax"
    code = BuiltinOperator.ARG_MAX if largest else BuiltinOperator.ARG_MIN
    fields = (("OutputType", type_code(arg.dtype)),)
    options = ("ArgMax" if largest else "ArgMin", fields)
    if not arg.keepdims:
        step.finish(code, inputs, options)
        return
    left = tuple(size for axis, size in enumerate(shape) if axis != arg.axis)
    places = step.temporary("places", left, dtype=arg.dtype)
    step.emit(code, inputs, places, options)
    step.finish(BuiltinOperator.RESHAPE, [places, step.ints(step.op.out_shape)])


def _layernorm(step: Step) -> None:
    norm: LayerNorm = step.op.attributes
    (x, scale, shift), shape = step.inputs(), step.op.in_shapes[0]
    axes = tuple(range(len(shape) - norm.axes_count, len(shape)))
    mean = _over(step, BuiltinOperator.MEAN, x, axes, "mean")
    centred = step.apply(BuiltinOperator.SUB, [x, mean], "centred", shape, _SUB)
    squares = step.apply(BuiltinOperator.MUL, [centred, centred], "squares", shape, _MUL)
    variance = _over(step, BuiltinOperator.MEAN, squares, axes, "variance")
    few = step.writer.file.tensors[variance].shape
    inputs = [variance, step.number(norm.epsilon)]
    above = step.apply(BuiltinOperator.ADD, inputs, "above", few, _ADD)
    inverse = step.apply(BuiltinOperator.RSQRT, [above], "inverse", few)
    normal = step.apply(BuiltinOperator.MUL, [centred, inverse], "normal", shape, _MUL)
    scaled = step.apply(BuiltinOperator.MUL, [normal, scale], "scaled", shape, _MUL)
    step.finish(BuiltinOperator.ADD, [scaled, shift], _ADD)


def _over(step: Step, code: int, x: int, axes: Sequence[int], suffix: str) -> int:
    """Emit a reduction that keeps its axes; return its result."""
    shape = step.writer.file.tensors[x].shape
    few = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return step.apply(code, [x, step.ints(axes)], suffix, few, _keeping(keepdims=True))


def _l2norm(step: Step) -> None:
    norm: L2Norm = step.op.attributes
    (x,), shape = step.inputs(), step.op.in_shapes[0]
    if is_plain_l2norm(step.op):
        options = ("L2Norm", _NO_ACTIVATION)
        step.finish(BuiltinOperator.L2_NORMALIZATION, [x], options)
        return
    squares = step.apply(BuiltinOperator.MUL, [x, x], "squares", shape, _MUL)
    total = _over(step, BuiltinOperator.SUM, squares, (norm.axis,), "sum")
    few = step.writer.file.tensors[total].shape
    inputs = [total, step.number(norm.epsilon)]
    above = step.apply(BuiltinOperator.MAXIMUM, inputs, "above", few)
    inverse = step.apply(BuiltinOperator.RSQRT, [above], "inverse", few)
    step.finish(BuiltinOperator.MUL, [x, inverse], _MUL)


REDUCING: Mapping[str, Callable[[Step], None]] = {
    "mean": _mean,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "reduce": _reduce,
    "argmax": _argmax,
    "layernorm": _layernorm,
    "l2norm": _l2norm,
}
