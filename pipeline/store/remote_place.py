"""A folder of files at a URL, of any protocol that fsspec speaks.

A file is sent under a temporary name and renamed, so that a reader finds the whole file or none;
stores of objects show none before it is whole in any case. Once opened, a place that cannot be
reached for a while is waited for, on a connection made anew.
"""

from __future__ import annotations

import errno
import logging
import uuid
from datetime import UTC
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import fsspec
from fsspec.utils import infer_storage_options

from device_agents.errors import StoreError
from pipeline.store.errors import StoreBusy
from pipeline.store.patience import PATIENCE_S, patiently

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LOG = logging.getLogger("edgewright.store")
# Waiting does not help.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

_T = TypeVar("_T")


class RemotePlace:
    """A folder at `url`, connected when it is first used; safe to use from several threads.

    Until it was reached once, it is waited for up to `first_patience_s`. Every method raises
    StoreError when the place cannot be used.
    """

    def __init__(self, url: str, *, first_patience_s: float = 0.0) -> None:
        if urlsplit(url).password:
            raise StoreError(
                "the URL of the artifacts holds a password, which would be kept in the database "
                "for all who read it; write it without, and give this host a key or what else "
                "the protocol takes (for sftp: a key in ~/.ssh)"
            )
        self.url = url
        self._patience_s = first_patience_s
        self._connection: tuple[Any, str] | None = None

    def close(self) -> None:
        """Let go of the connection; may be called twice."""
        connection, self._connection = self._connection, None
        if connection is not None and hasattr(connection[0], "close"):
            connection[0].close()

    def make(self) -> None:
        """Make the folder, if it is not there."""
        self._do(lambda files, root: files.makedirs(root, exist_ok=True))

    def has(self, name: str) -> bool:
        """Tell whether a file is there."""
        return self._do(lambda files, root: _size(files, f"{root}/{name}") is not None)

    def send(self, here: Path, name: str) -> None:
        """Send a file, unless one of its name and size is there."""
        size = here.stat().st_size

        def send(files: Any, root: str) -> None:
            there = f"{root}/{name}"
            if _size(files, there) == size:
                return
            temporary = f"{root}/.{uuid.uuid4().hex}.tmp"
            files.put_file(str(here), temporary)
            files.makedirs(there.rpartition("/")[0], exist_ok=True)
            try:
                files.mv(temporary, there)
            except Exception:  # of any protocol's library
                # Another host was first, and not every protocol renames onto a file.
                if _size(files, there) != size:
                    raise
                files.rm_file(temporary)

        self._do(send)

    def fetch(self, name: str, here: Path) -> bool:
        """Write what a file there holds into one here; False if there is none."""

        def fetch(files: Any, root: str) -> bool:
            if _size(files, f"{root}/{name}") is None:
                return False
            files.get_file(f"{root}/{name}", str(here))
            return True

        return self._do(fetch)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""

        def remove(files: Any, root: str) -> None:
            if _size(files, f"{root}/{name}") is not None:
                files.rm_file(f"{root}/{name}")

        self._do(remove)

    def sweep(self, before_s: float) -> None:
        """Remove temporary files of before `before_s`, in seconds since the epoch."""

        def sweep(files: Any, root: str) -> None:
            for path in files.ls(root, detail=False):
                name = path.rpartition("/")[2]
                if name.startswith(".") and name.endswith(".tmp"):
                    changed = files.modified(path)
                    # Times without a zone are of UTC in fsspec.
                    if changed.replace(tzinfo=changed.tzinfo or UTC).timestamp() < before_s:
                        files.rm_file(path)

        try:
            self._do(sweep)
        except StoreError as error:
            _LOG.debug("left temporary files alone: %s", error)

    def _do(self, act: Callable[[Any, str], _T]) -> _T:
        """Do what may be repeated."""

        def once() -> _T:
            try:
                if self._connection is None:
                    self._connection = _connected(self.url)
                found = act(*self._connection)
            except StoreError:
                raise
            except Exception as error:  # what it may be differs from protocol to protocol
                if isinstance(error, OSError) and error.errno in (*_FULL, *_FORBIDDEN):
                    raise StoreError(_lasting(self.url, error)) from error
                self.close()
                raise _unreachable(self.url, error) from error
            self._patience_s = PATIENCE_S
            return found

        return patiently(once, self._patience_s, tell=_LOG.warning)


def _size(files: Any, path: str) -> int | None:
    """Return a file's size in bytes; None if there is none."""
    files.invalidate_cache()  # other hosts write there, too
    try:
        return int(files.info(path)["size"])
    except FileNotFoundError:
        return None


def _connected(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path there."""
    protocol = url.partition("://")[0]
    if protocol in ("sftp", "ssh"):
        from pipeline.store.verified_sftp import VerifiedSFTP

        parts = infer_storage_options(url)
        options = {name: parts[name] for name in ("port", "username") if name in parts}
        return VerifiedSFTP(parts["host"], **options, skip_instance_cache=True), parts["path"]
    try:
        fsspec.get_filesystem_class(protocol)
    except (ValueError, ImportError) as error:
        raise StoreError(
            f"artifacts cannot lie at {url}: {str(error).rstrip('.')}; give a folder that all "
            "hosts have, sftp://HOST/FOLDER, or a URL of another protocol that fsspec speaks here"
        ) from error
    files, path = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    return files, path.rstrip("/")


def _lasting(url: str, error: OSError) -> str:
    if error.errno in _FULL:
        return f"a disk is full, here or at {url}; free some space and run it again"
    return (
        f"the place of the artifacts, {url}, may not be written or read from this host "
        f"({error.strerror}); let its user do both there"
    )


def _unreachable(url: str, error: Exception) -> StoreBusy:
    said = str(error).strip().splitlines()
    why = said[0] if said else type(error).__name__
    return StoreBusy(
        f"the place of the artifacts, {url}, cannot be used: {why}; is it written right, and may "
        "this host read and write there?"
    )
