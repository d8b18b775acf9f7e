"""Files by content hash: `ab/<sha256>` under one folder.

A file appears under its hash in one rename, after its bytes have reached the disk, so a process
killed at any moment leaves either the whole artifact or a temporary file that nobody reads.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from device_agents.errors import StoreError
from pipeline.store.errors import file_sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOG = logging.getLogger("edgewright.store")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 20
STALE_S = 24 * 3600.0


class Artifacts:
    """A folder of files, each named by the SHA-256 of its bytes.

    Safe to use from several threads and processes at once: two that put the same bytes end up
    with the one file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> None:
        """Make the folder, if it is not there. Raises StoreError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(file_sentence(str(self.folder), error)) from error

    @property
    def shown(self) -> str:
        """Where they lie, as sentences name it."""
        return str(self.folder)

    def close(self) -> None:
        """Let go of what was opened for them; may be called twice."""

    def has(self, sha256: str) -> bool:
        """Tell whether an artifact lies where all find it; its bytes are not looked at."""
        return self._place(sha256).is_file()

    def put_bytes(self, data: bytes) -> str:
        """Store bytes and return their SHA-256 (64 hex digits). Raises StoreError."""
        sha = hashlib.sha256(data).hexdigest()
        if self.why_not(sha) is not None:
            self._write(lambda out: _write_all(out, data), sha)
        return sha

    def put_file(self, source: str | Path) -> str:
        """Store a copy of a file and return its SHA-256 (64 hex digits). Raises StoreError."""
        try:
            sha = file_sha256(Path(source))
        except OSError as error:
            raise StoreError(f"cannot read {source}: {error.strerror}") from error
        if self.why_not(sha) is not None:
            self._write(lambda out: _copy(Path(source), out), sha)
        return sha

    def path(self, sha256: str) -> Path:
        """Return where an artifact lies. Raises StoreError if it is not there."""
        path = self._place(sha256)
        if not path.is_file():
            raise StoreError(
                f"artifact {sha256[:12]}… is not in {self.shown}; the run that made it makes it "
                "again when it is repeated"
            )
        return path

    def read_bytes(self, sha256: str) -> bytes:
        """Return an artifact's bytes, re-hashed. Raises StoreError if missing or damaged."""
        path = self.path(sha256)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StoreError(f"artifact {path} is damaged (its bytes do not match its name)")
        return data

    def why_not(self, sha256: str) -> str | None:
        """Return why an artifact cannot be used, re-hashing its bytes; None if it can."""
        path = self._place(sha256)
        try:
            found = file_sha256(path)
        except FileNotFoundError:
            return f"artifact {sha256[:12]}… is missing"
        except OSError as error:
            return f"artifact {sha256[:12]}… cannot be read ({error.strerror})"
        return None if found == sha256 else f"artifact {sha256[:12]}… is damaged"

    def delete(self, sha256: str) -> None:
        """Remove an artifact if it is there. Raises StoreError."""
        path = self._place(sha256)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(file_sentence(str(path), error)) from error

    def sweep(self, now_s: float) -> None:
        """Remove temporary files that a killed process left more than a day before `now_s`."""
        for path in self.folder.glob(".*.tmp"):
            try:
                if now_s - path.stat().st_mtime > STALE_S:
                    path.unlink()
            except OSError as error:
                _LOG.debug("left %s alone: %s", path, error)

    def _place(self, sha256: str) -> Path:
        if _SHA256.fullmatch(sha256) is None:
            raise StoreError(f"{sha256[:80]!r} is not an artifact's name: 64 hexadecimal digits")
        return self.folder / place_of(sha256)

    def _write(self, write: Callable[[IO[bytes]], str], sha256: str) -> None:
        """Write to a temporary name, flush to the disk, check the hash, rename."""
        with self._temporary(sha256) as temporary:
            with temporary.open("wb") as out:
                written = write(out)
                out.flush()
                os.fsync(out.fileno())
            if written != sha256:
                raise StoreError("the file changed while it was being stored; run it again")
            self._take_in(temporary, sha256)

    @contextmanager
    def _temporary(self, sha256: str) -> Iterator[Path]:
        """Make a file that is gone after the block, unless `_take_in` was given it.

        Raises StoreError for what goes wrong with files in the block.
        """
        temporary: Path | None = None
        try:
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=".", suffix=".tmp")
            os.close(handle)
            temporary = Path(name)
            yield temporary
        except OSError as error:
            raise StoreError(file_sentence(str(self._place(sha256)), error)) from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)

    def _take_in(self, temporary: Path, sha256: str) -> None:
        """Give a file that has reached the disk the name that its bytes have. Raises OSError."""
        place = self._place(sha256)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(place)
        _sync_folder(place.parent)


def place_of(sha256: str) -> str:
    """Return where an artifact lies below the folder, or the URL, of the artifacts."""
    return f"{sha256[:2]}/{sha256}"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes (64 hex digits). Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_all(out: IO[bytes], data: bytes) -> str:
    out.write(data)
    return hashlib.sha256(data).hexdigest()


def _copy(source: Path, out: IO[bytes]) -> str:
    sha = hashlib.sha256()
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha.update(chunk)
            out.write(chunk)
    return sha.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
