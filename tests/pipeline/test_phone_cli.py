"""A phone from `device add` to a figure, as a user types it, through the real adb.

The phone is the lab's double; its benchmark_model is the lab's stand-in, which times the model with
the real runtime.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.cli.main import main
from scripts.lab.adb_device import Looks
from tests import lab_adb
from tests.tiny_models import tflite_conv

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.lab.adb_device import AdbDevice

STAND_IN = Path(__file__).parents[2] / "scripts" / "lab" / "benchmark_model"


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def phone(looks: Looks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbDevice]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "config"))
    folder = tmp_path / "adb"
    folder.mkdir()
    with lab_adb.phone(folder, looks) as (server, made):
        # What the real client reads for its server's port.
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
        yield made


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    path = tmp_path / "benchmark_model"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
    path.chmod(0o755)
    return path


def test_from_add_to_a_figure(
    phone: AdbDevice, binary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["device", "add", "phone", f"adb:{phone.serial}"]) == 0
    assert "phone" in capsys.readouterr().out

    main(["device", "doctor", "phone", "--json"])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["link"]["status"] == "ok"

    model = tflite_conv(tmp_path / "net.tflite", size=64, channels=32, depth=3)
    bench = ["bench", str(model), "--device", "phone", "--binary", str(binary)]
    assert main([*bench, "--protocol", "quick", "--json"]) == 0
    figure = json.loads(capsys.readouterr().out)
    assert figure["median_ms"] > 0
    assert (figure["runtime"], figure["delegate"]) == ("benchmark_model", "XNNPACK")
    assert len(figure["binary_sha256"]) == 64
    assert figure["before"]["battery_percent"] is not None

    assert main(["device", "remove", "phone"]) == 0
    assert not list(phone.sandbox.root.glob("data/local/tmp/*"))


@pytest.mark.parametrize("looks", [Looks(state="unauthorized")])
def test_a_locked_phone_gives_one_sentence(
    phone: AdbDevice, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tflite_conv(tmp_path / "net.tflite")
    assert main(["device", "add", "phone", f"adb:{phone.serial}"]) == 3
    sentence = capsys.readouterr().err
    assert len(sentence.splitlines()) == 1
    assert "accept `Allow USB debugging?`" in sentence
    assert main(["bench", str(model), "--device", "phone"]) == 2
    assert "no device 'phone' known" in capsys.readouterr().err
