"""An environment for one library: made once in the user's cache, and run with limits."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

INSTALL_TIMEOUT_S = 1800.0
RUN_TIMEOUT_S = 1800.0
MEMORY_BYTES = 16 << 30
_DONE = "edgewright-complete"
_SAID = 300


@dataclass(frozen=True, slots=True)
class Library:
    """A library that is run in an environment of its own.

    Attributes:
        name: as people call it.
        requirements: for pip, one step after the other: later ones find earlier ones installed.
        megabytes: what the environment takes on disk, about.
    """

    name: str
    requirements: tuple[tuple[str, ...], ...]
    megabytes: int

    @property
    def folder(self) -> Path:
        """Where its environment is: another one for other requirements or another Python."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        what = json.dumps([self.requirements, sys.version_info[:2]])
        digest = hashlib.sha256(what.encode()).hexdigest()[:8]
        return cache / "edgewright" / "libraries" / f"{self.name}-{digest}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def is_installed(self) -> bool:
        """Whether its environment is whole."""
        return (self.folder / _DONE).is_file()


def install(library: Library, tell: Callable[[str], None]) -> None:
    """Make the library's environment unless it is there; `tell` is told before that is begun.

    Two processes that want it make it once.

    Raises:
        ConfigError: it cannot be made; says why and how to go on.
    """
    if library.is_installed:
        return
    folder = library.folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock")):
            if library.is_installed:
                return
            tell(
                f"installing {library.name} into {folder}, about {library.megabytes} MB, once; "
                "delete the folder to have it gone"
            )
            _pip([sys.executable, "-m", "venv", "--clear", str(folder)], library)
            for step in library.requirements:
                argv = [str(library.python), "-m", "pip", "install", "--quiet", *step]
                _pip(argv, library)
            (folder / _DONE).write_text(json.dumps(library.requirements))
    except OSError as error:
        raise ConfigError(
            f"cannot install {library.name} into {folder}: {error.strerror or error}"
        ) from error


def run_script(
    library: Library | None,
    script: Path,
    arguments: Sequence[str],
    *,
    what: str,
    timeout_s: float = RUN_TIMEOUT_S,
    memory_bytes: int = MEMORY_BYTES,
) -> None:
    """Run a script of ours in a library's environment and in a process of its own.

    Args:
        library: whose interpreter runs it; None for this one.
        script: its path; it prints {"error": sentence} and ends with another code than 0 if it
            cannot do it.
        arguments: of the script.
        what: the sentences begin with, such as "ai-edge-quantizer cannot quantize net.tflite".
        timeout_s: deadline.
        memory_bytes: limit of its address space.

    Raises:
        ConfigError: it said why not, crashed, or did not end.
    """
    python = sys.executable if library is None else str(library.python)
    limited = (
        f"import runpy, sys; {_limits(memory_bytes)}; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONNOUSERSITE": "1"}
    environment.pop("PYTHONPATH", None)
    argv = [python, "-c", limited, str(script), *arguments]
    done = _run(argv, what, timeout_s, environment=environment)
    if done.returncode:
        raise ConfigError(f"{what}: {_why(done)}")


def run_program(
    argv: Sequence[str],
    *,
    what: str,
    folder: Path,
    timeout_s: float = RUN_TIMEOUT_S,
    memory_bytes: int = MEMORY_BYTES,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program that the user has installed, with the limits of `run_script`.

    Args:
        argv: the program's path and its arguments.
        what: the sentences begin with.
        folder: to run it in.
        timeout_s: deadline.
        memory_bytes: limit of its address space.

    Returns:
        How it ended and what it printed.

    Raises:
        ConfigError: it did not end.
    """
    limited = f"import os, sys; {_limits(memory_bytes)}; os.execv(sys.argv[1], sys.argv[1:])"
    return _run([sys.executable, "-c", limited, *argv], what, timeout_s, folder=folder)


def _limits(memory_bytes: int) -> str:
    return (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({memory_bytes},) * 2); "
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
    )


def _run(
    argv: Sequence[str],
    what: str,
    timeout_s: float,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a process in a session of its own, so that its children end with it at the deadline."""
    with subprocess.Popen(
        argv,
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise ConfigError(f"{what}: it did not end within {timeout_s:g} s") from None
            raise
    return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)


def _why(done: subprocess.CompletedProcess[bytes]) -> str:
    for line in reversed(done.stdout.decode(errors="replace").splitlines()):
        try:
            return str(json.loads(line)["error"])[:_SAID]
        except (LookupError, TypeError, ValueError):
            continue
    if done.returncode < 0:
        try:
            return f"its process died with {signal.Signals(-done.returncode).name}"
        except ValueError:
            return f"its process died with signal {-done.returncode}"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:_SAID] if lines else f"its process ended with code {done.returncode}"


def _pip(argv: Sequence[str], library: Library) -> None:
    try:
        done = subprocess.run(
            argv, capture_output=True, timeout=INSTALL_TIMEOUT_S, check=False, text=True
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{library.name} was not installed within {INSTALL_TIMEOUT_S:g} s; try again"
        ) from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        said = (lines or done.stderr.strip().splitlines() or ["pip did not say why"])[-1]
        raise ConfigError(
            f"{library.name} cannot be installed into {library.folder} ({said[:_SAID]}); it needs "
            "pip to reach its package index"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
