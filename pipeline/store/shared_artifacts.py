"""Artifacts that several hosts share: at a URL, in the layout of the folder (artifacts.py).

What this host has put or used lies in a folder of its own, too. What does not is fetched, and
counts only if its bytes match its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.store.artifacts import STALE_S, Artifacts, file_sha256, place_of

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.store.remote_place import RemotePlace


class SharedArtifacts(Artifacts):
    """The artifacts of a remote place, and in `folder` those that this host has used.

    Every method waits for a place that cannot be reached for a while, and then raises StoreError.
    """

    def __init__(self, folder: Path, remote: RemotePlace) -> None:
        super().__init__(folder)
        self._remote = remote

    @property
    def shown(self) -> str:
        """Where they lie, as sentences name it."""
        return self._remote.url

    def close(self) -> None:
        """Let go of the connection; may be called twice."""
        self._remote.close()

    def make(self) -> None:
        """Make the folders here and there, if they are not. Raises StoreError."""
        super().make()
        self._remote.make()

    def has(self, sha256: str) -> bool:
        """Tell whether an artifact lies where all find it; its bytes are not looked at."""
        return self._remote.has(place_of(sha256))

    def put_bytes(self, data: bytes) -> str:
        """Store bytes here and there and return their SHA-256. Raises StoreError."""
        return self._sent(super().put_bytes(data))

    def put_file(self, source: str | Path) -> str:
        """Store a copy of a file here and there and return its SHA-256. Raises StoreError."""
        return self._sent(super().put_file(source))

    def path(self, sha256: str) -> Path:
        """Return where an artifact lies here, fetched if need be. Raises StoreError."""
        if not self._place(sha256).is_file():
            self._fetch(sha256)
        return super().path(sha256)

    def why_not(self, sha256: str) -> str | None:
        """Return why an artifact cannot be used, fetched if need be; None if it can."""
        return self._fetch(sha256) if super().why_not(sha256) else None

    def delete(self, sha256: str) -> None:
        """Remove an artifact here and there; other hosts keep what they have. Raises StoreError."""
        super().delete(sha256)
        self._remote.remove(place_of(sha256))

    def sweep(self, now_s: float) -> None:
        """Remove temporary files that a killed process left more than a day before `now_s`."""
        super().sweep(now_s)
        self._remote.sweep(now_s - STALE_S)

    def _sent(self, sha256: str) -> str:
        self._remote.send(self._place(sha256), place_of(sha256))
        return sha256

    def _fetch(self, sha256: str) -> str | None:
        """Bring an artifact here; return why it cannot be used, None if it can."""
        with self._temporary(sha256) as temporary:
            if not self._remote.fetch(place_of(sha256), temporary):
                return f"artifact {sha256[:12]}… is missing"
            if file_sha256(temporary) != sha256:
                # In the way of the whole one, which is put when what made it is done again.
                self._remote.remove(place_of(sha256))
                return f"artifact {sha256[:12]}… is damaged"
            self._take_in(temporary, sha256)
        return None
