"""What the agent refuses, in the words and the tree of errors.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from device_agents.errors import AgentError, RuntimeMissing, TransferFailed

if TYPE_CHECKING:
    from device_agents.errors import DeviceError

_RETRYABLE_KINDS = ("timeout", "crashed", "busy")


def refusal(device: str, op: str, error: dict[str, Any]) -> DeviceError:
    """Return the exception for an error that the agent of a device answered to a call."""
    kind, message = str(error.get("kind", "internal")), error.get("message", "")
    detail = str(error.get("detail") or "").strip()
    text = f"device {device!r}: {op}: {message}"
    if kind == "runtime_missing":
        return RuntimeMissing(
            f"device {device!r}: {message}, or set `python` in its profile to an "
            f"interpreter that has it{f' ({detail})' if detail else ''}"
        )
    if kind == "disk_full":
        return TransferFailed(f"{text}; free some space there")
    return AgentError(
        text,
        kind=kind,
        # A transfer that arrived damaged is sent again; a damaged release stays damaged.
        retryable=kind in _RETRYABLE_KINDS or (op, kind) == ("put", "hash_mismatch"),
        detail=detail,
    )
