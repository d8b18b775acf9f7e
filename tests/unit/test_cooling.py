"""The gate before a measurement, on readings that change while a virtual clock passes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from device_agents.api import BenchProtocol, SensorReading
from device_agents.errors import AgentError
from device_agents.measure.cooling import Canary, Gate, canary_after, wait_until_cool

HOT, COOL = SensorReading(soc_celsius=71.25), SensorReading(soc_celsius=54.9)
SLOW, FAST = Canary(1.34, 1.0), Canary(1.05, 1.0)
QUICK, THOROUGH = BenchProtocol.quick(), BenchProtocol.thorough()


class Device:
    """Gives its readings and canaries one after the other, the last ones for ever."""

    def __init__(self, *readings: SensorReading, canaries: tuple[Canary | None, ...] = ()) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.read = 0
        self.sung = 0
        self._readings = readings
        self._canaries = canaries

    def gate(self, limit: float | None = 55.0) -> Gate:
        def reading() -> SensorReading:
            self.read += 1
            return self._readings[min(self.read, len(self._readings)) - 1]

        return Gate("pi", limit, reading, self.canary)

    def canary(self) -> Canary | None:
        self.sung += 1
        return self._canaries[min(self.sung, len(self._canaries)) - 1]

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


def test_cool_device_costs_one_reading_in_quick() -> None:
    device = Device(COOL)
    ready = wait_until_cool(device.gate(), QUICK, pause=device.pause, clock=device.clock)
    assert (ready.reading, ready.canary, ready.waited_s) == (COOL, None, 0.0)
    assert (device.read, device.sung, device.pauses) == (1, 0, [])


def test_waits_until_it_is_cool() -> None:
    device = Device(HOT, HOT, HOT, COOL)
    ready = wait_until_cool(device.gate(), QUICK, pause=device.pause, clock=device.clock)
    assert ready.reading == COOL
    assert ready.waited_s == sum(device.pauses) > 0
    assert device.read == 4


def test_too_hot_until_the_deadline_is_a_retryable_refusal_with_figures() -> None:
    device = Device(HOT)
    with pytest.raises(AgentError) as caught:
        wait_until_cool(device.gate(), QUICK, pause=device.pause, clock=device.clock)
    assert (caught.value.kind, caught.value.retryable) == ("not_cool", True)
    assert "device 'pi' is not ready: 71.2 °C is over 55.0 °C after 30 s" in str(caught.value)
    assert "cool it" in str(caught.value)
    assert sum(device.pauses) == pytest.approx(QUICK.cool_deadline_s)


def test_a_clock_that_loses_fractions_does_not_hold_it_for_ever() -> None:
    device = Device(HOT)

    def coarse(seconds: float) -> None:
        assert len(device.pauses) < 100
        device.pauses.append(seconds)
        device.now += int(seconds * 1e6) / 1e6

    protocol = replace(QUICK, cool_deadline_s=2.3000000001)
    with pytest.raises(AgentError, match="not ready"):
        wait_until_cool(device.gate(), protocol, pause=coarse, clock=device.clock)


def test_slow_canary_holds_a_thorough_measurement_back() -> None:
    device = Device(COOL, canaries=(SLOW, SLOW, FAST))
    ready = wait_until_cool(device.gate(), THOROUGH, pause=device.pause, clock=device.clock)
    assert ready.canary == FAST
    assert device.sung == 3
    device = Device(COOL, canaries=(SLOW,))
    with pytest.raises(AgentError, match=r"1\.34 x its best time, over 1\.10 x after 600 s"):
        wait_until_cool(device.gate(), THOROUGH, pause=device.pause, clock=device.clock)


def test_canary_is_not_run_on_a_hot_device() -> None:
    device = Device(HOT, COOL, canaries=(FAST,))
    wait_until_cool(device.gate(), THOROUGH, pause=device.pause, clock=device.clock)
    assert (device.read, device.sung) == (2, 1)


@pytest.mark.parametrize(("reading", "limit"), [(SensorReading(), 55.0), (HOT, None), (COOL, 54.9)])
def test_ready_when_nothing_is_known_or_asked(reading: SensorReading, limit: float | None) -> None:
    device = Device(reading, canaries=(None,))
    ready = wait_until_cool(device.gate(limit), THOROUGH, pause=device.pause, clock=device.clock)
    assert (ready.reading, ready.canary, device.pauses) == (reading, None, [])


def test_a_phone_is_as_hot_as_its_skin() -> None:
    phone = replace(HOT, skin_celsius=36.0)
    device = Device(phone)
    ready = wait_until_cool(device.gate(37.0), QUICK, pause=device.pause, clock=device.clock)
    assert ready.reading.governing_celsius == 36.0


def test_canary_after_a_run_is_tried_again_before_it_is_believed() -> None:
    device = Device(canaries=(SLOW, Canary(1.2, 1.0), FAST, SLOW))
    assert canary_after(device.canary, 1.10, pause=device.pause) == FAST
    assert device.sung == 3
    device = Device(canaries=(SLOW, Canary(1.2, 1.0), SLOW))
    assert canary_after(device.canary, 1.10, pause=device.pause) == Canary(1.2, 1.0)
    assert device.sung == 5
    device = Device(canaries=(FAST,))
    assert canary_after(device.canary, 1.10, pause=device.pause) == FAST
    assert (device.sung, device.pauses) == (1, [])
