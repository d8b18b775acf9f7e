"""What can go wrong with the store, in sentences for the user."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import exc

from device_agents.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SENTENCES = {
    "locked": "is locked by another process that did not let go in time; run the command again "
    "when that process has finished",
    "busy": "is busy with another process; run the command again",
    "disk is full": "cannot grow because the disk is full; free some space and run the command "
    "again (what was stored is intact)",
    "readonly": "is read-only here; make it writable or choose another with --store",
    "not a database": "is not an edgewright store (not a database); move it away or choose another "
    "with --store",
    "malformed": "is damaged; move it away (its artifacts can stay) and run the command again",
    "unable to open": "cannot be opened: missing, a folder, or not permitted; choose another with "
    "--store",
    "disk i/o error": "cannot be read or written (disk error, or a size limit was reached); check "
    "the disk and run the command again",
}


# What SQLite says of a lock, and PostgreSQL's codes of a server that goes, comes or is full.
_BUSY_WORDS = ("locked", "busy")
_BUSY_CODES = ("08", "57P", "53300")


class StoreBusy(StoreError):
    """The store cannot be used now: it is locked, or its server is gone. Later it may be."""


@contextmanager
def translate_errors(place: str, chosen_by: str = "--store") -> Iterator[None]:
    """Raise what the database says as a StoreError of one sentence about `place`.

    `chosen_by` is what the user sets to have it elsewhere.
    """
    try:
        yield
    except exc.SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        kind = StoreBusy if _passes(cause) else StoreError
        raise kind(_sentence(place, cause, chosen_by)) from error
    except sqlite3.Error as error:
        raise StoreError(_sentence(place, error, chosen_by)) from error


def _passes(cause: BaseException) -> bool:
    """Whether waiting may help: a lock, or a connection that was lost or could not be made."""
    if isinstance(cause, sqlite3.Error):
        return any(words in str(cause).lower() for words in _BUSY_WORDS)
    if code := getattr(cause, "sqlstate", None):
        return bool(code.startswith(_BUSY_CODES))
    # psycopg knows no code of a server that it did not reach.
    return type(cause).__name__ in ("OperationalError", "InterfaceError")


def _sentence(place: str, error: BaseException, chosen_by: str) -> str:
    said = str(error)
    if "unable to open" in said and _is_read_only(Path(place)):
        said = (
            "readonly"  # which SQLite tells of a file, and not where it cannot make one beside it
        )
    for words, sentence in _SENTENCES.items():
        if words in said.lower():
            return f"the store {place} {sentence.replace('--store', chosen_by)}"
    first = said.strip().splitlines()[0] if said.strip() else type(error).__name__
    return f"the store {place} cannot be used: {first}"


def _is_read_only(path: Path) -> bool:
    return path.is_file() and not os.access(path.parent, os.W_OK)


def file_sentence(path: str, error: OSError, chosen_by: str = "--store") -> str:
    """Return what failed with a file, and what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {path} was not written; free some space and run it again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path} cannot be written (not permitted); choose another store with {chosen_by}"
    return f"{path} cannot be written: {error.strerror}"
