"""File formats: models to files that runtimes load, and the check that they compute the same.

A format is one folder here: with a module `write` it is one that models are written in, with a
module `read` one that users bring models in (`pipeline.formats.source`). Writers work straight
from a model's graph; converters are the reference that they are tested against (docs/decisions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.recipe.plugins import PluginFolder

if TYPE_CHECKING:
    from pipeline.formats.api import Format

FORMATS = PluginFolder("pipeline.formats", "export format", folders=True, holding="write")
READERS = PluginFolder("pipeline.formats", "model format", folders=True, holding="read")


def create(name: str) -> Format:
    """Return a format, such as ``tflite`` or ``onnx``.

    Raises:
        ConfigError: no such format; lists the known ones.
    """
    found: Format = FORMATS.load(name)()
    return found
