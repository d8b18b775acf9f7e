"""What ran where, and the passes beside the timing, with the real runtimes of this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.agent.jobs.memory import resident_bytes
from device_agents.agent.runtimes import onnx as onnx_runtime
from device_agents.agent.runtimes import tflite
from device_agents.api import BenchProtocol, Failure, Measurement
from device_agents.measure.passes import MemoryUse, OpProfile, op_times
from device_agents.runner import Device

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from profiles.schema import DeviceProfile

QUICK = BenchProtocol.quick()


def op(name: str, inputs: list[int], outputs: list[int]) -> dict[str, Any]:
    return {"op_name": name, "inputs": inputs, "outputs": outputs}


def test_replaced_ops_are_found_by_their_tensors() -> None:
    ops = [
        op("CONV_2D", [0, 20, 21], [1]),
        op("HARD_SWISH", [1], [2]),
        op("CONV_2D", [2, 22, 23], [3]),
        op("ADD", [3, 2], [4]),
        op("SOFTMAX", [4], [5]),
        op("DELEGATE", [0, 20, 21], [1]),
        op("DELEGATE", [2, 22, 23], [4]),
    ]
    # The second delegate node ran the convolution inside it too, whose output nobody else reads.
    assert tflite.find_replaced(ops) == [0, 2, 3]
    assert tflite.find_replaced(ops[:5]) == []
    whole = [*ops[:5], op("DELEGATE", [0, 20, 21, 22, 23], [5])]
    assert tflite.find_replaced(whole) == [0, 1, 2, 3, 4]


def test_two_outputs_and_an_absent_input() -> None:
    # -1 stands for an input that is not given, such as no bias.
    ops = [
        op("SPLIT", [0], [1, 2]),
        op("FULLY_CONNECTED", [1, 9, -1], [3]),
        op("LOGISTIC", [2], [4]),
        op("DELEGATE", [0, 9], [3, 2]),
    ]
    assert tflite.find_replaced(ops) == [0, 1]


def test_delegation_is_proved_in_every_measurement(device: Device, models: Path) -> None:
    found = device.measure(models / "large.tflite", QUICK)
    assert isinstance(found, Measurement)
    assert (found.delegate, found.delegated_share, found.partitions) == ("XNNPACK", 1.0, 1)
    assert found.settings == {}


def test_xnnpack_off_leaves_no_partition_and_is_in_the_record(
    local: Callable[..., DeviceProfile], models: Path
) -> None:
    with Device.open(local(xnnpack=False)) as device:
        found = device.measure(models / "large.tflite", QUICK)
        assert isinstance(found, Measurement)
        assert (found.delegate, found.delegated_share, found.partitions) == ("", 0.0, 0)
        assert found.settings == {"xnnpack": "off"}
        assert found.ops == {"CONV_2D": 3, "MEAN": 1, "FULLY_CONNECTED": 1}
        # It is a switch of tflite: onnx does not know it.
        other = device.measure(models / "small.onnx", QUICK, runtime="onnx")
    assert isinstance(other, Measurement)
    assert (other.delegate, other.delegated_share, other.settings) == ("", None, {})
    assert Measurement.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_figure_below_the_asked_delegation_is_refused(
    local: Callable[..., DeviceProfile], models: Path
) -> None:
    with Device.open(local(xnnpack=False, min_delegated_share=0.9)) as device:
        refused = device.measure(models / "large.tflite", QUICK)
        assert isinstance(refused, Failure)
        assert (refused.kind, refused.retryable) == ("not_delegated", False)
        assert "no delegate runs any op" in refused.reason
        assert "3 CONV_2D, 1 FULLY_CONNECTED, 1 MEAN" in refused.reason
        assert "at least 90% must be delegated" in refused.reason
        untold = device.measure(models / "small.onnx", QUICK, runtime="onnx")
    assert isinstance(untold, Failure)
    assert "onnxruntime does not tell which ops a delegate runs" in untold.reason
    with Device.open(local(min_delegated_share=1.0)) as device:
        assert isinstance(device.measure(models / "large.tflite", QUICK), Measurement)


def test_ops_of_an_onnx_model(device: Device, models: Path) -> None:
    found = device.per_op(models / "small.onnx", runtime="onnx")
    assert isinstance(found, OpProfile)
    kinds = [item.kind for item in found.ops]
    assert {"Conv", "GlobalAveragePool", "Gemm"} <= set(kinds)
    assert kinds.index("Conv") < kinds.index("Gemm")
    assert sum(item.share for item in found.ops) == pytest.approx(1.0)
    assert {(item.where, item.calls) for item in found.ops} == {("CPU", 50)}
    assert OpProfile.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_no_invented_times_of_tflite_ops(device: Device, models: Path) -> None:
    found = device.per_op(models / "small.tflite")
    assert isinstance(found, Failure)
    assert "the tflite runtime gives no times of single ops" in found.reason
    assert "benchmark_model gives them" in found.reason


def test_rows_of_a_profile_are_nodes_in_order() -> None:
    def event(name: str, index: str, duration_us: int) -> dict[str, Any]:
        told = {"op_name": name, "provider": "CPUExecutionProvider", "node_index": index}
        return {"cat": "Node", "name": f"{name}_{index}_kernel_time", "dur": duration_us,
                "args": told}  # fmt: skip

    events = [
        {"cat": "Session", "name": "model_run", "dur": 99, "args": {}},
        event("Conv", "1", 7),
        event("Relu", "2", 3),
        {"cat": "Node", "name": "Conv_1_fence_before", "dur": 50, "args": {}},
        event("Conv", "1", 5),
        event("Relu", "2", 1),
    ]
    rows = onnx_runtime.op_rows(events)
    assert [(row["kind"], row["where"], row["samples_ns"]) for row in rows] == [
        ("Conv", "CPU", [7000, 5000]),
        ("Relu", "CPU", [3000, 1000]),
    ]


def test_shares_add_up_and_an_outlier_does_not_move_them() -> None:
    first, second = op_times(
        [("a", "Conv", "CPU", [3.0, 3.0, 3.0, 900.0]), ("b", "Gemm", "", [1.0] * 4)]
    )
    assert (first.time_ms, first.share, first.calls) == (3.0, 0.75, 4)
    assert second.share == 0.25


def test_memory_of_a_model(device: Device, models: Path) -> None:
    path = models / "large.tflite"
    found = device.memory(path)
    assert isinstance(found, MemoryUse)
    assert 1_000_000 < found.before_bytes <= found.loaded_bytes <= found.peak_bytes
    assert found.model_cost_bytes == found.peak_bytes - found.before_bytes
    assert found.model_bytes == path.stat().st_size
    failure = device.memory(models / "corrupt.tflite")
    assert isinstance(failure, Failure)
    assert failure.kind in ("load_failed", "crashed")


def test_memory_as_the_kernel_writes_it(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython3\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n")
    assert resident_bytes("VmRSS", str(status)) == 10240 * 1024
    assert resident_bytes("VmHWM", str(status)) == 20480 * 1024
    assert resident_bytes("VmPeak", str(status)) is None
    assert resident_bytes("VmRSS", str(tmp_path / "none")) is None
