"""Export: networks to files that runtimes load, and the check that they compute the same.

A format is one file in `formats/`. Writers work straight from the lowered graph; converters are
the reference they are tested against (docs/decisions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.recipe.plugins import PluginFolder

if TYPE_CHECKING:
    from pipeline.formats.api import Exporter

FORMATS = PluginFolder("pipeline.formats", "export format", folders=True)


def create(name: str) -> Exporter:
    """Return the exporter of a format, such as ``tflite`` or ``onnx``.

    Raises:
        ConfigError: no such format; lists the known ones.
    """
    exporter: Exporter = FORMATS.load(name)()
    return exporter
