"""Operators that broadcast, within the number of axes that their kernels know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.schema_py_generated import BuiltinOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from models.ops import Shape
    from pipeline.formats.tflite.file_builder import Options
    from pipeline.formats.tflite.step import Step

_MOST_AXES = {BuiltinOperator.ADD: 6, BuiltinOperator.MUL: 6}
_USUAL_AXES = 4
"""What kernels of tflite-runtime 2.14 broadcast over, where it is not said otherwise."""


def finish_broadcast(
    step: Step,
    code: int,
    inputs: Sequence[int],
    options: Options | None = None,
    *,
    version: int = 0,
) -> None:
    """Emit an operator that broadcasts its inputs and gives the op's output.

    Where they have more axes than its kernel knows, neighbours that broadcast alike become one
    axis around it.

    Raises:
        ExportError: even so there are too many.
    """
    file, target = step.writer.file, step.op.out_shape
    shapes = [file.tensors[tensor].shape for tensor in inputs]
    most = _MOST_AXES.get(code, _USUAL_AXES)
    if len(target) <= most or all(shape == target for shape in shapes):
        step.finish(code, inputs, options, version=version)
        return
    merged = merge_axes(shapes)
    if len(merged[0]) > most:
        raise step.refuse(f"broadcasts {' and '.join(map(str, shapes))} over more than {most} axes")
    read = [
        reshape(step, tensor, shape, f"merged.{place}")
        for place, (tensor, shape) in enumerate(zip(inputs, merged, strict=True))
    ]
    shape = tuple(map(max, zip(*merged, strict=True)))
    coded = step.params(step.op.name)
    dtype: npt.DTypeLike = np.float32 if coded is not None else step.op.out_dtype
    result = step.temporary("merged", shape, params=coded, dtype=dtype)
    step.emit(code, read, result, options, version=version)
    step.finish(BuiltinOperator.RESHAPE, [result, step.ints(target)])


def merge_axes(shapes: Sequence[Shape]) -> list[Shape]:
    """Return shapes that broadcast as these do, with as few axes as may be."""
    groups: list[list[int]] = []
    before: tuple[bool, ...] | None = None
    whole = tuple(map(max, zip(*shapes, strict=True)))
    for sizes, widest in zip(zip(*shapes, strict=True), whole, strict=True):
        if widest == 1:
            continue
        single = tuple(size == 1 for size in sizes)
        if single == before:
            groups[-1] = [product * size for product, size in zip(groups[-1], sizes, strict=True)]
        else:
            groups.append(list(sizes))
        before = single
    if not groups:
        return [(1,)] * len(shapes)
    return [tuple(shape) for shape in zip(*groups, strict=True)]


def reshape(step: Step, tensor: int, shape: Shape, suffix: str) -> int:
    """Return a tensor in another shape, itself if it has that."""
    if step.writer.file.tensors[tensor].shape == shape:
        return tensor
    return step.apply(BuiltinOperator.RESHAPE, [tensor, step.ints(shape)], suffix, shape)
