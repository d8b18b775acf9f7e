"""Progress in a log, where lines must stay few, and on a terminal, where bars are drawn."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from pipeline.cli.display import Display, duration


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def log(total: int, updates: list[tuple[int, str]], seconds: float = 0.0) -> list[str]:
    """Return the lines that a pipe gets from one task; each update takes `seconds`."""
    out, clock = StringIO(), Clock()
    with Display(Console(file=out), clock) as display, display.task("train", total) as task:
        for done, words in updates:
            clock.now_s += seconds
            task.update(done, words)
    return out.getvalue().splitlines()


def test_a_pipe_gets_a_line_at_each_quarter_and_one_at_the_end() -> None:
    assert log(100, [(n, "") for n in range(1, 101)], seconds=2.5) == [
        "train: 25/100, about 3 min 8 s left",
        "train: 50/100, about 2 min 5 s left",
        "train: 75/100, about 1 min 2 s left",
        "train: 100/100 in 250.0 s",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (7501, "2 h 5 min")]
)
def test_a_duration_is_said_in_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_step_over_several_quarters_is_one_line() -> None:
    assert log(8, [(5, ""), (5, ""), (8, "")]) == [
        "train: 5/8, about 0 s left",
        "train: 8/8 in 0.0 s",
    ]


def test_the_last_words_stay_until_others_come() -> None:
    assert log(4, [(1, "best 0.91"), (2, ""), (3, "best 0.93")]) == [
        "train: 1/4, about 0 s left · best 0.91",
        "train: 2/4, about 0 s left · best 0.91",
        "train: 3/4, about 0 s left · best 0.93",
        "train: 3/4 in 0.0 s · best 0.93",
    ]


def test_a_task_without_parts_is_its_last_line() -> None:
    assert log(0, []) == ["train: 0/0 in 0.0 s"]


def fail_after_one(display: Display) -> None:
    with display.task("train", 4) as task:
        task.advance()
        raise ValueError("broken")


def test_a_task_that_fails_is_not_said_to_be_done() -> None:
    out = StringIO()
    with Display(Console(file=out)) as display, pytest.raises(ValueError, match="broken"):
        fail_after_one(display)
    assert out.getvalue() == "train: 1/4, about 0 s left\n"


def test_advance_counts_and_parts_are_summed() -> None:
    display = Display(Console(file=StringIO()))
    with display.task("search", 3) as task:
        task.advance("first")
        task.advance()
    assert (task.done, task.words) == (2, "first")
    with display.task("train", 20) as task:
        task.part(0, 4)
        task.part(1, 3)
        task.part(0, 5)
        task.part(0, 5)
    assert task.done == 8


def test_a_long_sentence_with_brackets_is_one_line_as_it_is() -> None:
    out = StringIO()
    sentence = "candidate [3] of /a/path " + "word " * 60 + "[bold]end"
    Display(Console(file=out, width=40)).say(sentence)
    assert out.getvalue() == sentence + "\n"


def test_a_terminal_gets_a_bar_and_no_lines() -> None:
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=120, color_system=None)
    with Display(console) as display:
        with display.task("train 2 finalists", 4) as task:
            for number in range(3):
                task.advance(f"epoch {number}")
        display.say("a candidate is dropped")
        with display.task("measure", 2) as task:
            task.advance()
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", out.getvalue())
    rows = [" ".join(row.split()) for row in drawn.splitlines()]
    assert "a candidate is dropped" in rows
    bars = [row for row in rows if "train 2 finalists" in row]
    assert "3/4" in bars[-1]
    assert bars[-1].endswith("epoch 2")
    assert any("measure" in row and "1/2" in row for row in rows)
    assert not any(row.startswith("train 2 finalists:") for row in rows)
    assert drawn.count("\x1b") == 0


def test_after_the_bars_lines_are_printed_again() -> None:
    out = StringIO()
    display = Display(Console(file=out, force_terminal=True, width=120, color_system=None))
    with display:
        pass
    before = len(out.getvalue())
    with display.task("late", 1) as task:
        task.advance()
    assert out.getvalue()[before:].startswith("late: 1/1 in ")
