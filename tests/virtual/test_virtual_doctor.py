"""Doctor and setup on virtual Raspberry Pis: healthy, hot, under-volted, 32-bit, unprepared."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from scripts.lab import aarch64
from tests.device_lab import add_profile, started

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.lab.userland import Userland

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a user's configuration folder of this test's own."""
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


def edgewright(*args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pipeline.cli.main", *args]
    return subprocess.run(argv, capture_output=True, text=True, timeout=400, check=False)


def doctor(name: str) -> tuple[int, dict[str, Any], dict[str, dict[str, str]]]:
    """Return the exit code, the answer, and its checks by name."""
    done = edgewright("device", "doctor", name, "--json")
    assert done.stdout, done.stderr
    answer = json.loads(done.stdout)
    return done.returncode, answer, {check["name"]: check for check in answer["checks"]}


def test_a_healthy_board(config: Path, virtual_pi: Userland) -> None:
    add_profile(config, "pi", virtual_pi)
    code, answer, checks = doctor("pi")
    assert code == 0
    assert answer["healthy"]
    assert answer["board"] == "Raspberry Pi 4 Model B Rev 1.4"
    # Other load is the host's, which nobody promised to keep idle.
    wrong = [c for c in checks.values() if c["status"] != "ok" and c["name"] != "load"]
    assert not wrong
    assert "64-bit" in checks["system"]["found"]
    assert "48.3" in checks["temperature"]["found"]
    assert "ai_edge_litert" in checks["runtime"]["found"]


def test_an_overheated_board(config: Path, virtual_pi: Userland) -> None:
    add_profile(config, "pi", virtual_pi)
    virtual_pi.sensors(temp_celsius=82.5, throttled=0xE0008, clock_khz=1_000_000)
    code, answer, checks = doctor("pi")
    assert code == 3
    assert not answer["healthy"]
    assert checks["temperature"]["status"] == "fail"
    assert "82.5" in checks["temperature"]["found"]
    assert "cool it" in checks["temperature"]["advice"]
    assert checks["throttling"]["status"] == "fail"
    assert "cool it" in checks["throttling"]["advice"]
    assert checks["power supply"]["status"] == "ok"


def test_an_under_volted_board(config: Path, virtual_pi: Userland) -> None:
    """Its flags say throttled as well, and at this temperature that is not from heat."""
    add_profile(config, "pi", virtual_pi)
    virtual_pi.sensors(temp_celsius=39.7, throttled=0x50005, clock_khz=600_000)
    code, _answer, checks = doctor("pi")
    assert code == 3
    assert checks["temperature"]["status"] == "ok"
    assert checks["power supply"]["status"] == "fail"
    assert "under-voltage now" in checks["power supply"]["found"]
    assert "change the power supply or its cable" in checks["power supply"]["advice"]
    assert "not from heat" in checks["throttling"]["advice"]


def test_a_32_bit_board(config: Path, virtual_pi_32: Userland) -> None:
    add_profile(config, "pi32", virtual_pi_32)
    _code, answer, checks = doctor("pi32")
    assert answer["board"].startswith("Raspberry Pi 3 Model B Plus")
    assert checks["system"]["status"] == "warn"
    assert re.search("32-bit userland.*have no wheels", checks["system"]["found"])
    assert "--runtime tflite" in checks["system"]["advice"]
    assert "tflite_runtime 2.14.0" in checks["runtime"]["found"]


def test_a_runtime_without_a_wheel_is_one_sentence(config: Path, virtual_pi_32: Userland) -> None:
    add_profile(config, "pi32", virtual_pi_32)
    done = edgewright("device", "setup", "pi32", "--runtime", "onnx")
    assert done.returncode == 3
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("edgewright: there is no onnx wheel for Python 3.11 on armv7l, 32-bit")
    assert "install the 64-bit system" in last
    assert "Traceback" not in done.stderr


def test_setup_on_a_board_that_nobody_prepared(
    config: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Wheels chosen by the host and pushed; afterwards nothing is left behind."""
    folder = tmp_path_factory.mktemp("bare")
    with started(aarch64.running(folder, runtime="")) as device:
        add_profile(config, "bare", device)
        before = device.run("find", "/home/pi", "-not", "-path", "*/.cache*")
        code, _answer, checks = doctor("bare")
        assert code == 3
        assert checks["runtime"]["status"] == "fail"
        assert "edgewright device setup bare" in checks["runtime"]["advice"]
        done = edgewright("device", "setup", "bare")
        assert done.returncode == 0, done.stderr
        assert "ai_edge_litert 2." in done.stdout
        code, _answer, checks = doctor("bare")
        assert code == 0
        assert checks["runtime"]["status"] == "ok"
        removed = edgewright("device", "remove", "bare")
        assert removed.returncode == 0, removed.stderr
        assert device.run("find", "/home/pi", "-not", "-path", "*/.cache") == before
