"""Sustained runs: their arithmetic, on a simulated board that heats up, and on this machine."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.agent import clock
from device_agents.agent.jobs import sustain
from device_agents.agent.timing import Batch
from device_agents.agent.wire import Refused
from device_agents.api import BenchProtocol, Failure, Measurement
from device_agents.errors import ConfigError
from device_agents.measure.sustained import (
    Interval,
    Sustained,
    interval_s,
    last_median_ms,
    slope_per_minute,
)
from device_agents.runner import Device
from profiles.schema import DeviceProfile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Heats to 100 °C within minutes of work, and has one step of clock to lose at 80 °C.
HOT_BOARD = """\
[board]
clocks_khz = [1500000, 750000]
[thermal]
ambient_celsius = 40.0
heat_celsius_per_s = 1.0
cooling_per_s = 0.0166
throttle_celsius = 80.0
recover_celsius = 60.0
"""


@pytest.fixture
def null_model(tmp_path: Path) -> Path:
    path = tmp_path / "null.json"
    path.write_text('{"edgewright_null": 1, "latency_ms": 5.0}')
    return path


@pytest.fixture
def board(tmp_path: Path) -> Callable[..., DeviceProfile]:
    script = tmp_path / "board.toml"
    script.write_text(HOT_BOARD)

    def make(**changes: Any) -> DeviceProfile:
        values = {"transport": "fake", "address": str(script), "runtime": "null"}
        return DeviceProfile(**{"name": "hot", **values, **changes})

    return make


def sustained(result: Sustained | Failure) -> Sustained:
    assert isinstance(result, Sustained), result
    return result


def stretch(start_s: float, ms: float) -> Interval:
    return Interval(start_s, 10.0, 100, ms, (round(ms * 1e6),) * 3)


@pytest.mark.parametrize(
    ("duration_s", "each_s"), [(2.0, 1.0), (60.0, 1.0), (600.0, 10.0), (6 * 3600.0, 60.0)]
)
def test_an_interval_is_a_sixtieth_within_bounds(duration_s: float, each_s: float) -> None:
    assert interval_s(duration_s) == each_s


class Standing(clock.Clock):
    """A clock that no work moves on."""

    def now_ns(self) -> int:
        """Return what it always shows."""
        return 5

    def spend(self, duration_ns: int) -> None:
        """Return at once: the real one would wait for this clock."""


def test_a_clock_that_stands_still_is_no_fault_of_the_runtime(
    null_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "disable", lambda: None)  # of the tests' own process
    args = {
        "path": str(null_model),
        "runtime": "null",
        "threads": 1,
        "cpus": [],
        "seed": 0,
        "shapes": {},
        "parts": [],
        "inputs": [],
        "trip_celsius": None,
        "duration_ns": 10**9,
        "interval_ns": 10**8,
    }
    with clock.use(Standing()), pytest.raises(Refused) as caught:
        sustain.work(args, lambda _: None)
    assert str(caught.value) == "the device's clock stands still; it cannot time a model"
    null_model.write_text('{"edgewright_null": 1, "fail_at": 0}')
    with pytest.raises(Refused, match="the runtime failed to run the model: "):
        sustain.work(args, lambda _: None)


def test_last_minute_and_slope_of_known_intervals() -> None:
    # One percent of the first interval more with every minute.
    intervals = [stretch(10.0 * n, 5.0 * (1 + 0.01 * n / 6)) for n in range(60)]
    assert slope_per_minute(intervals) == pytest.approx(0.01)
    last = [item.median_ms for item in intervals[-6:]]
    assert last_median_ms(intervals, 600.0) == pytest.approx((last[2] + last[3]) / 2)
    # Of a short run the last quarter.
    assert last_median_ms(intervals[:4], 40.0) == pytest.approx(intervals[3].median_ms)
    assert last_median_ms(intervals[:1], 10.0) == pytest.approx(5.0)


def test_samples_are_bounded_and_evenly_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    class Steps:
        """Every reading is one nanosecond later, so an invoke takes one."""

        now = 0

        def now_ns(self) -> int:
            self.now += 1
            return self.now

    steps = Steps()
    monkeypatch.setattr(sustain.clock, "current", lambda: steps)
    monkeypatch.setattr(sustain, "_KEPT", 8)
    ran = []
    count, kept = sustain._until(Batch(lambda: ran.append(None), 1), 200)
    assert count == len(ran) == 100
    assert 4 <= len(kept) <= 8
    assert set(kept) == {1}


def test_heat_shows_in_virtual_time(board: Callable[..., DeviceProfile], null_model: Path) -> None:
    with Device.open(board()) as device:
        found = sustained(device.sustain(null_model, 600.0))
    assert (found.asked_s, found.stopped, len(found.intervals)) == (600.0, False, 60)
    assert found.first_ms == pytest.approx(5.0, rel=0.01)
    assert found.ratio == pytest.approx(2.0, rel=0.02)
    # Steady before and after one step down of the clock: that is in the ratio, it is no drift.
    assert found.slope_per_minute == pytest.approx(0.0, abs=0.001)
    assert found.intervals[0].clock_khz == 1_500_000
    assert found.intervals[-1].clock_khz == 750_000
    assert found.intervals[-1].throttled
    assert Sustained.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_trip_value_ends_the_run(board: Callable[..., DeviceProfile], null_model: Path) -> None:
    with Device.open(board(thermal_limit_celsius=60.0)) as device:
        found = sustained(device.sustain(null_model, 600.0))
    assert found.stopped
    assert found.ran_s < 100
    *earlier, last = [item.soc_celsius for item in found.intervals]
    assert last is not None
    assert last > 60.0
    assert all(celsius is not None and celsius <= 60.0 for celsius in earlier)


def test_a_measurement_waits_for_a_board_to_cool(
    board: Callable[..., DeviceProfile], null_model: Path
) -> None:
    with Device.open(board(cool_celsius=45.0)) as device:
        sustained(device.sustain(null_model, 120.0))
        hot = device.sensors().soc_celsius
        assert hot is not None
        assert hot > 70
        refused = device.measure(null_model, BenchProtocol.quick())
        assert isinstance(refused, Failure)
        assert (refused.kind, refused.retryable) == ("not_cool", True)
        assert "is over 45.0 °C after 30 s of waiting" in refused.reason
        found = device.measure(null_model, replace(BenchProtocol.quick(), cool_deadline_s=600.0))
    assert isinstance(found, Measurement)
    assert found.before.soc_celsius is not None
    assert found.before.soc_celsius <= 45.0


def test_a_board_that_slows_down_fails_its_canary(
    board: Callable[..., DeviceProfile], null_model: Path
) -> None:
    thorough = replace(BenchProtocol.thorough(), budget_s=1.0)
    with Device.open(board(nominal_clock_khz=1_500_000)) as device:
        cool = device.measure(null_model, thorough)
        assert isinstance(cool, Measurement)
        assert cool.canary_ms == (cool.canary_idle_ms, cool.canary_idle_ms)
        assert cool.verdict == "valid"
        sustained(device.sustain(null_model, 300.0))
        slow = device.measure(null_model, replace(BenchProtocol.quick(), canary_limit=2.5))
        assert isinstance(slow, Measurement)
        assert any("below the nominal 1500 MHz" in reason for reason in slow.reasons)
        refused = device.measure(null_model, replace(thorough, cool_deadline_s=5.0))
    assert isinstance(refused, Failure)
    assert refused.kind == "not_cool"
    assert "canary took 2.00 x its best time" in refused.reason


def test_two_seconds_on_this_machine(local: Callable[..., DeviceProfile], null_model: Path) -> None:
    with Device.open(local(runtime="null")) as device:
        found = sustained(device.sustain(null_model, 2.0))
    assert len(found.intervals) == 2
    assert found.first_ms >= 5.0
    assert found.ran_s >= 2.0
    assert sum(item.invokes for item in found.intervals) <= 400


@pytest.mark.parametrize("duration_s", [0.0, -1.0, 6 * 3600 + 1.0])
def test_impossible_durations(
    board: Callable[..., DeviceProfile], null_model: Path, duration_s: float
) -> None:
    with Device.open(board()) as device, pytest.raises(ConfigError, match="at most 6 h"):
        device.sustain(null_model, duration_s)
