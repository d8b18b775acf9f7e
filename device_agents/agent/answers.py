"""The answers that a host may still ask for, one file each: jobs/<id>.json, whole.

A host whose link is lost makes the same call with the same id again (turns.py).
"""

import contextlib
import re
from pathlib import Path
from typing import Optional

from . import store
from .children import Answer
from .wire import Refused

_ID = re.compile(r"[0-9a-f]{8,64}")
# By number, not by age: a board without a clock of its own jumps by years when it finds the time.
_KEPT_ANSWERS = 32


class Answers:
    """The answers that a host may still ask for, one file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._delivered = ""

    def path(self, job_id: str) -> Path:
        """Return the file for an id; raises Refused for anything else, since it names a file."""
        if not _ID.fullmatch(job_id):
            raise Refused("bad_request", "id = %.100r is not 8 to 64 hex digits" % job_id)
        return self.folder / (job_id + ".json")

    def begin(self, job_id: str) -> None:
        """Remove the answer before this one: its host calls again, so it has arrived."""
        if self._delivered not in ("", job_id):
            with contextlib.suppress(OSError):
                self.path(self._delivered).unlink()
        self._delivered = job_id

    def read(self, job_id: str) -> Optional[Answer]:
        """Return the answer; None without one, or when a power cut left only half of it."""
        answer = store.read_json(self.path(job_id))
        return answer if isinstance(answer, dict) else None

    def write(self, job_id: str, answer: Answer) -> None:
        """Write an answer whole or, on a full disk, not at all: then it goes by the pipe alone."""
        path = self.path(job_id)
        try:
            store.write_json(path, answer)
        except OSError:
            with contextlib.suppress(OSError):
                path.with_name(path.name + ".part").unlink()
        self._sweep(path)

    def _sweep(self, newest: Path) -> None:
        # The newest by name, too: after such a jump its time may be the oldest.
        found = []
        for path in self.folder.glob("*.json*"):
            with contextlib.suppress(OSError):
                if path != newest:
                    found.append((path.stat().st_mtime, path))
        for _, path in sorted(found)[: 1 - _KEPT_ANSWERS]:
            with contextlib.suppress(OSError):
                path.unlink()
