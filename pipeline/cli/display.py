"""Progress on the terminal: a bar for whatever takes more than a moment, lines where no bar can be.

On a terminal Rich draws the bars; in a log file or a pipe a line is printed at every quarter of a
task instead, so that a nightly log stays short and still shows where time went.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from device_agents.plain_text import plain
from pipeline.cli.terminal import CleanConsole, brief, words_column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.store.result import CandidateRow


@dataclass(slots=True)
class Bar:
    """One bar. `advance` counts; `note` shows a few words behind the bar."""

    title: str
    total: int
    display: Display
    started_s: float
    bar: TaskID | None = None
    done: int = 0
    words: str = ""
    quarter: int = 0
    parts: dict[int, int] = field(default_factory=dict)

    def advance(self, words: str = "") -> None:
        """Count one more done."""
        self.update(self.done + 1, words)

    def part(self, index: int, done: int) -> None:
        """Say how many are done of part `index`; the bar shows the sum over all parts."""
        self.parts[index] = done
        self.update(sum(self.parts.values()))

    def update(self, done: int, words: str = "") -> None:
        """Say how many are done."""
        self.done = done
        self.words = words or self.words
        self.display.show(self)


@dataclass(slots=True)
class Display:
    """Where progress is shown. Use as a context manager around the whole command.

    `panel` is drawn above the bars on a terminal, nowhere else.
    """

    console: Console = field(default_factory=lambda: CleanConsole(stderr=True))
    clock: Callable[[], float] = time.monotonic
    panel: RenderableType = ""
    _bars: Progress | None = None
    _live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bars = Progress(
                SpinnerColumn(),
                words_column("{task.description:<34}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                words_column("left"),
                TimeRemainingColumn(compact=True),
                words_column("{task.fields[words]}", style="dim"),
                console=self.console,
            )
            self._live = Live(console=self.console, get_renderable=self._drawn, transient=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = self._bars = None

    def _drawn(self) -> RenderableType:
        bars = self._bars or ""
        return Group(self.panel, bars) if self.panel else bars

    def say(self, sentence: str) -> None:
        """Print one line above the bars."""
        self.console.print(plain(sentence), highlight=False, markup=False, soft_wrap=True)

    def candidate(self, row: CandidateRow) -> None:
        """Take note of a candidate of a search; a bar says enough of it here."""

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Bar]:
        """Show a bar while the block runs."""
        task = Bar(title, total, self, self.clock())
        if self._bars is not None:
            task.bar = self._bars.add_task(str(brief(title)), total=total, words="")
        yield task
        if self._bars is None:
            seconds = self.clock() - task.started_s
            words = f" · {task.words}" if task.words else ""
            self.say(f"{title}: {task.done}/{total} in {seconds:.1f} s{words}")

    def show(self, task: Bar) -> None:
        """Draw a task's state."""
        if self._bars is not None and task.bar is not None:
            self._bars.update(task.bar, completed=task.done, words=str(brief(task.words)))
            return
        quarter = 4 * task.done // max(1, task.total)
        if task.quarter < quarter < 4:
            task.quarter = quarter
            words = f" · {task.words}" if task.words else ""
            left_s = (self.clock() - task.started_s) / task.done * (task.total - task.done)
            self.say(
                f"{task.title}: {task.done}/{task.total}, about {duration(left_s)} left{words}"
            )


def duration(seconds: float) -> str:
    """Return a time as people say it: 12 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
