"""What every test has: a deadline, a cache and a configuration of its own, and no silent skips."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests import lab

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE_S = 120
SLOW_DEADLINE_S = 1500


@pytest.fixture(autouse=True)
def _deadline(request: pytest.FixtureRequest) -> Iterator[None]:
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    """In CI everything a test needs is installed: a skip there is a failure.

    Published data are not installed but lie beside the checkout, or do not: those tests may skip.
    """
    report = yield
    published = "published" in item.path.parts
    if report.skipped and os.environ.get("CI") and not published:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr} ({item.nodeid}, {call.when})"
    return report
