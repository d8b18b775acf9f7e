"""Runs of the command `edgewright` for `bench_import`: what they said, took and needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.figures import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEVICE = "here"
"""This computer as a device whose folder goes with the run; see `add_device`."""

_TIMEOUT_S = 900.0
_POLL_S = 0.05
_MODULE = "pipeline.cli.main"


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended.

    Attributes:
        code: its exit status; negative for the signal that ended it.
        out: its stdout.
        said: the last line of its stderr: where it failed, the sentence that says why.
        wall_s: from its start to its end.
        processor_s: of it and of the processes that it waited for.
        peak_bytes: the most memory that one of these held.
    """

    code: int
    out: str
    said: str
    wall_s: float
    processor_s: float
    peak_bytes: int

    @property
    def json(self) -> Any:
        """Its stdout as JSON."""
        return json.loads(self.out)


def add_device(folder: Path) -> Path:
    """Write the profile of `DEVICE` below a folder; return the configuration that knows it."""
    devices = folder / "config" / "devices"
    devices.mkdir(parents=True, exist_ok=True)
    (devices / f"{DEVICE}.toml").write_text(
        f'extends = "local"\ndirectory = "{folder / "device"}"\n', encoding="utf-8"
    )
    return devices.parent


def run(*args: str | Path, config: Path | None = None, timeout_s: float = _TIMEOUT_S) -> Done:
    """Run one command of edgewright in a process of its own; `config` is of `add_device`."""
    argv = [sys.executable, "-m", _MODULE, *map(str, args)]
    more = {} if config is None else {"EDGEWRIGHT_CONFIG": str(config)}
    return run_program(argv, more=more, timeout_s=timeout_s)


def run_program(
    argv: list[str],
    *,
    folder: Path = ROOT,
    more: Mapping[str, str] | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> Done:
    """Run a program and measure it; one that does not end in time is killed.

    `more` goes into its environment.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(argv, stdout=out, stderr=err, cwd=folder, env=_environment(more))
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            if time.perf_counter() - start > timeout_s:
                process.kill()
            time.sleep(_POLL_S)
        wall_s, usage = time.perf_counter() - start, ended[2]
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    lines = [line for line in texts[1].splitlines() if line.strip()]
    return Done(
        code=process.returncode,
        out=texts[0],
        said=lines[-1].removeprefix("edgewright: ") if lines else "",
        wall_s=wall_s,
        processor_s=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * 1024,
    )


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **quiet, **(more or {})}
