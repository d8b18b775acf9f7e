"""Measuring, inferring and deploying on this machine as a device."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_agents.agent import runtimes
from device_agents.api import BenchProtocol, Inference, Measurement, TensorValue
from device_agents.conversation import Conversation
from device_agents.errors import AgentError, ConfigError, RuntimeMissing
from device_agents.runner import Device
from tests import lab
from tests.tiny_models import CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from profiles.schema import DeviceProfile

QUICK = replace(BenchProtocol.quick(), max_processes=3)


def tensor(array: np.ndarray[Any, Any]) -> TensorValue:
    return TensorValue(array.dtype.name, array.shape, array.tobytes())


def test_same_model_against_itself_is_one(device: Device, models: Path) -> None:
    path = models / "large.tflite"
    result = lab.measured(device.measure(path, QUICK, reference=path))
    # Two shared cores: the bound is for gross errors, the interval is checked in the statistics.
    assert result.ratio is not None
    assert result.ratio_ci95 is not None
    assert result.ratio == pytest.approx(1.0, abs=0.15)
    assert result.ratio_ci95[0] <= result.ratio <= result.ratio_ci95[1]
    assert result.ci95_ms[0] <= result.median_ms <= result.ci95_ms[1] <= 50
    assert len(result.process_medians_ms) == QUICK.processes
    assert result.partitions == 1
    assert result.ops == {"CONV_2D": 3, "MEAN": 1, "FULLY_CONNECTED": 1}


def test_larger_model_takes_longer(device: Device, models: Path) -> None:
    result = lab.measured(
        device.measure(models / "large.tflite", QUICK, reference=models / "small.tflite")
    )
    assert result.ratio is not None
    assert result.ratio > 2
    assert result.reference_median_ms is not None
    assert result.reference_median_ms < result.median_ms


def test_time_spent_adds_up(device: Device, models: Path) -> None:
    result = lab.measured(device.measure(models / "large.tflite", QUICK))
    assert sum(result.samples_ns) == result.timed_ns
    assert result.timed_ns + result.warmup_ns + result.load_ns < result.busy_ns
    # The target is 25 %; a machine shared with other work gets a wide margin here.
    assert result.overhead_share < 0.6


def test_every_call_of_a_measurement_counts_as_busy(
    device: Device, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[tuple[str, int]] = []
    read = Conversation._answer

    def seen(talk: Conversation, deadline: float, op: str, timeout_s: float) -> Any:
        answer = read(talk, deadline, op, timeout_s)
        answers.append((op, answer["busy_ns"]))
        return answer

    monkeypatch.setattr(Conversation, "_answer", seen)
    path = models / "small.tflite"
    result = lab.measured(device.measure(path, QUICK, reference=models / "large.tflite"))
    assert [op for op, _ in answers] == (
        ["has", "put"] * 2 + ["prepare", "sensors"] + ["bench"] * QUICK.processes + ["sensors"]
    )
    assert result.busy_ns == sum(ns for _, ns in answers)
    answers.clear()
    again = lab.measured(device.measure(path, QUICK))
    assert again.busy_ns == sum(ns for _, ns in answers)


def test_measurement_survives_json(device: Device, models: Path) -> None:
    path = models / "large.tflite"
    for reference in (None, path):
        result = lab.measured(device.measure(path, QUICK, reference=reference))
        assert Measurement.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_time_is_passed_in(local: Callable[..., DeviceProfile], models: Path) -> None:
    moment = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    with Device.open(local(), clock=lambda: moment) as device:
        result = lab.measured(device.measure(models / "small.tflite", QUICK))
    assert result.started_at == "2031-05-06T07:08:09+00:00"


def test_thorough_uses_more_processes_until_precise_or_spent(device: Device, models: Path) -> None:
    protocol = replace(
        BenchProtocol.thorough(),
        max_s=0.05,
        warmup_min_ms=5.0,
        warmup_max_ms=50.0,
        max_processes=7,
        target_half_width=1e-9,
    )
    result = lab.measured(device.measure(models / "small.tflite", protocol))
    assert len(result.process_medians_ms) == 7
    assert result.verdict == "suspect"
    assert any("precision" in reason for reason in result.reasons)


def test_onnx_runs_the_same_way(device: Device, models: Path) -> None:
    path = models / "small.onnx"
    result = lab.measured(device.measure(path, QUICK, reference=path, runtime="onnx"))
    assert result.runtime_version.startswith("onnxruntime ")
    assert result.partitions is None


def test_corrupt_model_is_a_failure_in_one_sentence(device: Device, models: Path) -> None:
    failure = lab.failed(device.measure(models / "corrupt.tflite", QUICK))
    words = {"load_failed": "the tflite runtime refuses the model: ", "crashed": "ended"}
    assert words[failure.kind] in failure.reason
    assert failure.retryable == (failure.kind == "crashed")
    failure = lab.failed(device.measure(models / "small.tflite", QUICK, runtime="onnx"))
    assert "the onnx runtime refuses the model" in failure.reason
    failure = lab.failed(
        device.measure(models / "small.tflite", QUICK, reference=models / "corrupt.tflite")
    )
    assert "the reference" in failure.reason


def test_missing_file_and_unknown_runtime(device: Device, models: Path) -> None:
    with pytest.raises(ConfigError, match=r"no model file '.*none\.tflite'"):
        device.measure(models / "none.tflite", QUICK)
    failure = lab.failed(device.measure(models / "small.tflite", QUICK, runtime="caffe"))
    assert f"no runtime 'caffe' known; have {', '.join(runtimes.names())}" in failure.reason


def test_pinning_to_a_cpu_that_is_not_there(
    local: Callable[..., DeviceProfile], models: Path
) -> None:
    with Device.open(local(cpus=(4095,))) as device:
        failure = lab.failed(device.measure(models / "small.tflite", QUICK))
    assert "cannot pin to CPUs [4095]" in failure.reason


def test_killed_agent_is_replaced_within_a_measurement(device: Device, models: Path) -> None:
    stream: Any = device._session._stream
    os.kill(stream._process.pid, signal.SIGKILL)
    assert lab.measured(device.measure(models / "small.tflite", QUICK))


def test_open_without_the_runtime(local: Callable[..., DeviceProfile], tmp_path: Path) -> None:
    python = lab.wrapped_python(tmp_path / "bare", 'set -- -S -E "$@"')
    with pytest.raises(RuntimeMissing, match="pip install ai-edge-litert"):
        Device.open(local(python=str(python)))


def test_lease_is_held_while_measuring(local: Callable[..., DeviceProfile], models: Path) -> None:
    from contextlib import contextmanager

    events: list[str] = []

    class Book:
        def hold(
            self, device: str, *, timeout_s: float, name: str = ""
        ) -> AbstractContextManager[None]:
            @contextmanager
            def held() -> Iterator[None]:
                events.append(f"took {name}")
                assert device
                assert timeout_s > 0
                yield
                events.append("gave back")

            return held()

    with Device.open(local(), leases=Book()) as device:
        assert not events
        device.measure(models / "small.tflite", QUICK)
    assert events == ["took here", "gave back"]


@pytest.mark.parametrize("count", [1, 3, 200])
def test_outputs_are_the_runtimes_own(device: Device, models: Path, count: int) -> None:
    from ai_edge_litert.interpreter import Interpreter

    images = np.random.default_rng(count).random((count, 16, 16, 3), np.float32)
    result = device.infer(models / "small.tflite", [tensor(images)])
    assert isinstance(result, Inference)
    interpreter = Interpreter(str(models / "small.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    expected = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        expected.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    output = result.outputs[0]
    got = np.frombuffer(output.data, output.dtype).reshape(output.shape)
    assert output.shape == (count, 1, CLASSES)
    assert np.array_equal(got, np.stack(expected))


def test_metadata_without_inputs(device: Device, models: Path) -> None:
    result = device.infer(models / "small.onnx", [], runtime="onnx")
    assert isinstance(result, Inference)
    assert [(i.name, i.dtype, i.shape) for i in result.inputs_info] == [
        ("x", "float32", (1, 3, 16, 16))
    ]
    assert result.outputs_info[0].shape == (1, CLASSES)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 16, 16, 3), np.float64),
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((), np.float32),
    ],
)
def test_inputs_that_do_not_fit(device: Device, models: Path, array: Any) -> None:
    failure = lab.failed(device.infer(models / "small.tflite", [tensor(array)]))
    assert "input x is float32 of shape (samples, 1, 16, 16, 3); got" in failure.reason
    failure = lab.failed(device.infer(models / "small.tflite", [tensor(array)] * 2))
    assert "takes 1 inputs, got 2" in failure.reason


def test_deploy_rollback_and_conflict(device: Device, models: Path) -> None:
    one, two = models / "small.tflite", models / "large.tflite"
    first = Path(device.releases.deploy(one, "classifier", "1.0", check=lab.unchecked))
    assert first.name == "model.tflite"
    assert device.releases.deploy(one, "classifier", "1.0", check=lab.unchecked) == str(first)
    device.releases.deploy(two, "classifier", "1.1", check=lab.unchecked)
    current = first.parent.parent / "current" / "model.tflite"
    assert current.read_bytes() == two.read_bytes()
    assert [(r["version"], r["current"]) for r in device.releases.list_all()] == [
        ("1.0", False),
        ("1.1", True),
    ]
    with pytest.raises(AgentError, match=r"1\.0 is already deployed with model"):
        device.releases.deploy(two, "classifier", "1.0", check=lab.unchecked)
    assert device.releases.rollback("classifier") == "1.0"
    assert current.read_bytes() == one.read_bytes()
    with pytest.raises(AgentError, match=r"no release 9; have 1\.0, 1\.1"):
        device.releases.rollback("classifier", "9")


def test_release_runs_from_where_it_lies(device: Device, models: Path) -> None:
    images = tensor(np.random.default_rng(1).random((3, 16, 16, 3), np.float32))
    path = models / "small.tflite"
    where = Path(device.releases.deploy(path, "classifier", "1.0", check=lab.unchecked))
    direct, released = (
        device.infer(path, [images]),
        device.releases.infer("classifier", "1.0", [images]),
    )
    assert isinstance(direct, Inference)
    assert isinstance(released, Inference), released
    assert released.outputs == direct.outputs
    # The pushed copy is not needed: only the release is left.
    for model in (where.parents[3] / "models").iterdir():
        model.unlink()
    assert isinstance(device.releases.infer("classifier", "1.0", []), Inference)


@pytest.mark.parametrize("damage", ["other bytes", "gone"])
def test_damaged_release_is_refused_until_deployed_again(
    device: Device, models: Path, damage: str
) -> None:
    path = models / "small.tflite"
    where = Path(device.releases.deploy(path, "classifier", "1.0", check=lab.unchecked))
    if damage == "gone":
        where.unlink()
    else:
        # A model that would run: only its hash gives it away.
        where.write_bytes((models / "large.tflite").read_bytes())
    failure = lab.failed(device.releases.infer("classifier", "1.0", []))
    assert (failure.kind, failure.retryable) == ("hash_mismatch", False)
    assert "the file of classifier 1.0 is damaged or gone" in failure.reason
    assert "deploy it again" in failure.reason
    assert "\n" not in failure.reason
    assert device.releases.deploy(path, "classifier", "1.0", check=lab.unchecked) == str(where)
    assert isinstance(device.releases.infer("classifier", "1.0", []), Inference)


def test_unknown_release_names_the_known_ones(device: Device, models: Path) -> None:
    failure = lab.failed(device.releases.infer("classifier", "1.0", []))
    assert "classifier has no release 1.0; have none" in failure.reason
    for version in ("1.0", "1.1"):
        device.releases.deploy(models / "small.tflite", "classifier", version, check=lab.unchecked)
    failure = lab.failed(device.releases.infer("classifier", "2", []))
    assert failure.reason.endswith("classifier has no release 2; have 1.0, 1.1")
    failure = lab.failed(device.releases.infer("detector", "1", []))
    assert failure.reason.endswith("no release 1; have classifier 1.0, classifier 1.1")
    failure = lab.failed(device.releases.infer("../classifier", "1", []))
    assert "must be letters" in failure.reason


@pytest.mark.parametrize("record", ["", "[]", '{"sha256": 5}'])
def test_damaged_record_is_no_release(device: Device, models: Path, record: str) -> None:
    where = Path(
        device.releases.deploy(models / "small.tflite", "classifier", "1.0", check=lab.unchecked)
    )
    (where.parent / "release.json").write_text(record)
    failure = lab.failed(device.releases.infer("classifier", "1.0", []))
    assert "classifier has no release 1.0; have none" in failure.reason


@pytest.mark.parametrize("name", ["../up", "", "a b", "$(touch x)", "x" * 65])
def test_names_that_are_no_names(device: Device, models: Path, name: str) -> None:
    with pytest.raises(AgentError, match="must be letters"):
        device.releases.deploy(models / "small.tflite", name, "1", check=lab.unchecked)


def test_throttling_during_a_measurement_makes_it_invalid(
    local: Callable[..., DeviceProfile],
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tool, flags = tmp_path / "bin" / "vcgencmd", tmp_path / "flags"
    tool.parent.mkdir()
    # The first answer is clean, every later one has the under-voltage bits.
    tool.write_text(
        f'#!/bin/sh\n[ "$1" = get_throttled ] || exit 1\n'
        f'if [ -e "{flags}" ]; then echo throttled=0x50005; else echo throttled=0x0; fi\n'
        f'touch "{flags}"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    with Device.open(local()) as device:
        result = lab.measured(device.measure(models / "small.tflite", QUICK))
        assert (result.before.throttled, result.after.throttled) == (0, 0x50005)
        assert result.verdict == "invalid"
        assert "under-voltage (change the power supply or cable)" in result.reasons[0]


def test_sensors_read_unknown_as_none(
    local: Callable[..., DeviceProfile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no vcgencmd, which alone tells
    with Device.open(local(python=sys.executable)) as device:
        reading = device.sensors()
    assert reading.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert (
        0
        < reading.memory_available_bytes
        < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    )
    assert reading.throttled is None
