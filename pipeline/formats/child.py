"""Processes of Python that runtimes and converters are run in, so that they can die alone."""

from __future__ import annotations

import os
import signal
import sys


def environment() -> dict[str, str]:
    """Return the environment of a Python process that imports what this one can import."""
    paths = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109
    return {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}


def describe_end(returncode: int) -> str:
    """Return how a process ended that left no answer, as the end of a sentence."""
    if returncode >= 0:
        return f"ended with code {returncode}"
    try:
        return f"died with {signal.Signals(-returncode).name}"
    except ValueError:
        return f"died with signal {-returncode}"
