"""Values that a model is fed while it is measured: pushed once, whatever runs on them.

They go as files, so that their hashes are checked where they arrive, and no process of a
measurement waits for them.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.rejoin import push_rejoining

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_agents.session import Session
    from device_agents.values import TensorValue

Sent = list[dict[str, Any]]
"""Inputs as the agent takes them: type, shape and hash of each."""


def push_inputs(session: Session, values: Sequence[TensorValue], *, rejoin_s: float) -> Sent:
    """Make sure that the values of every input, (samples, …) each, are on the device.

    Raises TransferFailed, LinkLost.
    """
    sent = []
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        for place, value in enumerate(values):
            path = Path(folder) / f"input-{place}.bin"
            path.write_bytes(value.data)
            sha256 = push_rejoining(session, path, rejoin_s=rejoin_s)
            sent.append({"dtype": value.dtype, "shape": list(value.shape), "sha256": sha256})
    return sent


def digest(sent: Sent) -> str:
    """Return one hash of what a model is fed; empty where nothing is given."""
    if not sent:
        return ""
    return hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).hexdigest()
