"""File formats: models to files that runtimes load, and the check that they compute the same.

A format is one folder here. Writers work straight from a model's graph; converters are the
reference that they are tested against (docs/decisions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.recipe.plugins import PluginFolder

if TYPE_CHECKING:
    from pipeline.formats.api import Format

FORMATS = PluginFolder("pipeline.formats", "export format", folders=True)


def create(name: str) -> Format:
    """Return a format, such as ``tflite`` or ``onnx``.

    Raises:
        ConfigError: no such format; lists the known ones.
    """
    found: Format = FORMATS.load(name)()
    return found
