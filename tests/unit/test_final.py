"""The headline: when a target is met, by a ratio to the baseline or by milliseconds."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.api import BenchProtocol, Failure, Measurement, SensorReading
from device_agents.errors import DeviceError
from pipeline.final import compare
from pipeline.recipe import TargetSection

if TYPE_CHECKING:
    from pipeline.result import Comparison

WINNER = Measurement(
    device="board", device_digest="", model_sha256="", reference_sha256=None, agent_sha256="",
    runtime="tflite", runtime_version="1", threads=1, cpus=(), protocol=BenchProtocol.thorough(),
    started_at="", samples_ns=(), reference_samples_ns=(), process_medians_ms=(), median_ms=0.48,
    ci95_ms=(0.47, 0.49), p90_ms=0.5, ratio=0.6, ratio_ci95=(0.58, 0.62),
    reference_median_ms=0.8, partitions=1, before=SensorReading(), after=SensorReading(),
    verdict="valid", reasons=(), busy_ns=0, timed_ns=0, warmup_ns=0, load_ns=0, peak_rss_bytes=0,
)  # fmt: skip


def compared(
    accuracies: tuple[float | None, ...] = (0.9, 0.9),
    pair: tuple[Measurement | Failure, Measurement | Failure] = (WINNER, WINNER),
    **target: float,
) -> Comparison:
    section = TargetSection("mobilenet-v2", **target)  # type: ignore[arg-type]
    ctx: Any = SimpleNamespace(
        recipe=SimpleNamespace(target=section), dataset=SimpleNamespace(test=range(7))
    )
    finalist: Any = SimpleNamespace(accuracy=0.95, name="mobilenet-v2 x1")
    return compare(ctx, finalist, finalist, pair, accuracies)


@pytest.mark.parametrize(
    ("target", "met"),
    [
        ({"latency_ratio": 0.62}, True),
        ({"latency_ratio": 0.61}, False),  # the interval reaches over it
        ({"latency_ms": 0.49}, True),
        ({"latency_ms": 0.485}, False),
        ({"latency_ms": 0.49, "latency_ratio": 0.1}, True),  # milliseconds stand in for the ratio
    ],
)
def test_the_upper_end_of_the_interval_is_within_the_limit(
    target: dict[str, float],
    met: bool,  # noqa: FBT001
) -> None:
    found = compared(**target)
    assert found.met is met
    assert f"target {'met' if met else 'missed'}" in found.sentence


def test_a_target_in_milliseconds_is_stated_in_milliseconds() -> None:
    found = compared(latency_ms=0.6)
    assert "(at most 0.6 ms, within 0 points)" in found.sentence
    assert found.target_ms == 0.6
    assert found.winner_ci95_ms == (0.47, 0.49)
    assert found.target_ratio == pytest.approx(0.6 / 0.8)
    assert compared(latency_ratio=0.7).target_ratio == 0.7
    assert compared(latency_ratio=0.7).target_ms is None


def test_accuracy_may_be_lost_up_to_the_tolerance() -> None:
    assert compared((0.895, 0.9), latency_ms=1.0, accuracy_tolerance=0.005).met
    assert not compared((0.894, 0.9), latency_ms=1.0, accuracy_tolerance=0.005).met


def test_what_could_not_be_measured_is_an_error() -> None:
    with pytest.raises(DeviceError, match="cannot be measured"):
        compared(pair=(Failure("crashed"), WINNER))
    with pytest.raises(DeviceError, match="no ratio"):
        compared(pair=(replace(WINNER, ratio=None), WINNER))
    with pytest.raises(DeviceError, match="test images"):
        compared((None, 0.9))
