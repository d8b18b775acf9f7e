"""How windows slide in TFLite: two modes of padding, and a PAD before where neither is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType, BuiltinOperator
from ai_edge_litert.schema_py_generated import Padding as WindowPadding

if TYPE_CHECKING:
    from models.graph import Op
    from models.window import Window
    from pipeline.formats.tflite.file_builder import Fields
    from pipeline.formats.tflite.step import Step

FUSED = {
    "none": ActivationFunctionType.NONE,
    "relu": ActivationFunctionType.RELU,
    "relu6": ActivationFunctionType.RELU6,
}


def fused(step: Step) -> Fields:
    """Return the field of an op's fused activation, a gate's relu6 among them."""
    act = "relu6" if step.op.name in step.writer.gates else step.op.act
    return (("FusedActivationFunction", FUSED[act]),)


def steps(mode: int, window: Window) -> Fields:
    """Return the fields of a window's padding mode and strides."""
    down, across = window.stride
    return ("Padding", mode), ("StrideW", across), ("StrideH", down)


def dilation(window: Window) -> Fields:
    """Return the fields of a dilation, whose default TFLite leaves out."""
    if window.dilation == (1, 1):
        return ()
    down, across = window.dilation
    return ("DilationWFactor", across), ("DilationHFactor", down)


def counts_unevenly(op: Op) -> bool:
    """Tell whether an average pool leaves out padding that no mode of TFLite leaves out."""
    _, height, width, _ = op.in_shapes[0]
    pool = op.attributes
    known = not any(pool.padding) or pool.padding == pool.same_padding(height, width)
    return not pool.count_padding and not known


def padded(step: Step, *, outside: float = 0.0, as_zeros: bool = False) -> tuple[int, int]:
    """Return (padding mode, tensor to read), behind a PAD where no mode gives the padding.

    Args:
        step: of an op with a window.
        outside: the value of the padding; -inf loses against every other.
        as_zeros: whether padding is values like others, so that SAME, which leaves it out of a
            pool, is another thing.
    """
    window: Window = step.op.attributes
    (source,) = step.inputs()
    _, height, width, channels = step.op.in_shapes[0]
    if window.padding == window.same_padding(height, width) and not as_zeros:
        return WindowPadding.SAME, source
    if not any(window.padding):
        return WindowPadding.VALID, source
    top, bottom, left, right = window.padding
    shape = (1, height + top + bottom, width + left + right, channels)
    result = step.temporary("pad", shape, like=source)
    table = step.ints((0, 0, top, bottom, left, right, 0, 0), (4, 2))
    if outside == 0:
        step.emit(BuiltinOperator.PAD, [source, table], result, ("Pad", ()))
        return WindowPadding.VALID, result
    below = filling(step, outside)
    step.emit(BuiltinOperator.PADV2, [source, table, below], result, ("PadV2", ()))
    return WindowPadding.VALID, result


def filling(step: Step, value: float) -> int:
    """Add the value of padding, as a tensor of its own, as what the op reads; -inf as the least."""
    own = f"{step.op.name}.{'lowest' if value == -np.inf else 'value'}"
    params = step.params(step.op.inputs[0])
    if params is None:
        return step.writer.constant(own, np.array(value, step.op.in_dtypes[0]))
    least = params.dequantize(np.array(params.limits[0]))
    real = least if value == -np.inf else np.array(value, np.float32)
    return step.writer.constant(own, real, params)
