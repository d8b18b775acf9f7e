"""Every command of docs/bring_your_own_model.md, with a virtual Raspberry Pi as the Pi."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests import own_model_page
from tests.device_lab import add_profile

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.lab.userland import Userland

pytestmark = pytest.mark.slow


def test_the_whole_way_from_a_model_to_a_deployed_file(
    tmp_path: Path, virtual_pi: Userland
) -> None:
    add_profile(tmp_path / "config", "pi4", virtual_pi)
    said = own_model_page.walk(tmp_path)
    made = (tmp_path / "made" / "net-int8.tflite").read_bytes()
    deployed = virtual_pi.run("sha256sum", said["deploy made/net-int8.tflite"].strip())
    assert deployed.split()[0] == hashlib.sha256(made).hexdigest()
