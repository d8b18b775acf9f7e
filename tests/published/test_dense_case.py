"""The published file whose dense layer has a scale per output, on a runtime without such an op."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_agents.errors import VerificationError
from device_agents.runner import Device
from pipeline.deploy.release import put_in_use
from profiles.schema import DeviceProfile
from tests import wrong_runtimes

if TYPE_CHECKING:
    from collections.abc import Callable

CASE = Path(__file__).resolve().parents[3] / "shared/cases/02-dense-per-channel-old-runtime"


@pytest.fixture
def path() -> Path:
    found = CASE / "plain_fc1000-static8.tflite"
    if not found.exists():
        pytest.skip(f"{found} is not there: it holds the published cases")
    return found


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[str], Device]:
    def make(python: str) -> Device:
        directory = str(tmp_path / "device")
        return Device.open(
            DeviceProfile(name="old", transport="local", directory=directory, python=python)
        )

    return make


def test_it_is_refused_where_it_gives_zeros(
    path: Path, opened: Callable[[str], Device], tmp_path: Path
) -> None:
    with opened(wrong_runtimes.zeroing_litert(tmp_path)) as device:
        with pytest.raises(VerificationError, match="a scale per output wrongly; let `edgewright"):
            put_in_use(device, path, "net", "1", runtime="tflite")
        assert device.releases.list_all() == []


def test_it_is_taken_where_it_is_right(path: Path, opened: Callable[[str], Device]) -> None:
    with opened("") as device:
        _, checked = put_in_use(device, path, "net", "1", runtime="tflite")
    assert checked.sqnr_db is not None
    assert checked.sqnr_db >= 30
