"""What the agent refuses, and what it never says, in the words and the tree of errors.py.

The words are the device's, which may be anything: they are cleaned and cut.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from device_agents.errors import AgentError, RuntimeMissing, TransferFailed
from device_agents.plain_text import cut, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from device_agents.api import Failure
    from device_agents.errors import DeviceError

_RETRYABLE_KINDS = ("timeout", "crashed", "busy")
_SENTENCE_CHARS = 1000
_LAST_CHARS = 300


def refusal(device: str, op: str, error: dict[str, Any]) -> DeviceError:
    """Return the exception for an error that the agent of a device answered to a call."""
    kind = plain(error.get("kind", "internal"), limit=_SENTENCE_CHARS)
    message = " ".join(plain(error.get("message", ""), limit=_SENTENCE_CHARS).split())
    detail = str(error.get("detail") or "").strip()
    text = f"device {device!r}: {op}: {message}"
    if kind == "runtime_missing":
        return RuntimeMissing(
            f"device {device!r}: {message}, let `edgewright device setup` put one there, or set "
            "`python` in its profile to an interpreter that has it"
            f"{f' ({detail})' if detail else ''}"
        )
    if kind == "disk_full":
        return TransferFailed(f"{text}; free some space there")
    return AgentError(
        text,
        kind=kind,
        # A transfer that arrived damaged is sent again; a damaged release stays damaged.
        retryable=kind in _RETRYABLE_KINDS or (op in ("put", "unpack") and kind == "hash_mismatch"),
        detail=detail,
    )


def last_words(found: AgentError | Failure) -> str:
    """Return the last line of what a job said before it ended; empty where it adds nothing.

    When a runtime refuses a model, the sentence holds the reason already.
    """
    lines = found.detail.strip().splitlines()
    told = found.kind in ("load_failed", "invoke_failed") or not lines
    return "" if told else cut(lines[-1], _LAST_CHARS)


@contextmanager
def blame_answer(device: str, op: str) -> Iterator[None]:
    """Raise AgentError for what goes wrong in a `with` block that reads an agent's answer."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise AgentError(
            f"device {device!r} answered {op} with something unusable; something else than this "
            "agent runs there: `edgewright device doctor` shows what",
            detail=f"{type(error).__name__}: {error}"[:_SENTENCE_CHARS],
        ) from error
