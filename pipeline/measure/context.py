"""What every stage of a run has in hand."""

from __future__ import annotations

import time
from collections.abc import Callable  # noqa: TC003
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.train.workshop import Workshop

if TYPE_CHECKING:
    from pathlib import Path

    from device_agents.runner import Device
    from pipeline.store import Run
    from pipeline.store.events import Events
    from profiles.schema import DeviceProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(Workshop):
    """One run of one recipe on one device.

    Attributes:
        profile: the device's, with the recipe's runtime and threads.
        device_digest: tells this device from another, also when it does not answer any more.
        pause: sleeps; before another try at a device that did not answer.
        others: the same run on the further devices that its network is to serve, in the order of
            `[[search.also]]`.
        supernet: the file of a trained supernet to use instead of the one that the recipe trains.
    """

    run: Run
    device: Device
    device_digest: str
    profile: DeviceProfile
    progress: Events
    pause: Callable[[float], None] = time.sleep
    others: tuple[Context, ...] = ()
    supernet: Path | None = None

    def worked_s(self) -> float:
        """Return how long this run's steps took in all, overlaps counted once, breaks not at all.

        Unlike a clock around the command this is right for a run that was interrupted.
        """
        own = (s for s in self.memo.steps if s.created_at >= self.run.started_at)
        ends = ((datetime.fromisoformat(s.created_at).timestamp(), s.wall_s) for s in own)
        total_s = until_s = 0.0
        for start_s, end_s in sorted((end - wall_s, end) for end, wall_s in ends):
            total_s += max(0.0, end_s - max(start_s, until_s))
            until_s = max(until_s, end_s)
        return total_s
