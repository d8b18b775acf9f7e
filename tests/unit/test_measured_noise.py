"""Whole measurements in virtual time on devices whose clock is coarse or whose cores differ."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.api import BenchProtocol, Measurement
from device_agents.fakes.board import FakeBoard, add_board
from device_agents.fakes.script import Board, Script
from device_agents.measure.sustained import Sustained
from device_agents.runner import Device
from profiles.schema import DeviceProfile

if TYPE_CHECKING:
    from pathlib import Path

    from device_agents.agent.readings import Core

QUICK, THOROUGH = BenchProtocol.quick(), BenchProtocol.thorough()


@pytest.fixture
def profile(request: pytest.FixtureRequest) -> DeviceProfile:
    return DeviceProfile(f"fake {request.node.name}", transport="fake", runtime="null")


def model(folder: Path, name: str = "model", **values: Any) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"edgewright_null": 1, "noise": 0.01, **values}))
    return path


def measured(
    profile: DeviceProfile,
    board: Board,
    path: Path,
    protocol: BenchProtocol,
    reference: Path | None = None,
) -> Measurement:
    add_board(profile, Script(board=board))
    with Device.open(profile) as device:
        found = device.measure(path, protocol, reference=reference)
    assert isinstance(found, Measurement), found
    return found


@pytest.mark.parametrize("protocol", [QUICK, THOROUGH], ids=lambda p: p.name)
@pytest.mark.parametrize("step_ms", [1.0, 4.0, 10.0])
def test_a_coarse_clock_still_tells_the_truth(
    profile: DeviceProfile, tmp_path: Path, step_ms: float, protocol: BenchProtocol
) -> None:
    found = measured(
        profile, Board(clock_step_ms=step_ms), model(tmp_path, latency_ms=5.3), protocol
    )
    assert found.verdict == "valid", found.reasons
    assert found.median_ms == pytest.approx(5.3, rel=protocol.target_half_width)
    # The step of the clock is in the interval, however alike the samples are.
    low, high = found.ci95_ms
    assert low < 5.3 < high
    share = step_ms / found.invokes_per_sample / found.median_ms
    assert (high - low) / 2 >= 0.99 * share * found.median_ms
    assert found.clock_step_ns == step_ms * 1e6
    assert Measurement.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_ratio_to_a_reference_by_a_coarse_clock(profile: DeviceProfile, tmp_path: Path) -> None:
    models = model(tmp_path, latency_ms=5.3), model(tmp_path, "reference", latency_ms=0.7)
    found = measured(profile, Board(clock_step_ms=4.0), models[0], QUICK, models[1])
    assert found.verdict == "valid", found.reasons
    assert found.ratio == pytest.approx(5.3 / 0.7, rel=0.03)
    assert found.ratio_ci95 is not None
    assert found.ratio_ci95[0] < 0.98 * found.ratio < 1.02 * found.ratio < found.ratio_ci95[1]


def test_a_clock_too_coarse_for_the_protocol_is_a_reason(
    profile: DeviceProfile, tmp_path: Path
) -> None:
    board = Board(clock_step_ms=15.625)
    found = measured(profile, board, model(tmp_path, latency_ms=5.3), QUICK)
    assert found.verdict == "suspect"
    assert found.reasons[0].startswith("the device's clock moves in steps of 15.625 ms: the figure")
    assert found.ci95_ms[0] < 5.3 < found.ci95_ms[1]


@pytest.mark.parametrize(("latency_ms", "cold"), [(0.02, 2000.0), (1.3, 20.0)])
def test_a_cold_first_invoke_does_not_mislead_a_coarse_clock(
    profile: DeviceProfile, tmp_path: Path, latency_ms: float, cold: float
) -> None:
    path = model(tmp_path, latency_ms=latency_ms, first_factor=cold)
    found = measured(profile, Board(clock_step_ms=4.0), path, QUICK)
    assert found.verdict == "valid", found.reasons
    assert found.median_ms == pytest.approx(latency_ms, rel=0.03)


def test_a_slow_model_needs_no_batches(profile: DeviceProfile, tmp_path: Path) -> None:
    found = measured(profile, Board(clock_step_ms=1.0), model(tmp_path, latency_ms=250.0), QUICK)
    assert (found.verdict, found.invokes_per_sample) == ("valid", 1)


def test_a_sustained_run_by_a_coarse_clock(profile: DeviceProfile, tmp_path: Path) -> None:
    add_board(profile, Script(board=Board(clock_step_ms=4.0)))
    with Device.open(profile) as device:
        found = device.sustain(model(tmp_path, latency_ms=5.3, noise=0.0), 30.0)
    assert isinstance(found, Sustained), found
    assert found.first_ms == pytest.approx(5.3, rel=0.015)
    assert found.ratio == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("protocol", [QUICK, THOROUGH], ids=lambda p: p.name)
def test_slow_invokes_among_others_are_two_modes(
    profile: DeviceProfile, tmp_path: Path, protocol: BenchProtocol
) -> None:
    path = model(tmp_path, latency_ms=6.0, slow_share=0.25, slow_factor=1.9)
    found = measured(profile, Board(), path, protocol)
    assert found.verdict == "suspect"
    (reason,) = [text for text in found.reasons if text.startswith("two modes")]
    told = re.search(r"of the invokes within a process take (\d\.\d\d) x as long", reason)
    assert told is not None
    assert float(told[1]) == pytest.approx(1.9, rel=0.02)


@pytest.mark.parametrize("protocol", [QUICK, THOROUGH], ids=lambda p: p.name)
def test_slow_processes_are_seen_where_the_ratio_does_not_feel_them(
    profile: DeviceProfile, tmp_path: Path, protocol: BenchProtocol
) -> None:
    slow = {"slow_process_share": 0.5, "slow_factor": 1.9}
    models = model(tmp_path, latency_ms=6.0, **slow), model(tmp_path, "r", latency_ms=4.0, **slow)
    found = measured(profile, Board(), models[0], protocol, models[1])
    assert found.ratio == pytest.approx(1.5, rel=0.01)
    assert found.verdict == "suspect"
    assert ["processes take 1.9" in reason for reason in found.reasons] == [True]
    quiet = measured(profile, Board(), model(tmp_path, latency_ms=6.0), protocol)
    assert (quiet.verdict, quiet.reasons) == ("valid", ())


def test_a_little_core_at_its_own_clock_is_not_slowed(
    profile: DeviceProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = Board(clocks_khz=(1_416_000,))
    known = replace(profile, nominal_clock_khz=2_208_000)
    path = model(tmp_path, latency_ms=6.0)
    # No other core is faster: then the clock is below what the profile promises.
    found = measured(known, little, path, QUICK)
    assert found.verdict == "invalid"
    assert "fell to 1416 MHz, below the nominal 2208 MHz" in found.reasons[0]
    monkeypatch.setattr(FakeBoard, "fastest_khz", lambda _: 2_208_000)
    found = measured(known, little, path, QUICK)
    assert found.verdict == "suspect"
    assert (
        "it ran on a core of at most 1416 MHz, not on one of the nominal 2208" in found.reasons[0]
    )
    # The core's own clock counts as well.
    slowed = FakeBoard.busiest

    def halved(board: FakeBoard, cpus: list[int]) -> Core:
        return slowed(board, cpus)._replace(clock_khz=708_000)

    monkeypatch.setattr(FakeBoard, "busiest", halved)
    found = measured(known, little, path, QUICK)
    assert found.verdict == "invalid"
    assert "fell to 708 MHz, below the core's own 1416 MHz" in found.reasons[0]
