"""How ONNX says each kind of op: one function a kind, found by look-up in `EMITTERS`.

Each appends nodes and returns what they give, before the fused activation; or, where an op moves
nothing, where its output lies already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.formats.onnx import (
    emit_activations,
    emit_arithmetic,
    emit_layers,
    emit_reducing,
    emit_shaping,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.graph import Op
    from pipeline.formats.onnx.places import Made, Place
    from pipeline.formats.onnx.write import Writer

EMITTERS: Mapping[str, Callable[[Writer, Op], Made | Place]] = {
    **emit_layers.EMITTERS,
    **emit_arithmetic.EMITTERS,
    **emit_reducing.EMITTERS,
    **emit_activations.EMITTERS,
    **emit_shaping.EMITTERS,
}
