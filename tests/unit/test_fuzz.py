"""Corrupted and hostile input ends in a result or in one clean sentence: a fixed number of cases.

More of them: `scripts/fuzz --cases 5000`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fuzz_targets import targets
from tests.fuzzing import campaign

if TYPE_CHECKING:
    from pathlib import Path

TARGETS = targets()
# An answer goes through a session, a model is run in a process of its own.
COUNTS = {"answer": 12, "inspect": 20, "run": 3}
OTHERS = 40


@pytest.mark.parametrize("name", TARGETS)
def test_corrupted_input_ends_in_a_sentence(name: str, tmp_path: Path) -> None:
    kind = name.partition("-")[0]
    count = COUNTS.get(kind, OTHERS)
    assert not campaign(name, TARGETS[name], tmp_path, count=count, seed=1)
