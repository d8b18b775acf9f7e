"""The main job on a virtual Raspberry Pi: real aarch64 runtimes, over real SSH."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.runner import Device
from device_agents.values import Inference, TensorValue
from pipeline.store import Store
from profiles.registry import load_device
from tests.device_lab import add_profile
from tests.tiny_models import onnx_conv, tflite_conv

if TYPE_CHECKING:
    import numpy.typing as npt

    from scripts.lab.userland import Userland

pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny.toml"
# QEMU runs everything about a hundred times slower.
SMALLER = ("search.candidates=2", 'export.formats=["tflite"]')


def outputs_of(
    device: Device, file: Path, batch: npt.NDArray[np.float32], runtime: str
) -> npt.NDArray[np.float32]:
    """Run a model on a device; its first output."""
    inputs = [TensorValue("float32", batch.shape, batch.tobytes())]
    found = device.infer(file, inputs, runtime=runtime)
    assert isinstance(found, Inference), found
    return np.frombuffer(found.outputs[0].data, np.float32)


def test_both_runtimes_compute_there_what_they_compute_here(
    tmp_path: Path, virtual_pi: Userland
) -> None:
    images = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    batches = (
        ("tflite", tflite_conv(tmp_path / "model.tflite"), images),
        ("onnx", onnx_conv(tmp_path / "model.onnx"), images.transpose(0, 3, 1, 2).copy()),
    )
    with Device.open(virtual_pi.profile()) as there, Device.open(load_device("local")) as here:
        for runtime, file, batch in batches:
            outputs = [outputs_of(device, file, batch, runtime) for device in (there, here)]
            assert np.allclose(*outputs, rtol=1e-4, atol=1e-5)


def test_a_model_is_searched_for_deployed_and_measured(
    tmp_path: Path, virtual_pi: Userland, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    add_profile(tmp_path / "config", "pi", virtual_pi)
    smaller = [word for setting in SMALLER for word in ("--set", setting)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pipeline.cli.main", "run", str(RECIPE)),
            *("--store", str(tmp_path / "store"), "--device", "pi", *smaller),
        ],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with Store.open(tmp_path / "store", create=False) as store:
        result = store.result()

    assert len(result.candidates) == 2
    assert all(c.latency_ms and c.accuracy for c in result.candidates)
    assert result.device["name"] == "pi"
    assert result.device["machine"] == "aarch64"
    kinds = {(a.network, a.format, a.scheme) for a in result.artifacts}
    assert len(kinds) == 4, "float and int8, winner and baseline"
    for row in result.artifacts:
        assert row.latency_ms > 0
        # Computed by the aarch64 wheels, compared with what this computer's compute.
        assert row.accuracy_device == pytest.approx(row.accuracy_host, abs=0.02)
    deployed = str(result.deployed["path"])
    assert deployed.startswith("/home/pi/")
    assert virtual_pi.run("sha256sum", deployed).split()[0] == result.deployed["sha256"]
    report = Path(done.stdout.strip().splitlines()[-1].removeprefix("report: "))
    assert "aarch64" in report.read_text()
