"""The doctor over real SSH on four virtual Raspberry Pis: their /proc, /sys and tools are fakes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.care import doctor
from tests.fake_pi import FakePi

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agents.care.diagnosis import Check, Diagnosis
    from tests import lab

Examined = dict[str, "Check"]


@pytest.fixture
def examined(server: lab.LoopbackSsh, tmp_path: Path) -> Callable[..., tuple[Diagnosis, Examined]]:
    def look(pi: FakePi, **changes: Any) -> tuple[Diagnosis, Examined]:
        limits = {
            "thermal_limit_celsius": 75.0,
            "cool_celsius": 55.0,
            "nominal_clock_khz": 1_500_000,
        }
        profile = server.profile(tmp_path / "device", **{**limits, **changes})
        diagnosis = doctor.examine(profile, root=str(pi.write(tmp_path / "root")))
        return diagnosis, {check.name: check for check in diagnosis.checks}

    return look


def worrying(found: Examined) -> set[str]:
    """Return what is wrong, but for what this shared machine does to every test."""
    return {name for name, check in found.items() if check.status in ("warn", "fail")} - {"link"}


def test_healthy(examined: Callable[..., tuple[Diagnosis, Examined]]) -> None:
    diagnosis, found = examined(FakePi())
    assert diagnosis.board == "Raspberry Pi 4 Model B Rev 1.5"
    assert diagnosis.healthy
    assert worrying(found) == set()
    assert found["temperature"].found == "41.9 °C"
    assert found["clock"].found == "1500 MHz at load of 1500 MHz"
    assert found["host key"].status == found["login"].status == "ok"
    assert "ai_edge_litert" in found["runtime"].found
    assert not any(check.advice for check in diagnosis.checks if check.status == "ok")


def test_overheated(examined: Callable[..., tuple[Diagnosis, Examined]]) -> None:
    hot = FakePi(celsius=80.6, throttled="throttled=0x60002", clock_hz=1_141_118_000)
    diagnosis, found = examined(hot)
    assert not diagnosis.healthy
    assert worrying(found) == {"temperature", "throttling", "clock"}
    assert found["temperature"].found == "80.6 °C, the limit is 75 °C"
    assert found["temperature"].advice.startswith("cool it: a heat sink or a fan")
    assert found["throttling"].found == "clock capped now at 80.6 °C (flags 0x60002)"
    assert found["throttling"].advice.startswith("cool it")
    assert found["clock"].found == "1141 MHz at load instead of 1500 MHz"
    assert found["power supply"].status == "ok"


def test_under_volted(examined: Callable[..., tuple[Diagnosis, Examined]]) -> None:
    weak = FakePi(celsius=39.7, throttled="throttled=0x50005", clock_hz=600_117_184)
    diagnosis, found = examined(weak)
    assert not diagnosis.healthy
    assert worrying(found) == {"power supply", "throttling", "clock"}
    assert found["power supply"].found == "under-voltage now (flags 0x50005)"
    assert found["power supply"].advice.startswith("change the power supply or its cable")
    assert "not from heat" in found["throttling"].advice
    assert "cool it" not in found["throttling"].advice
    assert found["temperature"].status == "ok"


def test_32_bit(examined: Callable[..., tuple[Diagnosis, Examined]], bare_python: str) -> None:
    diagnosis, found = examined(FakePi(bits=32), python=bare_python)
    assert not diagnosis.healthy
    assert worrying(found) == {"system", "runtime"}
    assert found["system"].found.startswith("32-bit userland on a 64-bit kernel")
    assert "edgewright device setup lab --runtime tflite" in found["system"].advice
    assert "install the 64-bit system" in found["system"].advice
    assert "has no tflite runtime" in found["runtime"].found
    assert found["runtime"].advice == "run `edgewright device setup lab`"


def test_broken_python_leaves_the_other_checks(
    examined: Callable[..., tuple[Diagnosis, Examined]],
) -> None:
    diagnosis, found = examined(FakePi(), python="/no/such/python")
    assert not diagnosis.healthy
    assert found["python"].status == "fail"
    assert 'add `python = "python3"` to the profile' in found["python"].advice
    assert (found["runtime"].status, found["temperature"].status) == ("unknown", "ok")


def test_unknown_host_key(server: lab.LoopbackSsh, tmp_path: Path) -> None:
    empty = tmp_path / "known_hosts"
    empty.touch()
    diagnosis = doctor.examine(server.profile(tmp_path / "d", known_hosts=str(empty)))
    found = {check.name: check for check in diagnosis.checks}
    assert (found["link"].status, found["host key"].status) == ("ok", "fail")
    assert "ssh-keyscan" in found["host key"].found + found["host key"].advice
    assert found["login"].status == found["temperature"].status == "unknown"


def test_wrong_user(server: lab.LoopbackSsh, tmp_path: Path) -> None:
    diagnosis = doctor.examine(server.profile(tmp_path / "d", user="nobody-here"))
    found = {check.name: check for check in diagnosis.checks}
    assert (found["host key"].status, found["login"].status) == ("ok", "fail")
    assert "nobody-here" in found["login"].found
    assert not Path(tmp_path / "d").exists()
