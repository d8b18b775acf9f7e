"""How TFLite says each kind of op: one function a kind, found by look-up in `EMITTERS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.formats.tflite.activations import ACTIVATIONS
from pipeline.formats.tflite.arithmetic import ARITHMETIC
from pipeline.formats.tflite.layers import LAYERS
from pipeline.formats.tflite.moving import MOVING
from pipeline.formats.tflite.reducing import REDUCING
from pipeline.formats.tflite.resizing import RESIZING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.tflite.step import Step

EMITTERS: Mapping[str, Callable[[Step], None]] = {
    **LAYERS,
    **ARITHMETIC,
    **ACTIVATIONS,
    **REDUCING,
    **MOVING,
    **RESIZING,
}
