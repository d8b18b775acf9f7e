"""What every test has: a deadline, a cache and a configuration of its own, and no silent skips."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests import lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE_S = 120
SLOW_DEADLINE_S = 2400

# Test files run side by side: threads that wait for each other in turns would cost as much
# processor time as they save. Set before anything imports torch; processes of the tests inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what runs in its background with SIGINT ignored, and processes of the tests would
# inherit that: tests that interrupt them would wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On a busy machine drawing is slow, which is no fault of what is drawn.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


_SPENT_S = pytest.StashKey[float]()
_COST_S: dict[str, float] = {}
"""Seconds of processor time by test file."""


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold the right to run, beside other tests or, with `alone`, beside none.

    Who waits to be alone holds the gate meanwhile, so that others cannot go on and on before it.
    """
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    with (folder / "gate").open("w") as gate, (folder / "running").open("w") as running:
        fcntl.flock(gate, kind)
        fcntl.flock(running, kind)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@pytest.fixture(autouse=True)
def _turn(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Let tests marked `alone` time things while no other process runs a test."""
    # Each process of pytest-xdist has a folder of its own in the one that they share.
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    alone = request.node.get_closest_marker("alone") is not None
    with turn(tmp_path_factory.getbasetemp().parent, alone=alone):
        yield


@pytest.fixture(autouse=True)
def _deadline(request: pytest.FixtureRequest, _turn: None) -> Iterator[None]:
    slow = request.node.get_closest_marker("slow") is not None
    with lab.deadline(SLOW_DEADLINE_S if slow else DEADLINE_S):
        yield


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("XDG_CACHE_HOME", str(base / "cache"))
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(base / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(base / "state"))
    monkeypatch.delenv("EDGEWRIGHT_STORE", raising=False)
    monkeypatch.delenv("EDGEWRIGHT_LEASES", raising=False)


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Compute on one thread: networks this small only wait for each other on more."""
    import torch

    from pipeline.train.loop import use_threads

    before = torch.get_num_threads()
    use_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with slow tests first, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def _processor_s() -> float:
    """Return what this process and those it has waited for have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    """In CI everything a test needs is installed: a skip there is a failure.

    Published data are not installed but lie beside the checkout, or do not: those tests may skip.
    """
    report = yield
    before_s = item.config.stash.get(_SPENT_S, 0.0)
    item.config.stash[_SPENT_S] = _processor_s()
    # On the report, because that is what a process of pytest-xdist sends home.
    report.processor_s = item.config.stash[_SPENT_S] - before_s  # type: ignore[attr-defined]
    published = "published" in item.path.parts
    if report.skipped and os.environ.get("CI") and not published:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr} ({item.nodeid}, {call.when})"
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what each file cost; what several share is counted for the one that came first."""
    path = report.nodeid.partition("::")[0]
    _COST_S[path] = _COST_S.get(path, 0.0) + getattr(report, "processor_s", 0.0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the suite costs, all its processes together."""
    terminalreporter.write_line(f"processor time: {_processor_s() / 60:.1f} min; by file:")
    for path, spent_s in sorted(_COST_S.items(), key=lambda item: -item[1])[:25]:
        terminalreporter.write_line(f"{spent_s:7.1f} s  {path}")
