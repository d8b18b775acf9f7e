"""Keras files and SavedModels, read by way of TensorFlow's converter in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.formats.keras.read import SUFFIXES, is_saved_model, read

if TYPE_CHECKING:
    from models.model import Model
    from pipeline.formats.api import ReadOptions, Unsupported


class Keras:
    """Reads .keras and .h5 files, and SavedModel folders."""

    name = "keras"
    suffixes = SUFFIXES

    def reads(self, source: str) -> bool:
        """Tell whether a text is the path of a SavedModel folder."""
        return is_saved_model(Path(source))

    def read(self, source: str, options: ReadOptions) -> Model | Unsupported:
        """Read a model into our graph (see `read.read`)."""
        return read(source, options)
