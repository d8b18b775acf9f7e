"""Calls of the command line, in this process and in one of its own: what several tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.main import main

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "digits.toml"


def make_workplace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with devices of our own: one that answers, one that cannot."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("EDGEWRIGHT_STORE", raising=False)
    devices = folder / "config" / "devices"
    devices.mkdir(parents=True)
    (devices / "here.toml").write_text(f'extends = "local"\ndirectory = "{folder / "device"}"\n')
    (devices / "gone.toml").write_text('transport = "ssh"\naddress = "127.0.0.1"\nport = 1\n')
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(folder / "config"))


def run_ok(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    assert main([str(arg) for arg in args]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def said(capsys: pytest.CaptureFixture[str], code: int, *args: str | Path) -> tuple[str, str]:
    """Return what a command says on stdout and stderr; it ends with this code."""
    assert main([str(arg) for arg in args]) == code, capsys.readouterr().err
    shown = capsys.readouterr()
    return shown.out, shown.err


def refusal(capsys: pytest.CaptureFixture[str], code: int, *args: str | Path) -> str:
    """Return the one line that a failing command says."""
    assert main([str(arg) for arg in args]) == code
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edgewright")]
    notes = [line for line in said if "weights are random" in line]
    assert len(said) == 1 + len(notes)
    return said[-1]


def process(*args: str | Path, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline.cli.main", *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        command, text=True, env=environment, **options
    )
