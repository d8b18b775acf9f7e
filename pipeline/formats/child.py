"""Processes of Python that runtimes and converters are run in, so that they can die alone."""

from __future__ import annotations

import os
import sys


def environment() -> dict[str, str]:
    """Return the environment of a Python process that imports what this one can import."""
    paths = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109
    return {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}
