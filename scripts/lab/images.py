"""Images of the virtual devices: built once, kept under a hash of all that goes into them.

The cache is `edgewright/lab` in $XDG_CACHE_HOME, else in ~/.cache. It is looked up when this module
is imported: tests move $XDG_CACHE_HOME to a folder of their own afterwards and still share images.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgewright" / "lab"
_LOCK_S = 900.0
_POLL_S = 0.5
_TAIL_CHARS = 2000


class LabError(RuntimeError):
    """A virtual device cannot be built or started; says what is missing and what to do."""


def need(*programs: str, packages: str) -> None:
    """Raise LabError when one of the programs is not installed."""
    missing = [name for name in programs if find(name) is None]
    if missing:
        raise LabError(f"{', '.join(missing)} not found; install it: apt-get install {packages}")


def find(program: str) -> str | None:
    """Return a program's path, looking where only root's PATH leads too."""
    root_only = "/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{root_only}")


def step(what: str, argv: list[str], *, timeout_s: float, folder: Path | None = None) -> str:
    """Run one step of a build and return its stdout; raises LabError with what it said."""
    argv = [find(argv[0]) or argv[0], *argv[1:]]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{what}: not done within {timeout_s:g} s; is the network slow?") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-_TAIL_CHARS:]
        raise LabError(f"{what}: {argv[0]} ended with {done.returncode}: {said}")
    return done.stdout


def built(name: str, content: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """Return the folder of an image, built by `build(folder)` when there is none of that content.

    A build appears whole or not at all; a second builder waits for the first.
    """
    there = _place(name, content)
    if there.is_dir():
        return there
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        _wait_for(lock.fileno(), name)
        if there.is_dir():
            return there
        for half in FOLDER.glob(f".{name}-*"):  # its builder was killed: we hold the lock
            shutil.rmtree(half, ignore_errors=True)
        print(f"Building the image {there.name}; this is done once ...", file=sys.stderr)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=FOLDER))
        unfinished.chmod(0o755)
        try:
            build(unfinished)
            unfinished.rename(there)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return there


def find_built(name: str, content: Mapping[str, Any]) -> Path | None:
    """Return the folder of an image of that content; None where it has not been built."""
    there = _place(name, content)
    return there if there.is_dir() else None


def _place(name: str, content: Mapping[str, Any]) -> Path:
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    return FOLDER / f"{name}-{key}"


def _wait_for(lock: int, name: str) -> None:
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise LabError(
                    f"another process has been building {name} for {_LOCK_S:g} s; end it, or "
                    f"remove {FOLDER}"
                ) from None
            time.sleep(_POLL_S)
        else:
            return
