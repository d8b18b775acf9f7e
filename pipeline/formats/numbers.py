"""With what numbers does a file compute? That decides how near its outputs must be anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_agents import bounded
from device_agents.model_files import what_is
from pipeline.formats import FORMATS, create

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.formats.api import Numbers


def numbers_of(path: Path) -> Numbers:
    """Return the coarsest numbers that a file computes with; integers for one that is not read."""
    try:
        kind, content = what_is(path), bounded.read_bytes(path)
        if kind.name not in FORMATS.names():
            return "integers"
        return create(kind.name).read_numbers(content)
    except Exception:  # noqa: BLE001  # parsers of damaged files raise anything; the runtime judges
        return "integers"
