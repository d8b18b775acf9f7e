"""Processes of Python that runtimes, converters and users' code run in, so that they can die alone.

One that is asked a question is given a folder: with the request and whatever else it needs, and
for its reply and whatever it makes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError, EdgewrightError
from device_agents.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LIMIT_BYTES = 16 << 30
"""Of the address space of a process that is asked: what torch or TensorFlow take, and a model."""

_REQUEST, _REPLY = "request.json", "reply.json"


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


def ask(
    module: str, request: Mapping[str, Any], folder: Path, *, subject: str, timeout_s: float
) -> dict[str, Any]:
    """Have a module of ours answer a request in a process of its own (see `serve`).

    Args:
        module: its dotted name; it calls `serve` where it is run.
        request: plain JSON values.
        folder: of request and reply.
        subject: what is read, for sentences.
        timeout_s: deadline of the process.

    Raises:
        ConfigError: the module's own sentence; or the process died or did not end in time.
    """
    (folder / _REQUEST).write_text(json.dumps(request))
    # -P: the folder that the user is in may hold a pipeline.py.
    argv = [sys.executable, "-P", "-m", module, str(folder)]
    try:
        done = subprocess.run(
            argv, env=environment(), capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{subject} was not read within {timeout_s:g} s") from None
    if done.returncode or not (folder / _REPLY).is_file():
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        said = f": {plain(lines[-1], limit=300)}" if lines else ""
        raise ConfigError(f"the process that read {subject} {describe_end(done.returncode)}{said}")
    reply: dict[str, Any] = json.loads((folder / _REPLY).read_text())
    if "error" in reply:
        raise ConfigError(reply["error"])
    return reply


def serve(argv: Sequence[str], answer: Callable[[dict[str, Any], Path], dict[str, Any]]) -> int:
    """Be the process that is asked: `answer` takes the request and the folder, and replies."""
    folder = Path(argv[0])
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request = json.loads((folder / _REQUEST).read_text())
    try:
        reply = answer(request, folder)
    except EdgewrightError as error:
        reply = {"error": str(error)}
    except MemoryError:
        reply = {"error": f"more than {LIMIT_BYTES >> 30} GiB of memory are needed to read it"}
    (folder / _REPLY).write_text(json.dumps(reply))
    return 0
