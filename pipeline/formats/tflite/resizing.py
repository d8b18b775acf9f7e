"""How TFLite says maps of another size: by one of its modes if it reads the same pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.schema_py_generated import BuiltinOperator

from models.ops.resizing import nearest_places
from pipeline.formats.tflite import versions
from pipeline.formats.tflite.moving import gather_along

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.ops import Resize
    from pipeline.formats.tflite.step import Step

_FIELDS: Mapping[str, tuple[tuple[str, int], ...]] = {
    "asymmetric": (),
    "align_corners": (("AlignCorners", 1),),
    "half_pixel": (("HalfPixelCenters", 1),),
}


def _resize(step: Step) -> None:
    resize: Resize = step.op.attributes
    if resize.mode == "bilinear":
        version = versions.CENTRED_RESIZE if resize.coordinates == "half_pixel" else 0
        options = ("ResizeBilinear", _FIELDS[resize.coordinates])
        inputs = [*step.inputs(), step.ints(resize.size)]
        step.finish(BuiltinOperator.RESIZE_BILINEAR, inputs, options, version=version)
        return
    sizes = [*zip(step.op.in_shapes[0][1:3], resize.size, strict=True)]
    wanted = [nearest_places(resize, size, out) for size, out in sizes]
    for mode, fields in _FIELDS.items():
        known = [_nearest(mode, size, out) for size, out in sizes]
        if all(map(np.array_equal, wanted, known)):
            version = versions.CENTRED_RESIZE if fields else 0
            options = ("ResizeNearestNeighbor", fields)
            inputs = [*step.inputs(), step.ints(resize.size)]
            code = BuiltinOperator.RESIZE_NEAREST_NEIGHBOR
            step.finish(code, inputs, options, version=version)
            return
    places = {
        axis: at.tolist()
        for axis, at, (size, _) in zip((1, 2), wanted, sizes, strict=True)
        if not np.array_equal(at, np.arange(size))
    }
    gather_along(step, step.input(0), places)


def _nearest(mode: str, size: int, out: int) -> np.ndarray:
    """Return the places that TFLite's kernel reads, in the float32 that it computes in."""
    at = np.arange(out, dtype=np.float32)
    corners = mode == "align_corners" and out > 1
    scale = np.float32(size - 1) / np.float32(out - 1) if corners else np.float32(size) / out
    at = (at + np.float32(0.5 if mode == "half_pixel" else 0)) * np.float32(scale)
    whole = np.floor(at + np.float32(0.5)) if mode == "align_corners" else np.floor(at)
    return whole.clip(0, size - 1).astype(int)


RESIZING: Mapping[str, Callable[[Step], None]] = {"resize": _resize}
