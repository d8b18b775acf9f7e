"""Calls that survive a lost link: reconnect, and make the same call with the same id again.

The agent then gives the answer it has, waits for the job that still runs, or starts it when it was
lost (agent/turns.py).
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, TypeVar

from device_agents.errors import LinkLost, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from device_agents.session import Session

_T = TypeVar("_T")

REJOIN_S = 60.0
"""How long a device may stay away from a call that no protocol gives another time."""

# A link that drops again and again during one call will not hold for its answer either.
_MOST_LOSSES = 10
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


def call_rejoining(
    session: Session, op: str, *, timeout_s: float, rejoin_s: float, **args: Any
) -> dict[str, Any]:
    """Make a call that starts a job, which is done once however often the link is lost.

    Raises what `Session.call` raises; LinkLost or Unreachable when the device stays away for
    longer than `rejoin_s`.
    """
    job_id = uuid.uuid4().hex

    def attempt() -> dict[str, Any]:
        rejoinable = {"id": job_id, "rejoin_s": rejoin_s} if session.loses_link else {}
        return session.call(op, timeout_s=timeout_s, **args, **rejoinable)

    return repeat(session, attempt, rejoin_s=rejoin_s)


def push_rejoining(session: Session, path: Path, *, rejoin_s: float) -> str:
    """Make sure the file is on the device; return its SHA-256.

    A half-sent file lies under a name of its own, which nobody uses; it is sent again.
    """
    return repeat(session, lambda: session.push(path), rejoin_s=rejoin_s)


def repeat(session: Session, attempt: Callable[[], _T], *, rejoin_s: float) -> _T:
    """Repeat what may be repeated while the link is lost, up to `rejoin_s` after each loss.

    A device that was never reached is not lost: its error is raised at once.
    """
    losses, lost_at, pause_s = 0, 0.0, 0.0
    while True:
        reached = session.connections
        try:
            return attempt()
        except (LinkLost, Unreachable):
            now = session.clock()
            if losses == 0 or session.connections > reached:
                losses, lost_at, pause_s = losses + 1, now, _FIRST_PAUSE_S
            late = now + pause_s > lost_at + rejoin_s
            if session.aborted or not session.connections or losses > _MOST_LOSSES or late:
                raise
            session.pause(pause_s)
            pause_s = min(2.0 * pause_s, _LONGEST_PAUSE_S)
