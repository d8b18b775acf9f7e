"""One supernet, two devices, this computer and a virtual Raspberry Pi: two networks."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from models.network import Network
from tests.device_lab import add_profile

if TYPE_CHECKING:
    from scripts.lab.userland import Userland

pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny-ofa.toml"


def command(place: Path, *words: str) -> str:
    """Run `edgewright` with a store in a folder; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", *words, "--store", str(place / "store")],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def trainings(place: Path) -> int:
    with sqlite3.connect(place / "store" / "store.db") as database:
        kinds = "'supernet', 'train', 'proxy', 'finetune'"
        query = f"select count(*) from steps where kind in ({kinds})"  # noqa: S608 - no input
        (count,) = database.execute(query).fetchone()
    return int(count)


def test_each_device_gets_its_own_network_and_nothing_is_trained(
    tmp_path: Path, virtual_pi: Userland, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    add_profile(tmp_path / "config", "pi", virtual_pi)
    command(tmp_path, "search", str(RECIPE), "--device", "local")
    before = trainings(tmp_path)
    found = {}
    # A quarter of the time, by its own baseline, on the one as on the other.
    for device, ratio in (("local", "2.0"), ("pi", "0.5")):
        quick = ("--candidates", "60", "--measurements", "3", "--out", str(tmp_path / device))
        line = command(tmp_path, "specialise", "--device", device, "--target-ratio", ratio, *quick)
        assert f" ms on {device} (" in line
        assert "no training" in line
        assert (tmp_path / device / f"tiny-ofa-{device}.tflite").is_file()
        found[device] = Network.load(tmp_path / device / f"tiny-ofa-{device}.npz")
    assert trainings(tmp_path) == before
    assert found["local"].spec != found["pi"].spec
