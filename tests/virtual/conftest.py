"""The virtual devices that the tests of this folder share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scripts.lab import aarch64, armhf
from tests.device_lab import started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.lab.userland import Userland


@pytest.fixture(scope="session")
def _aarch64(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Userland]:
    with started(aarch64.running(tmp_path_factory.mktemp("aarch64"))) as device:
        yield device


@pytest.fixture
def virtual_pi(_aarch64: Userland) -> Userland:
    """Return a 64-bit virtual Raspberry Pi 4 in good health."""
    _aarch64.sensors(temp_celsius=48.3, throttled=0, clock_khz=1_500_000)
    return _aarch64


@pytest.fixture(scope="session")
def virtual_pi_32(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Userland]:
    """Run a 32-bit virtual Raspberry Pi 3B+."""
    with started(armhf.running(tmp_path_factory.mktemp("armhf"))) as device:
        yield device
