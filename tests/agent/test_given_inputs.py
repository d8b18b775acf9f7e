"""Values that a user gives instead of seeded ones: they travel with every job that runs a model."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.agent import inputs
from device_agents.api import BenchProtocol, Failure, Measurement, TensorValue
from device_agents.runner import Device
from tests import lab
from tests.tiny_models import onnx_of_shapes, tflite_conv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from profiles.schema import DeviceProfile

ONE = replace(BenchProtocol.quick(), processes=1, max_processes=1)


@pytest.fixture(params=["local", "ssh"])
def either(
    request: pytest.FixtureRequest, local: Callable[..., DeviceProfile], tmp_path: Path
) -> Iterator[Device]:
    if request.param == "local":
        profile = local(runtime="onnx")
    else:
        server: lab.LoopbackSsh = request.getfixturevalue("server")
        profile = server.profile(tmp_path / "device", runtime="onnx")
    with lab.deadline(60), Device.open(profile) as opened:
        yield opened


def given(rows: int, *, side: int = 2) -> Sequence[TensorValue]:
    """Return samples of which the first is a square of `side` and the others cannot be run."""
    x = np.arange(4 * rows, dtype=np.float32).reshape(rows, 1, 4)
    shape = np.array([[side, side], *[[3, 3]] * (rows - 1)])
    return [TensorValue(a.dtype.name, a.shape, a.tobytes()) for a in (x, shape)]


def test_every_pass_runs_on_the_first_sample_of_what_is_given(
    either: Device, tmp_path: Path
) -> None:
    path = onnx_of_shapes(tmp_path / "shapes.onnx")
    seeded = either.measure(path, ONE)
    assert isinstance(seeded, Failure)
    assert seeded.kind == "invoke_failed"
    found = either.measure(path, ONE, reference=path, inputs=(given(1), given(3)))
    assert isinstance(found, Measurement), found
    assert found.ratio is not None
    assert len(found.inputs_sha256) == len(found.reference_inputs_sha256) == 64
    assert found.inputs_sha256 != found.reference_inputs_sha256
    assert Measurement.from_json(json.loads(json.dumps(found.to_json()))) == found
    half = either.measure(path, ONE, reference=path, inputs=(given(3), ()))
    assert isinstance(half, Failure)  # the reference runs on seeded values
    memory = either.memory(path, inputs=given(1))
    profile = either.per_op(path, inputs=given(1))
    sustained = either.sustain(path, 0.5, inputs=given(1))
    for passed in (memory, profile, sustained):
        assert not isinstance(passed, Failure), passed
        assert passed.inputs_sha256 == found.inputs_sha256


def test_values_that_are_given_are_the_only_ones_in_memory() -> None:
    class Model:
        def inputs(self) -> list[dict[str, object]]:
            return [{"name": "x", "dtype": "uint8", "shape": [3]}]

        def fill(self, seed: int) -> None:
            done.append(seed)

        def set_inputs(self, data: list[bytes]) -> None:
            done.append(data)

    done: list[object] = []
    data = base64.b64encode(b"abcdef").decode()
    inputs.fill(Model(), [{"dtype": "uint8", "shape": [2, 3], "data": data}], 5)
    inputs.fill(Model(), [], 5)
    assert done == [[b"abc"], 5]


def test_what_does_not_fit_is_refused_with_both_shapes(device: Device, tmp_path: Path) -> None:
    path = tflite_conv(tmp_path / "m.tflite")
    wrong = np.zeros((1, 1, 8, 16, 3), np.float32)
    values = [TensorValue("float32", wrong.shape, wrong.tobytes())]
    found = device.measure(path, ONE, runtime="tflite", inputs=(values, ()))
    assert isinstance(found, Failure)
    assert "input x is float32 of shape (samples, 1, 16, 16, 3)" in found.reason
    seeded = device.measure(path, ONE, runtime="tflite")
    assert isinstance(seeded, Measurement)
    assert seeded.inputs_sha256 == ""
