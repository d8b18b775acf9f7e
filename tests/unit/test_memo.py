"""What was done once: found again, done anew under another version, and how long it took."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.errors import StoreError
from pipeline.store import Store
from pipeline.store.memo import Memo, StepKind
from pipeline.store.records import Step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KIND = StepKind("count")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


def done(memo: Memo, kind: StepKind = KIND, **inputs: Any) -> tuple[Any, int]:
    """Do a step; return its result and how often work was done for it."""
    calls: list[int] = []

    def work() -> tuple[dict[str, int], dict[str, str]]:
        calls.append(1)
        return {"version": kind.version}, {}

    return memo.once(kind, inputs, work).result, len(calls)


def test_a_step_is_done_once_for_its_inputs_and_its_version(store: Store) -> None:
    first = Memo(store)
    assert done(first, a=1) == ({"version": 1}, 1)
    assert done(first, a=1) == ({"version": 1}, 0)
    assert done(first, a=2) == ({"version": 1}, 1)
    later = Memo(store)
    assert done(later, a=1) == ({"version": 1}, 0)
    assert later.remembers(KIND, {"a": 1})
    raised = StepKind("count", version=2)
    assert not later.remembers(raised, {"a": 1})
    assert done(later, raised, a=1) == ({"version": 2}, 1)
    assert len(later.steps) == 2


def test_nothing_is_done_where_the_run_is_anothers_now(store: Store) -> None:
    def refuse() -> None:
        raise StoreError("the run is another's")

    done(Memo(store), a=1)
    held = Memo(store, check=refuse)
    assert done(held, a=1) == ({"version": 1}, 0), "what is known may still be read"
    with pytest.raises(StoreError, match="another's"):
        done(held, a=2)


def step(end_s: float, wall_s: float) -> Step:
    """Return a step that ended so many seconds after the run began."""
    at = datetime.fromtimestamp(1_000_000_000 + end_s, UTC).isoformat()
    return Step(f"{end_s}", "count", {}, {}, {}, at, wall_s)


@pytest.mark.parametrize(
    ("steps", "worked_s"),
    [
        ([], 0.0),
        ([(10, 4), (20, 5)], 9.0),  # the break between them is no work
        ([(10, 8), (12, 8)], 10.0),  # two at once, from second 2 to second 12
        ([(30, 29), (12, 8)], 29.0),  # one within the other, told later
        ([(-5, 100), (10, 4)], 4.0),  # of an earlier run of the same store
    ],
)
def test_time_worked_is_that_of_the_runs_steps_with_overlaps_once(
    store: Store, steps: list[tuple[float, float]], worked_s: float
) -> None:
    memo = Memo(store, steps=[step(*figures) for figures in steps])
    began = datetime.fromtimestamp(1_000_000_000, UTC).isoformat()
    assert memo.worked_s(began) == pytest.approx(worked_s)
