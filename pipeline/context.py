"""What every stage of a run has in hand, and how a stage's work is done once and never again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from device_agents.runner import Device
    from pipeline.data.api import Dataset
    from pipeline.progress import Display
    from pipeline.recipe import Recipe
    from pipeline.store import Run, Step, Store
    from profiles.schema import DeviceProfile

LOG = logging.getLogger("edgewright")

Work = Callable[[], tuple[Any, Mapping[str, str]]]
"""Does a step; returns its JSON result and the artifacts it put, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What work on the host needs: the recipe, its data, and the store that remembers.

    Attributes:
        dataset_digest: of `dataset`, which is hashed once.
        clock: seconds, monotonic.
        steps: every step asked for, in the order of their ends.
    """

    recipe: Recipe
    dataset: Dataset
    dataset_digest: str
    store: Store
    clock: Callable[[], float] = time.monotonic
    steps: list[Step] = field(default_factory=list)

    def once(self, kind: str, inputs: Mapping[str, Any], work: Work) -> Step:
        """Return the recorded step of these inputs, or do the work and record it.

        A killed run therefore repeats at most the step it was in. Another version of edgewright
        may compute something else, so the version is one of the inputs.
        """
        keyed = _keyed(inputs)
        step = self.store.memo(kind, keyed)
        if step is None:
            started_s = self.clock()
            result, artifacts = work()
            step = self.store.record(kind, keyed, result, artifacts, self.clock() - started_s)
            LOG.info("did %s %s", kind, step.key[:12])
        self.steps.append(step)
        return step

    def remembers(self, kind: str, inputs: Mapping[str, Any]) -> bool:
        """Tell whether `once` would return without work."""
        return self.store.memo(kind, _keyed(inputs)) is not None


def _keyed(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {**inputs, "edgewright": version("edgewright")}


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
    progress: Display
    pause: Callable[[float], None] = time.sleep
    others: tuple[Context, ...] = ()
    supernet: Path | None = None

    def worked_s(self) -> float:
        """Return how long this run's steps took in all, overlaps counted once, breaks not at all.

        Unlike a clock around the command this is right for a run that was interrupted.
        """
        own = (s for s in self.steps if s.created_at >= self.run.started_at)
        ends = ((datetime.fromisoformat(s.created_at).timestamp(), s.wall_s) for s in own)
        total_s = until_s = 0.0
        for start_s, end_s in sorted((end - wall_s, end) for end, wall_s in ends):
            total_s += max(0.0, end_s - max(start_s, until_s))
            until_s = max(until_s, end_s)
        return total_s
