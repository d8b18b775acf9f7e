"""What happens in a run, told to whoever listens: the command line shows it.

A room of the pipeline says how far it has come through `Events` and knows nothing of terminals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pipeline.store.result import CandidateRow


class Progress(Protocol):
    """Work of a known size, in progress."""

    def advance(self, words: str = "") -> None:
        """Count one more done; `words` say what, behind the count."""

    def part(self, index: int, done: int) -> None:
        """Say how many are done of part `index`; the task has done the sum over all parts."""

    def update(self, done: int, words: str = "") -> None:
        """Say how many are done."""


class Events(Protocol):
    """Is told what happens, in order. May be told from several threads."""

    def say(self, sentence: str) -> None:
        """Hear a sentence for whoever runs this."""

    def candidate(self, row: CandidateRow) -> None:
        """Hear of a candidate of a search."""

    def task(self, title: str, total: int) -> AbstractContextManager[Progress]:
        """Hear that work of `total` parts begins; it is in progress while the block runs."""
