from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.runner import Device
from profiles.schema import DeviceProfile
from tests import lab
from tests.sessions import open_sessions
from tests.tiny_models import onnx_conv, tflite_conv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from device_agents.session import Session


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.LoopbackSsh]:
    with lab.loopback_ssh(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tflite_conv(folder / "small.tflite")
    tflite_conv(folder / "large.tflite", size=32, channels=16, depth=3)
    onnx_conv(folder / "small.onnx")
    (folder / "corrupt.tflite").write_bytes((folder / "small.tflite").read_bytes()[:200])
    return folder


@pytest.fixture
def open_session() -> Iterator[Callable[..., Session]]:
    """Return a maker of sessions with a device, by agents with flags; closed after the test."""
    with open_sessions() as make:
        yield make


@pytest.fixture
def local(tmp_path: Path) -> Callable[..., DeviceProfile]:
    """Return a maker of local profiles; the folder's name has a blank and shell characters."""

    def make(**changes: Any) -> DeviceProfile:
        values: dict[str, Any] = {
            "name": "here",
            "transport": "local",
            "directory": str(tmp_path / "device $(touch x)"),
        }
        return DeviceProfile(**{**values, **changes})

    return make


@pytest.fixture
def device(local: Callable[..., DeviceProfile]) -> Iterator[Device]:
    with Device.open(local()) as opened:
        yield opened


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return an interpreter that has the standard library only: a device before its setup."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return str(folder / "bin" / "python")
