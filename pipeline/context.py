"""What every stage of a run has in hand, and how a stage's work is done once and never again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device_agents.runner import Device
    from pipeline.data.api import Dataset
    from pipeline.progress import Display
    from pipeline.recipe import Recipe
    from pipeline.store import Run, Step, Store

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
        keyed = {**inputs, "edgewright": version("edgewright")}
        step = self.store.memo(kind, keyed)
        if step is None:
            started_s = self.clock()
            result, artifacts = work()
            step = self.store.record(kind, keyed, result, artifacts, self.clock() - started_s)
        self.steps.append(step)
        return step

    def worked_s(self) -> float:
        """Return how long this run's steps took in all, overlaps counted once, breaks not at all.

        Unlike a clock around the command this is right for a run that was interrupted.
        """
        ends = ((datetime.fromisoformat(s.created_at).timestamp(), s.wall_s) for s in self.steps)
        total_s = until_s = 0.0
        for start_s, end_s in sorted((end - wall_s, end) for end, wall_s in ends):
            total_s += max(0.0, end_s - max(start_s, until_s))
            until_s = max(until_s, end_s)
        return total_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(Workshop):
    """One run of one recipe on one device.

    Attributes:
        runtime: `tflite` or `onnx`: the recipe's, or else the device's own.
        threads: of the runtime, likewise.
        channel_multiple: channel counts that the device likes are multiples of it.
    """

    run: Run
    device: Device
    runtime: str
    threads: int
    channel_multiple: int
    progress: Display
