"""How a step is done once and never again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.store.records import Step
    from pipeline.store.store import Store

LOG = logging.getLogger("edgewright")

Work = Callable[[], tuple[Any, Mapping[str, str]]]
"""Does a step; returns its JSON result and the artifacts it put, by name."""


@dataclass(frozen=True, slots=True)
class StepKind:
    """A kind of step.

    `version` is raised when the step comes to mean something else for the same inputs: what was
    recorded before is then not taken for it.
    """

    name: str
    version: int = 1

    def key_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs as the store keys them: with the version of the step."""
        return {**inputs, "step": self.version}


@dataclass(frozen=True, slots=True)
class Memo:
    """Does steps once; a store remembers them.

    Attributes:
        clock: seconds, monotonic.
        check: raises when no more work may be done here, since the run is another's now.
        steps: every step asked for, in the order of their ends.
    """

    store: Store
    clock: Callable[[], float] = time.monotonic
    check: Callable[[], None] = lambda: None
    steps: list[Step] = field(default_factory=list)

    def once(self, kind: StepKind, inputs: Mapping[str, Any], work: Work) -> Step:
        """Return the recorded step of these inputs, or do the work and record it.

        A killed run therefore repeats at most the step it was in.
        """
        keyed = kind.key_inputs(inputs)
        step = self.store.memo(kind.name, keyed)
        if step is None:
            self.check()
            started_s = self.clock()
            result, artifacts = work()
            wall_s = self.clock() - started_s
            step = self.store.record(kind.name, keyed, result, artifacts, wall_s)
            LOG.info("did %s %s", kind.name, step.key[:12])
        self.steps.append(step)
        return step

    def worked_s(self, since: str) -> float:
        """Return how long steps recorded from `since` (ISO 8601) on took, overlaps counted once.

        Unlike a clock around a command this is right for a run that was interrupted: what earlier
        starts did counts, breaks do not.
        """
        own = (s for s in self.steps if s.created_at >= since)
        ends = ((datetime.fromisoformat(s.created_at).timestamp(), s.wall_s) for s in own)
        total_s = until_s = 0.0
        for start_s, end_s in sorted((end - wall_s, end) for end, wall_s in ends):
            total_s += max(0.0, end_s - max(start_s, until_s))
            until_s = max(until_s, end_s)
        return total_s

    def remembers(self, kind: StepKind, inputs: Mapping[str, Any]) -> bool:
        """Tell whether `once` would return without work."""
        return self.store.memo(kind.name, kind.key_inputs(inputs)) is not None

    def checkpoint(
        self, kind: StepKind, inputs: Mapping[str, Any], position: int, artifacts: Mapping[str, str]
    ) -> None:
        """Record how far a long step has come, and forget how far it had come before."""
        keyed = kind.key_inputs(inputs)
        self.store.checkpoint(kind.name, keyed, position, result={}, artifacts=artifacts)
        self.store.drop_checkpoints(kind.name, keyed, keep_latest=True)

    def latest_checkpoint(self, kind: StepKind, inputs: Mapping[str, Any]) -> Step | None:
        """Return the furthest checkpoint of a step, if there is one that can be read."""
        return self.store.latest_checkpoint(kind.name, kind.key_inputs(inputs))

    def drop_checkpoints(self, kind: StepKind, inputs: Mapping[str, Any]) -> None:
        """Forget the checkpoints of a step that is done."""
        self.store.drop_checkpoints(kind.name, kind.key_inputs(inputs))
