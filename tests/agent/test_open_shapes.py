"""Models that leave dimensions open, in the real runtimes on this machine as a device."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.api import BenchProtocol, Failure, Inference, Measurement, TensorValue
from device_agents.opening import open_device
from device_agents.tool_device import ToolDevice
from device_agents.tools.passes import ToolMemory
from tests.tiny_models import CLASSES, onnx_conv, tflite_conv

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agents.runner import Device
    from profiles.schema import DeviceProfile

STAND_IN = Path(__file__).parents[2] / "scripts" / "lab" / "benchmark_model"
ONE = replace(BenchProtocol.quick(), processes=1, max_processes=1)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("open")
    onnx_conv(folder / "m.onnx", shape=("batch", 3, "h", "w"))
    tflite_conv(folder / "m.tflite", signature=(-1, -1, -1, 3))
    onnx_conv(folder / "batch.onnx", shape=("batch", 3, 16, 16))
    tflite_conv(folder / "batch.tflite", signature=(-1, 16, 16, 3))
    return folder


@pytest.mark.parametrize(
    ("runtime", "dims", "shape"),
    [("onnx", "batch, h, w", (1, 3, 40, 24)), ("tflite", "?", (1, 40, 24, 3))],
)
def test_a_figure_carries_the_shape_that_was_asked_for(
    device: Device, opened: Path, runtime: str, dims: str, shape: tuple[int, ...]
) -> None:
    path = opened / f"m.{runtime}"
    refused = device.measure(path, ONE, runtime=runtime)
    assert isinstance(refused, Failure)
    assert f"open, which decide over the time it takes: {dims} of x" in refused.reason
    found = device.measure(
        path, ONE, runtime=runtime, shapes={"": shape}, reference=opened / f"batch.{runtime}"
    )
    assert isinstance(found, Measurement), found
    # The reference leaves its batch open and nothing else: that is 1.
    batch = (1, 3, 16, 16) if runtime == "onnx" else (1, 16, 16, 3)
    assert found.input_shapes == {"x": shape}
    assert found.reference_input_shapes == {"x": batch}
    assert Measurement.from_json(json.loads(json.dumps(found.to_json()))) == found
    memory = device.memory(path, runtime=runtime, shapes={"x": shape})
    assert not isinstance(memory, Failure), memory
    assert memory.input_shapes == {"x": shape}
    wrong = device.measure(path, ONE, runtime=runtime, shapes={"x": (1, 2, 3)})
    assert isinstance(wrong, Failure)
    assert "1x2x3 does not fit input x" in wrong.reason


def test_the_time_is_that_of_the_shape(device: Device, opened: Path) -> None:
    def median_ms(side: int) -> float:
        shapes = {"x": (1, 3, side, side)}
        found = device.measure(opened / "m.onnx", ONE, runtime="onnx", shapes=shapes)
        assert isinstance(found, Measurement), found
        return found.median_ms

    # 2500 times the work; a fraction of it proves that it was done.
    assert median_ms(400) > 5 * median_ms(8)


def test_ops_are_profiled_at_the_shape(device: Device, opened: Path) -> None:
    shapes = {"x": (1, 3, 20, 30)}
    found = device.per_op(opened / "m.onnx", runtime="onnx", shapes=shapes)
    assert not isinstance(found, Failure), found
    assert found.input_shapes == shapes
    assert type(found).from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(("runtime", "shape"), [("onnx", (2, 3, 5, 7)), ("tflite", (2, 5, 7, 3))])
def test_outputs_have_the_shape_that_the_run_gave(
    device: Device, opened: Path, runtime: str, shape: tuple[int, ...]
) -> None:
    images = np.random.default_rng(0).random((3, *shape), np.float32)
    value = TensorValue("float32", images.shape, images.tobytes())
    found = device.infer(opened / f"m.{runtime}", [value], runtime=runtime, shapes={"x": shape})
    assert isinstance(found, Inference), found
    assert found.outputs[0].shape == (3, 2, CLASSES)
    assert found.outputs_info[0].shape == (2, CLASSES)


def test_the_users_binary_is_told_every_input(
    local: Callable[..., DeviceProfile], opened: Path, tmp_path: Path
) -> None:
    binary = tmp_path / "benchmark_model"
    # It fails when it is given no shapes.
    binary.write_text(
        f'#!/bin/sh\ncase "$*" in *--input_layer=x*) ;; *) exit 1 ;; esac\n'
        f'exec "{sys.executable}" "{STAND_IN}" "$@"\n'
    )
    binary.chmod(0o755)
    profile = local(runtime="benchmark_model", benchmark_binary=str(binary))
    with open_device(profile) as device:
        assert isinstance(device, ToolDevice)
        found = device.measure(opened / "m.tflite", ONE, shapes={"x": (1, 40, 24, 3)})
        assert isinstance(found, Measurement), found
        assert found.input_shapes == {"x": (1, 40, 24, 3)}
        memory = device.memory(opened / "batch.tflite")
        assert isinstance(memory, ToolMemory)
        assert memory.input_shapes == {"x": (1, 16, 16, 3)}
