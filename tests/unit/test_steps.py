"""How far a measurement is, told before each process; and what `bench` makes of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from device_agents.api import BenchProtocol, Measurement, SensorReading
from device_agents.fakes.board import add_board
from device_agents.fakes.script import Script
from device_agents.measure.steps import Sent, Step, Steps
from device_agents.plural import number_of
from device_agents.runner import Device
from device_agents.tools.benchmark_text import parse_log
from device_agents.tools.observations import Observation, ToolConditions, step_ms, summarise
from pipeline.cli.commands import _bench_text
from profiles.schema import DeviceProfile

if TYPE_CHECKING:
    from pathlib import Path

PROTOCOL = replace(BenchProtocol.quick(), max_processes=6, budget_s=10.0)


def test_what_is_left_is_never_more_than_told() -> None:
    now, told = [100.0], []
    steps = Steps(PROTOCOL, lambda: now[0], told.append)
    for took_s in (1.0, 3.0, 2.0, 3.0):
        steps.next()
        now[0] += took_s
    assert told == [
        Step(1, 6, None),
        Step(2, 6, 5.0),
        # 6 s of the budget are left, and a process of 3 s may begin at its end.
        Step(3, 6, 9.0),
        Step(4, 6, 7.0),
    ]
    assert not steps.late
    now[0] = 110.5
    assert steps.late
    assert [str(step) for step in told[:2]] == [
        "process 1 of at most 6",
        "process 2 of at most 6, 5 s more at most",
    ]


def test_one_of_a_kind_is_one() -> None:
    assert [number_of(count, "candidate") for count in (0, 1, 2)] == [
        "0 candidates",
        "1 candidate",
        "2 candidates",
    ]
    assert number_of(2, "process", "processes") == "2 processes"


def test_what_is_sent_is_told_in_the_unit_of_the_whole() -> None:
    assert str(Sent(65_536, 11_600_000)) == "0.1 of 11.6 MB sent"
    assert str(Sent(32_768, 350_400)) == "33 of 350 kB sent"
    assert str(Sent(11_600_000, 11_600_000)) == "11.6 MB sent"


@pytest.fixture
def found(tmp_path: Path, request: pytest.FixtureRequest) -> Measurement:
    profile = DeviceProfile(f"fake {request.node.name}", transport="fake", runtime="null")
    add_board(profile, Script())
    path = tmp_path / "null.json"
    path.write_text(json.dumps({"edgewright_null": 1, "latency_ms": 5.0, "noise": 0.01}))
    told: list[Step | Sent] = []
    with Device.open(profile, on_step=told.append) as device:
        measured = device.measure(path, BenchProtocol.quick())
    assert isinstance(measured, Measurement), measured
    sent, *steps = told
    size = path.stat().st_size
    assert sent == Sent(size, size)
    assert [step.number for step in steps if isinstance(step, Step)] == [1, 2, 3]
    last = told[-1]
    assert isinstance(last, Step)
    assert last.most == 6
    assert last.left_s is not None
    return measured


def test_bench_says_what_a_suspect_figure_is_worth(found: Measurement) -> None:
    assert _bench_text.lines(found)[-1] == "verdict: valid"
    loose = replace(found, verdict="suspect", reasons=("precision",), device="pi5")
    *_, verdict, meaning = _bench_text.lines(loose)
    assert verdict == "verdict: suspect (precision)"
    assert meaning.startswith("suspect: the figure is real and looser than its protocol asks")
    assert "`edgewright device doctor pi5`" in meaning


def test_bench_speaks_plainly(found: Measurement) -> None:
    one = replace(found, process_medians_ms=(5.0,), samples_ns=(5_000_000,), before=SensorReading())
    text = "\n".join(_bench_text.lines(replace(one, after=SensorReading())))
    assert "1 sample in 1 process)" in text
    assert "temperature: no sensor\n" in text
    assert re.search(r"temperature: no sensor before, \d", "\n".join(_bench_text.lines(one)))
    coarse = replace(one, clock_step_ns=4_000_000, invokes_per_sample=85)
    (line,) = [item for item in _bench_text.lines(coarse) if item.startswith("clock")]
    assert line.endswith("steps of 4 ms, so a sample is the mean of 85 invokes")


LOG = """\
STARTING!
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 9 seconds.
count=3 first=8000 curr=8000 min=8000 max=8000 avg=8000 std=0
Running benchmark for at least 5 iterations and at least 1 seconds but terminate if exceeding 9 seconds.
count=50 first={first} curr=8000 min=8000 max={most} avg=9400 std=1900
Inference timings in us: Init: 1, First inference: 9, Warmup (avg): 8000, Inference (avg): 9400
"""  # noqa: E501  # as it is printed


def observed(latency_ms: float, first: int = 8000, most: int = 12_000) -> Observation:
    (run,) = parse_log(LOG.format(first=first, most=most))
    return Observation(0, latency_ms, "average", run, 50, latency_ms, 0.01, 1)


def summarised(found: list[Observation]) -> Measurement:
    reading = SensorReading()
    who = ("phone", "", "", None, "b" * 64, 1, (), None)
    how = (BenchProtocol.thorough(), "", reading, reading, {}, None)
    return summarise(found, ToolConditions(*who, *how), rng=Random(0))  # type: ignore[arg-type]


def test_a_tool_on_a_coarse_clock() -> None:
    coarse = [observed(9.4) for _ in range(5)]
    assert step_ms(coarse) == 4.0
    measured = summarised(coarse)
    assert measured.verdict == "suspect"
    assert "the device's clock moves in steps of 4 ms" in measured.reasons[0]
    assert measured.ci95_ms == pytest.approx((5.4, 13.4))
    fine = [observed(9.4, first=8123) for _ in range(5)]
    assert step_ms(fine) == 0.0
    assert not any("clock" in reason for reason in summarised(fine).reasons)
    # All alike may be a coarse clock, or one invoke that was told three times.
    assert step_ms([observed(8.0, most=8000)]) == 0.0


def test_processes_of_a_tool_at_two_speeds() -> None:
    figures = (9.4, 9.41, 22.5, 9.39, 22.6, 9.4)
    measured = summarised([observed(ms, first=8123) for ms in figures])
    assert measured.verdict == "suspect"
    assert any("two modes: 33% of the 6 processes take 2.40 x" in r for r in measured.reasons)
