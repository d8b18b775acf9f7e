"""A phone for tests: the adb double behind the real adb client and a real server of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from profiles.schema import DeviceProfile
from scripts.lab.adb_device import AdbDevice, Looks, adb_device
from tests import lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ADB = shutil.which("adb")


@dataclass(frozen=True)
class AdbServer:
    """A private adb server; its keys and its log are in `folder`."""

    folder: Path
    port: int

    def adb(self, *words: str) -> str:
        """Run the client; return both its outputs."""
        environment = {**os.environ, "HOME": str(self.folder), "TMPDIR": str(self.folder)}
        argv = [ADB or "adb", "-P", str(self.port), *words]
        done = subprocess.run(
            argv, env=environment, capture_output=True, text=True, timeout=20, check=False
        )
        return done.stdout + done.stderr

    def profile(self, device: AdbDevice | None = None, **changes: Any) -> DeviceProfile:
        """Return a profile of the device, with fields replaced by `changes`."""
        values: dict[str, Any] = {
            "name": "phone",
            "transport": "adb",
            "address": device.serial if device else "",
            "adb_server": f"127.0.0.1:{self.port}",
            "python": sys.executable,
            "directory": "/data/local/tmp/edgewright",
            "connect_timeout_s": 10.0,
        }
        return DeviceProfile(**{**values, **changes})


@contextmanager
def adb_server(folder: Path) -> Iterator[AdbServer]:
    """Run a server for a `with` block."""
    if ADB is None:
        pytest.skip("no adb found; install the package adb")
    server = AdbServer(folder, lab.free_port())
    server.adb("start-server")
    try:
        yield server
    finally:
        server.adb("kill-server")


@contextmanager
def phone(
    folder: Path, looks: Looks | None = None, answers: dict[str, str] | None = None
) -> Iterator[tuple[AdbServer, AdbDevice]]:
    """Run a server and a phone for a `with` block."""
    with (
        adb_server(folder) as server,
        adb_device(folder / "phone", looks=looks, answers=answers) as made,
    ):
        yield server, made
