"""int8 files on both virtual boards: sent packed, and their codes beside exact integers."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.coding.files import pack_file
from tests.cli_calls import make_workplace, run_ok, said
from tests.device_lab import add_profile
from tests.int8_files import int8_file, samples_file

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.lab.userland import Userland

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_workplace(tmp_path, monkeypatch)


def codes_on_board(file: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return the figures of the only output; those that the limits look at are right."""
    how = ("--data", samples_file(folder), "--device", "board", "--json")
    told = json.loads(run_ok(capsys, "verify", "--codes", file, *how))
    output: dict[str, Any] = told["outputs"][0]
    assert output["values"] == told["samples"] * 12
    assert output["far_samples"] == 0
    return output


@pytest.mark.parametrize(
    ("board", "equal_share", "largest"),
    # The board of 32 bits has TFLite 2.14, whose kernels round twice.
    [("virtual_pi", 0.97, 1), ("virtual_pi_32", 0.5, 4)],
)
def test_a_board_unpacks_an_int8_file_and_gives_the_codes_of_exact_integers(
    board: str,
    equal_share: float,
    largest: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device: Userland = request.getfixturevalue(board)
    add_profile(tmp_path / "config", "board", device)
    file = int8_file(tmp_path, "tflite")
    packed = tmp_path / f"{file.name}.ewp"
    packed.write_bytes(pack_file(file, lambda _: None)[1].content)
    how = ("--device", "board", "--name", "net", "--version", "1")
    path, told = said(capsys, 0, "deploy", packed, *how)
    assert f"board got {packed.stat().st_size} bytes" in told
    assert "less to send" in told
    there = device.run("sha256sum", path.strip()).split()[0]
    assert there == hashlib.sha256(file.read_bytes()).hexdigest()
    output = codes_on_board(file, tmp_path, capsys)
    assert output["equal_share"] >= equal_share
    assert output["largest_difference"] <= largest


def test_onnxruntime_on_a_board_gives_the_codes_of_exact_integers(
    virtual_pi: Userland, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_profile(tmp_path / "config", "board", virtual_pi)
    output = codes_on_board(int8_file(tmp_path, "onnx"), tmp_path, capsys)
    assert output["equal_share"] >= 0.97
    assert output["largest_difference"] <= 1
