"""What is printed of chains that were chosen: scores in the unit of their task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.cli.commands._choice_text import Told, say
from pipeline.compress.choosing import Chain, Choice, Figures, Goal, Tried
from pipeline.compress.trials import Trial, Trials
from pipeline.data.tasks.classification import Classification
from pipeline.data.tasks.regression import Regression

if TYPE_CHECKING:
    from pipeline.data.task import Task


@pytest.mark.parametrize(
    ("task", "score", "shown"),
    [(Classification(), 0.875, "87.50%"), (Regression(), -1.25, "1.25"), (None, None, "")],
)
def test_a_score_has_the_unit_of_its_task(
    task: Task | None,
    score: float | None,
    shown: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    figures = Figures(3.0, (2.9, 3.1), "valid", 1000, 0.0, score)
    came = Tried(Chain((), "what all others are held against"), figures)
    found = Trials(Goal(None, None), (Trial(came),), (), Choice(came, "it is the only one"))
    told = Told("net.npz", found, "here", task, 64, generated=False, file=Path("net.npz"))
    say(told, as_json=False)
    head, row = [
        line for line in capsys.readouterr().out.splitlines() if "chain" in line or "│" in line
    ]
    assert ("" if task is None else task.metric) in head
    cells = [one.strip() for one in row.strip("│").split("│")]
    assert len(cells) == (7 if task is None else 8)
    assert task is None or cells[-1] == shown
