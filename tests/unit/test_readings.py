"""What the text of a sensor means: units, ranges, names, and which core worked."""

from __future__ import annotations

import pytest

from device_agents.agent.readings import Core, Zone, busiest, processor_celsius, zone_celsius


@pytest.mark.parametrize(
    ("text", "celsius"),
    [
        ("48312", 48.312),
        ("-5000", -5.0),
        ("-40000", -40.0),
        ("150000", 150.0),
        ("1200", 1.2),
        ("58", 58.0),
        ("-7\n", -7.0),
        # Tenths or thousandths: nobody can tell, and 41.7 read as 0.4 would open the cool gate.
        ("417", None),
        ("-120", None),
        ("0", None),
        ("-273150", None),
        ("-650788984", None),
        ("150001", None),
        ("2147483647", None),
        ("", None),
        ("-", None),
        ("N/A", None),
        ("48.3", None),
        ("٤٨", None),
    ],
)
def test_a_zone_is_a_plausible_temperature_or_none(text: str, celsius: float | None) -> None:
    assert zone_celsius(text) == celsius


@pytest.mark.parametrize(
    ("zones", "celsius"),
    [
        ([("GPU-therm", "61000"), ("CPU-therm", "37000")], 37.0),
        ([("AO-therm", "51000"), ("Soc-Thermal", "47000")], 47.0),
        ([("acpitz", "27800"), ("x86_pkg_temp", "63000")], 63.0),
        # Of several of the processor's own the hottest, as it is what slows it.
        ([("cpu-0-0", "41000"), ("cpu-1-3", "57000"), ("cpu-0-1", "40000")], 57.0),
        ([("soc-thermal", "70000"), ("cpu-thermal", "55000")], 55.0),
        ([("cpu-thermal", "-274000"), ("wifi", "33000")], 33.0),
        ([("battery", "29000"), ("pmic", "35000")], 29.0),
        ([("cpu-thermal", "0")], None),
        ([], None),
    ],
)
def test_the_processors_zone_goes_first(
    zones: list[tuple[str, str]], celsius: float | None
) -> None:
    assert processor_celsius(Zone(*zone) for zone in zones) == celsius


def test_a_zone_that_is_switched_off_counts_only_alone() -> None:
    off = Zone("cpu-thermal", "80000", "disabled")
    assert processor_celsius([off, Zone("cpu1-thermal", "45000", "enabled")]) == 45.0
    assert processor_celsius([off]) == 80.0


def test_without_maxima_the_fastest_core_worked() -> None:
    cores = [Core(0, 600_000, None), Core(1, 1_200_000, None), Core(2, None, 1_500_000)]
    assert busiest(cores) == cores[1]
    assert busiest(cores[2:]) is None
