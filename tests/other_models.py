"""Models of other people for tests, which are skipped where they cannot be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

# Imported with the test file, before tests move the cache (see `scripts.lab.images`).
from scripts import other_models

if TYPE_CHECKING:
    from pathlib import Path

NAMES = tuple(other_models.MODELS)
"""Names that `need` takes, such as ``basic-pitch.onnx``: see `scripts.other_models.MODELS`."""


def need(name: str) -> Path:
    """Return the path of a model, to be read in place; skip the test where it cannot be had."""
    try:
        return other_models.fetch(name)
    except other_models.Unavailable as error:
        pytest.skip(str(error))
