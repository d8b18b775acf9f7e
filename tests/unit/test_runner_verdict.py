"""Verdicts on evidence, reason by reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from device_agents.api import BenchProtocol, SensorReading
from device_agents.measure.cooling import Canary
from device_agents.measure.verdict import Evidence, judge

GOOD = Evidence(
    before=SensorReading(soc_celsius=50.0, throttled=0x50000, boot_id="a"),
    after=SensorReading(soc_celsius=55.0, throttled=0x50000, boot_id="a"),
    spread=0.002,
    half_width=0.005,
    fewest_samples=100,
    unsettled=0,
    processes=5,
    thermal_limit_celsius=75.0,
)
PROTOCOL = BenchProtocol.thorough()


def test_a_boot_that_is_told_once_only_is_no_reboot() -> None:
    once = replace(GOOD, after=replace(GOOD.after, boot_id=None))
    assert judge(once, PROTOCOL) == ("valid", ())


def test_old_sticky_flags_do_not_matter() -> None:
    assert judge(GOOD, PROTOCOL) == ("valid", ())


def test_unknown_state_is_not_bad_state() -> None:
    blind = replace(GOOD, before=SensorReading(), after=SensorReading())
    assert judge(blind, PROTOCOL) == ("valid", ())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"throttled": 0xD0000}, "0x50000 before and 0xd0000 after: soft temperature limit"),
        ({"throttled": 0x50001}, "under-voltage"),
        ({"throttled": 0x70000}, "clock capped"),
        ({"soc_celsius": 75.1}, "75.1 °C is over the limit of 75.0 °C"),
        ({"boot_id": "b"}, "rebooted"),
        ({"thermal_status": 2}, "thermal status 2 (moderate)"),
        ({"thermal_status": 5}, "thermal status 5 (emergency)"),
        ({"skin_celsius": 76.0}, "76.0 °C is over the limit of 75.0 °C"),
        ({"clock_khz": 1_469_000}, "1469 MHz, below the nominal 1500 MHz"),
    ],
)
def test_state_of_the_device_makes_it_invalid(changes: dict[str, Any], words: str) -> None:
    known = replace(GOOD, nominal_clock_khz=1_500_000)
    verdict, reasons = judge(replace(known, after=replace(GOOD.after, **changes)), PROTOCOL)
    assert verdict == "invalid"
    assert len(reasons) == 1
    assert words in reasons[0]


@pytest.mark.parametrize(
    "changes", [{"thermal_status": 1}, {"clock_khz": 1_471_000}, {"clock_khz": 1_800_000}]
)
def test_light_heat_and_a_clock_within_tolerance_do_not_matter(changes: dict[str, Any]) -> None:
    after = replace(GOOD.after, **changes)
    known = replace(GOOD, after=after, nominal_clock_khz=1_500_000)
    assert judge(known, PROTOCOL) == ("valid", ())


def test_a_slower_canary_makes_a_thorough_measurement_invalid() -> None:
    slow = replace(GOOD, canary=Canary(1.34, 1.0))
    verdict, reasons = judge(slow, PROTOCOL)
    assert verdict == "invalid"
    assert reasons == ("the device slowed down: canary 1.34 x its idle value, over 1.10 x",)
    assert judge(slow, BenchProtocol.quick())[0] == "valid"
    assert judge(replace(slow, canary=Canary(1.10, 1.0)), PROTOCOL)[0] == "valid"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"process_cv": 0.0101}, "variation over 5 processes 1.0% is over 1.0%"),
        ({"spread": 0.2}, "spread within a process 20.0%"),
        ({"half_width": 0.02}, "precision ± 2.0% is short of ± 1.0%"),
        ({"fewest_samples": 3}, "3 samples in a process are fewer than 40"),
        ({"unsettled": 2}, "did not settle within 5000 ms in 2 of 5 processes"),
    ],
)
def test_doubt_makes_it_suspect(changes: dict[str, Any], words: str) -> None:
    verdict, reasons = judge(replace(GOOD, **changes), PROTOCOL)
    assert verdict == "suspect"
    assert words in reasons[0]


def test_all_reasons_are_told_and_the_worst_decides() -> None:
    bad = replace(GOOD, spread=0.5, after=replace(GOOD.after, boot_id="b"))
    verdict, reasons = judge(bad, PROTOCOL)
    assert verdict == "invalid"
    assert len(reasons) == 2
