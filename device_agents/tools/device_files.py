"""What lies on a device without an agent: the user's binary, and models, each put there once."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from device_agents.rejoin import REJOIN_S
from device_agents.tools import pushed

if TYPE_CHECKING:
    from pathlib import Path

    from device_agents.api import OnSent
    from device_agents.tools.remote_job import Link


class DeviceFiles:
    """The files of one device below `directory`, an absolute path there.

    Everything here raises DeviceError for folders in which others could put something,
    TransferFailed, LinkLost.
    """

    def __init__(self, name: str, link: Link, directory: str, on_sent: OnSent) -> None:
        self._name = name
        self._link = link
        self._directory = directory
        self._on_sent = on_sent
        self._there: set[str] = set()

    @property
    def jobs(self) -> str:
        """The folder of the jobs that run."""
        return posixpath.join(self._directory, "jobs")

    def own_folders(self) -> None:
        """Make the folders, or see that they are this user's alone."""
        self._link.repeat(
            lambda transport: pushed.own_folders(transport, self._directory, self._name),
            rejoin_s=REJOIN_S,
        )

    def push_binary(self, path: Path, sha256: str) -> str:
        """Make sure that the binary is there; return its path."""
        target = posixpath.join(self._directory, "tools", f"benchmark_model-{sha256[:16]}")
        return self._ensure(path, sha256, target)

    def push_model(self, path: Path) -> tuple[str, str]:
        """Make sure that a model is there; return its hash and its path."""
        sha256 = pushed.file_sha256(path)
        return sha256, self._ensure(path, sha256, posixpath.join(self._directory, "models", sha256))

    def _ensure(self, path: Path, sha256: str, target: str) -> str:
        if sha256 not in self._there:
            self._link.repeat(
                lambda transport: pushed.ensure(
                    transport, path, sha256, target, on_sent=self._on_sent
                ),
                rejoin_s=REJOIN_S,
            )
            self._there.add(sha256)
        return target
