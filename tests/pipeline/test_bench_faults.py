"""The fault campaign, small; and that it notices what it is there to notice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.agent.jobs import Answers
from device_agents.fakes.script import FAULTS
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


def test_job_done_twice_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A device that forgets its answers does its jobs again.
    monkeypatch.setattr(Answers, "read", lambda *_: None)
    assert bench_faults.main(["--quick", "--check", "--seed", "7"]) == 1
    assert "VIOLATED" in capsys.readouterr().out
