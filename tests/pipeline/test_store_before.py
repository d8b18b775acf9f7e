"""A store of edgewright 0.1.0: `edgewright run` goes on with the run that was killed then."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.runner import Device
from pipeline.store import Store
from profiles.registry import load_device
from tests.old_store import FINISHED, INTERRUPTED, RECIPE, put_old_store
from tests.pipeline.test_run import command, device_of_its_own, done_by

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Return a folder with a device `board` and the old store, as if it had been made there."""
    with device_of_its_own(tmp_path) as folder:
        with Device.open(load_device("board")) as device:
            put_old_store(folder / "store", device_digest=device.digest)
        yield folder


def run(place: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(place, "--verbose", *args, recipe=RECIPE),
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def steps(place: Path) -> list[tuple[str, str, dict[str, Any], Any]]:
    """Return key, kind, inputs and result of every step but checkpoints."""
    with closing(sqlite3.connect(place / "store" / "store.db")) as database:
        query = "select key, kind, inputs, result from steps where parent is null"
        return [
            (key, kind, json.loads(inputs), result)
            for key, kind, inputs, result in database.execute(query)
        ]


def subject(kind: str, inputs: dict[str, Any], *without: str) -> str:
    """Return what a step is of, without what says by which version it was done."""
    left_out = ("edgewright", "step", *without)
    return json.dumps([kind, {k: v for k, v in sorted(inputs.items()) if k not in left_out}])


def test_an_interrupted_run_goes_on_and_repeats_nothing(place: Path) -> None:
    before = steps(place)
    old = Counter(kind for _, kind, _, _ in before)
    ended = run(place, *INTERRUPTED)
    assert ended.returncode == 0, ended.stderr
    assert "run small-2 on board" in ended.stderr
    done = done_by(ended.stderr)
    # What a whole run of this recipe does, less what was done before it was killed.
    assert done["proxy"] == 0
    assert done["train"] == 1  # the baseline's, from its last epoch but one
    assert done["export"] == 3  # one of the winner's and both of the baseline's
    assert done["device-classes"] == 4
    after = steps(place)
    assert Counter(kind for _, kind, _, _ in after) == old + done
    results = {key: result for key, _, _, result in after}
    assert len(results) == len(after), "a step has a second generation"
    found = {subject(kind, inputs): result for _, kind, inputs, result in after}
    assert all(found[subject(kind, inputs)] == result for _, kind, inputs, result in before)
    # No candidate was measured again, beside another reference, say.
    first, last = (
        Counter(subject(kind, inputs, "reference") for _, kind, inputs, _ in rows)
        for rows in (before, after)
    )
    searched = [asked for asked in first if '"run": "small-2"' in asked]
    assert len(searched) == 8  # the reference, four candidates, three finalists
    assert all(first[asked] == last[asked] for asked in searched)
    with Store.open(place / "store") as store:
        assert store.result().run_id == "small-2"
        assert [found.id for found in store.runs()] == ["small-1", "small-2"]
    with closing(sqlite3.connect(place / "store" / "store.db")) as database:
        left = database.execute("select count(*) from steps where parent is not null").fetchone()
    assert left == (0,), "the checkpoint of the unfinished training was not found"

    again = run(place, *FINISHED)
    assert again.returncode == 0, again.stderr
    assert "run small-1 on board" in again.stderr
    # Ops are measured beside the reference since then, by a protocol of their own.
    assert done_by(again.stderr) == {"measure": 12}
    new = [inputs for key, _, inputs, _ in steps(place) if key not in results]
    assert {inputs["protocol"]["name"] for inputs in new} == {"op"}
