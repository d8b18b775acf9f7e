"""Puts a model on a device, of however many files: weights may lie in files beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device_agents.model_files import parts_of
from device_agents.rejoin import push_rejoining

if TYPE_CHECKING:
    from pathlib import Path

    from device_agents.session import Session


@dataclass(frozen=True, slots=True)
class Pushed:
    """A model that is on the device.

    Attributes:
        sha256: names the model: the hash of its file, or of the hashes of its several files.
        call: the arguments by which the agent finds it: sha256 and, if there are any, parts.
    """

    sha256: str
    call: dict[str, Any]

    def as_reference(self) -> dict[str, Any]:
        """Return the arguments under the names that they have for a reference."""
        return {f"reference_{name}": value for name, value in self.call.items()}


def push_model(session: Session, path: Path, *, rejoin_s: float) -> Pushed:
    """Make sure that a model and the files that it names are on the device.

    Raises ConfigError for a file that is missing or not beside the model, TransferFailed, LinkLost.
    """
    parts = {
        part.location: push_rejoining(session, part.path, rejoin_s=rejoin_s)
        for part in parts_of(path)
    }
    sha256 = push_rejoining(session, path, rejoin_s=rejoin_s)
    if not parts:
        return Pushed(sha256, {"sha256": sha256})
    every = json.dumps({"model": sha256, "parts": parts}, sort_keys=True)
    return Pushed(hashlib.sha256(every.encode()).hexdigest(), {"sha256": sha256, "parts": parts})
