"""The fault campaign, small; and that it notices what it is there to notice."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.agent.answers import Answers
from device_agents.fakes.script import FAULTS
from pipeline.store.lease_book import LeaseBook
from scripts import bench_faults

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set here, so that what the script sets is taken back.
    monkeypatch.setenv(bench_faults.LEASES_VARIABLE, "unused")


def test_nothing_is_violated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    assert bench_faults.main(["--quick", "--check", "--seed", "7", "--json", str(file)]) == 0
    figures: dict[str, Any] = json.loads(file.read_text())
    assert set(figures["faults"]) == set(FAULTS)
    assert figures["results"] + sum(figures["failures"].values()) == 150
    assert figures["results"] > 100
    assert figures["rejoined"] > 0
    assert set(figures["violations"].values()) == {0}
    shown = capsys.readouterr().out
    assert "jobs done twice" in shown
    assert "VIOLATED" not in shown


def forgetful(*_: object) -> None:
    """Be a device that forgets its answers, and so does its jobs again."""


def careless(answers: Answers, _: str) -> Any:
    """Be a device that gives any answer it has."""
    for path in answers.folder.glob("*.json"):
        return json.loads(path.read_text())
    return None


def silent(*_: object) -> bool:
    """Be a store in which no lease is given back."""
    return True


@pytest.mark.parametrize(
    ("place", "name", "broken", "violation"),
    [
        (Answers, "read", forgetful, "jobs done twice"),
        (Answers, "read", careless, "results of another job"),
        (LeaseBook, "release", silent, "leases left over"),
    ],
)
def test_violation_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: type,
    name: str,
    broken: Any,
    violation: str,
) -> None:
    monkeypatch.setattr(place, name, broken)
    if place is LeaseBook:
        # Who waits for a device that nobody gives back would wait until the lease expires.
        monkeypatch.setattr(bench_faults, "QUICK", replace(bench_faults.QUICK, jobs=1, clients=1))
    assert bench_faults.main(["--quick", "--check", "--seed", "7"]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith(violation) and line.endswith("VIOLATED")]
