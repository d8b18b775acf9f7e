"""Every command of docs/bring_your_own_model.md is run here, with this computer as the Pi."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import own_model_page

pytestmark = pytest.mark.slow


def test_the_whole_way_from_a_model_to_a_deployed_file(tmp_path: Path) -> None:
    devices = tmp_path / "config" / "devices"
    devices.mkdir(parents=True)
    (devices / "pi4.toml").write_text(f'extends = "local"\ndirectory = "{tmp_path / "pi"}"\n')
    said = own_model_page.walk(tmp_path)
    deployed = Path(said["deploy made/net-int8.tflite"].strip())
    assert deployed.read_bytes() == (tmp_path / "made" / "net-int8.tflite").read_bytes()
