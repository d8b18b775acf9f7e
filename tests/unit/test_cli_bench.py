"""`edgewright bench` beside plain timing: passes, switches, and what goes with what."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

import pytest

from device_agents.agent import runtimes
from device_agents.measure.steps import Sent
from pipeline.cli.main import main
from pipeline.store import Store
from tests.tiny_models import onnx_conv, tflite_conv
from tests.waiting_lines import Lines

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a folder, a device named `here` and models of its own."""
    devices = tmp_path / "config" / "devices"
    devices.mkdir(parents=True)
    (devices / "here.toml").write_text(
        f'transport = "local"\ncanary = false\ndirectory = "{tmp_path / "device"}"\n'
    )
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(devices.parent))
    monkeypatch.setenv("EDGEWRIGHT_LEASES", str(tmp_path / "leases"))
    monkeypatch.chdir(tmp_path)
    tflite_conv(tmp_path / "m.tflite")
    onnx_conv(tmp_path / "m.onnx")
    (tmp_path / "m.json").write_text('{"edgewright_null": 1, "latency_ms": 1.0}')
    return tmp_path


def bench(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(["bench", *args])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_suffix_names_the_null_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = bench(capsys, "m.json", "--device", "fake")
    assert code == 0
    assert "conditions: fake, null (null 1), threads 1, protocol thorough" in out
    assert "canary: 1.00 x and 1.00 x its best time, before and after" in out


def test_what_is_sent_and_run_is_shown_while_it_lasts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    lines = Lines(monkeypatch)
    # Its own: the simulated board keeps what other tests have sent it.
    latency_ms = 1 + zlib.crc32(str(place).encode()) / 2**32
    (place / "m.json").write_text(f'{{"edgewright_null": 1, "latency_ms": {latency_ms}}}')
    assert bench(capsys, "m.json", "--device", "fake")[0] == 0
    size = (place / "m.json").stat().st_size
    what = "timing m.json on fake"
    assert lines.shown[0] == what
    assert f"{what}: {Sent(size, size)}" in lines.shown
    assert f"{what}: process 1 of at most 20" in lines.shown

    lines.shown.clear()
    assert main(["deploy", "m.tflite", "--device", "here", "--name", "n", "--version", "1"]) == 0
    size = (place / "m.tflite").stat().st_size
    assert f"deploying to here: {Sent(size, size)}" in lines.shown


def test_open_dimensions_are_refused_before_anything_is_opened(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    onnx_conv(place / "open.onnx", shape=(1, 3, "h", "w"))
    code, out, err = bench(capsys, "open.onnx", "--device", "here")
    assert (code, out) == (2, "")
    assert "h, w of x (1x3xhxw); give them as `--input-shape 1x3xHxW`" in err
    assert not (place / "device").exists()
    asked = ("open.onnx", "--device", "here", "--protocol", "quick", "--input-shape", "x=1x3x9x5")
    code, out, _ = bench(capsys, *asked, "--store", "kept", "--reference", "m.onnx")
    assert code == 0
    assert "\ninputs: x 1x3x9x5\ninputs of the reference: x 1x3x16x16\n" in out
    with Store.open(str(place / "kept")) as store:
        (kept,) = store.measurements()
    assert kept.data["input_shapes"] == {"x": [1, 3, 9, 5]}


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (("x=1x3x640x",), "--input-shape 'x=1x3x640x' is no shape"),
        (("1x3x0x4",), "is no list of at most 16 lengths above 0"),
        (("1x3x4x4", "1x3x4x4"), "given twice for the only input"),
        (("1x3x16x16", "x=1x3x16x16"), "input x is given two shapes"),
        (("y=1x3x4x4",), "no input 'y'; its inputs are x (1x3x16x16)"),
        (("1x3x4x4",), "1x3x4x4 does not fit input x (1x3x16x16)"),
    ],
)
def test_shapes_that_cannot_be(
    capsys: pytest.CaptureFixture[str], shapes: tuple[str, ...], words: str
) -> None:
    options = [option for shape in shapes for option in ("--input-shape", shape)]
    code, out, err = bench(capsys, "m.onnx", "--device", "here", *options)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_ops(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = bench(capsys, "m.onnx", "--device", "here", "--per-op")
    assert code == 0
    assert " Conv " in out
    assert "ms in all: the runtime's profiler on" in out
    code, out, err = bench(capsys, "m.tflite", "--device", "here", "--per-op")
    assert (code, out) == (3, "")
    assert "gives no times of single ops" in err


def test_memory_as_json(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    code, out, _ = bench(capsys, "m.tflite", "--device", "here", "--memory", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["model_bytes"] == (place / "m.tflite").stat().st_size
    assert found["before_bytes"] <= found["peak_bytes"]


def test_sustained_in_tenths(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = bench(capsys, "m.json", "--device", "fake", "--sustained", "10m")
    assert code == 0
    lines = out.splitlines()
    assert [line.split(" s: ")[0].split() for line in lines[:10]] == [
        [str(60 * n), "to", str(60 * n + 60)] for n in range(10)
    ]
    assert all("°C, 1800 MHz" in line for line in lines[:10])
    assert lines[10].startswith("first 1.000")
    assert "ran 600 s, " in lines[11]


def test_a_run_stopped_by_heat_ends_with_3(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "config" / "devices" / "warm.toml").write_text(
        'extends = "fake"\nthermal_limit_celsius = 45.0\n'
    )
    code, out, err = bench(capsys, "m.json", "--device", "warm", "--sustained", "10m")
    assert code == 3
    assert "of 600 s: passed the trip value" in out
    assert "warm passed 45.0 °C" in err


def test_xnnpack_off_is_shown_and_refused_when_delegation_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = ("m.tflite", "--device", "here", "--protocol", "quick", "--no-xnnpack")
    code, out, _ = bench(capsys, *plain)
    assert code == 0
    assert "threads 1, xnnpack off, protocol quick" in out
    assert "delegated: 0% of the ops, partitions: 0" in out
    code, out, err = bench(capsys, *plain, "--min-delegated", "0.5")
    assert (code, out) == (3, "")
    assert "no delegate runs any op" in err


def test_a_binary_that_keeps_no_samples(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    binary = place / "binary"
    binary.write_text(
        """#!/bin/sh
echo STARTING!
echo "Running benchmark for at least 1 iterations and at least 0.015 seconds"
echo "count=1 curr=5000"
echo "Running benchmark for at least 6 iterations and at least 0.09 seconds"
echo "count=18 first=5000 curr=5000 min=4900 max=5100 avg=5000 std=60 p5=4900 median=5000 p95=5100"
end="Init: 1, First inference: 5000, Warmup (avg): 5000, Inference (avg): 5000"
echo "Inference timings in us: $end"
"""
    )
    binary.chmod(0o755)
    asked = ("m.tflite", "--device", "here", "--binary", str(binary), "--protocol", "quick")
    code, out, _ = bench(capsys, *asked)
    assert code == 0
    assert "90th percentile 5.0000; 3 processes)" in out
    assert "xnnpack on, protocol quick" in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--per-op", "--memory"), "--per-op and --memory are passes of their own"),
        (("--memory", "--reference", "m.tflite"), "leave it out with --memory"),
        (("--sustained", "10"), "'10' is no duration; write it as 90s, 10m or 1h"),
        (("--sustained", "7h"), "ask for more than 0 s and at most 6 h"),
        (("--sustained", "0s"), "ask for more than 0 s and at most 6 h"),
        (("--min-delegated", "1.5"), "0<=x<=1"),
        (("--binary", "x", "--runtime", "onnx"), "--binary goes with --runtime benchmark_model"),
        (("--runtime", "benchmark_model"), "benchmark_model"),
    ],
)
def test_what_does_not_go_together(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], words: str
) -> None:
    code, out, err = bench(capsys, "m.tflite", "--device", "here", *args)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_an_unknown_runtime_names_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = bench(capsys, "m.tflite", "--device", "here", "--runtime", "tflit")
    assert (code, out) == (2, "")
    have = ", ".join(sorted(["benchmark_model", *runtimes.names()]))
    assert f"no runtime 'tflit' known; have {have}" in err


def test_the_tool_has_no_sustained_run(capsys: pytest.CaptureFixture[str]) -> None:
    tool = ("--runtime", "benchmark_model", "--sustained", "10s")
    code, out, err = bench(capsys, "m.tflite", "--device", "here", *tool)
    assert (code, out) == (2, "")
    assert "benchmark_model runs for no set time" in err
