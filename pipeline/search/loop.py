"""The search loop: ask, estimate, score, tell.

Training and measuring overlap: while the host trains candidate i for its accuracy, one worker
thread has the device measure the latencies of the candidates behind it. Trials are told in the
order they were asked, whichever estimate came first, so a search replays from its seed.

A search that cannot go on ends with what it has and says why in one sentence: a strategy that only
repeats itself, and, where the caller wants that, a device that stays away.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic

from device_agents.api import Failure
from device_agents.errors import DeviceError
from pipeline.search.api import Estimate, Spec, Trial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.search.api import Estimator, Objective, Strategy

MAX_ASKS_PER_CANDIDATE = 4
"""A strategy that has converged repeats itself; the search ends when only repeats come."""


class Watch(Generic[Spec]):
    """What a search tells of itself, and what it asks; these do nothing and let errors pass."""

    def on_trial(self, index: int, trial: Trial[Spec]) -> None:
        """Take note of a trial; called in order."""

    def on_lost(self, error: DeviceError) -> bool:
        """Return whether the search ends with what it has; otherwise the error is raised."""
        del error
        return False

    def on_end(self, sentence: str) -> None:
        """Take note of why the search ends before its budget is used."""

    def abort(self) -> None:
        """End the latency estimate in progress; called when the search ends by an exception."""


def search(
    strategy: Strategy[Spec],
    objective: Objective,
    *,
    accuracy: Estimator[Spec],
    latency: Estimator[Spec],
    candidates: int,
    batch: int,
    watch: Watch[Spec],
) -> list[Trial[Spec]]:
    """Search until `candidates` different networks are evaluated.

    Args:
        strategy: asked for `batch` specs at a time.
        objective: scores the two estimates.
        accuracy: runs in this thread.
        latency: runs in a worker thread, on the device.
        candidates: different networks to evaluate; repeats are told again but not counted.
        batch: specs an ask.
        watch: see `Watch`.

    Returns:
        All trials in order, repeats included. Fewer than `candidates` different ones only if the
        strategy kept repeating itself or the device was lost.

    Raises:
        DeviceError: the device cannot be used any more; what was told is not lost.
    """
    run = _Search(strategy, objective, accuracy, latency, candidates, batch, watch)
    with ThreadPoolExecutor(1, thread_name_prefix="device") as device:
        try:
            run.loop(device)
        except BaseException as error:
            watch.abort()
            device.shutdown(wait=True, cancel_futures=True)
            if not isinstance(error, DeviceError) or not watch.on_lost(error):
                raise
            return run.trials
    if len(run.seen) < candidates:
        watch.on_end(
            f"the search ends after {len(run.seen)} different candidates instead of {candidates}: "
            + run.why_short()
        )
    return run.trials


@dataclass(slots=True)
class _Search(Generic[Spec]):
    """A search in progress; `newest` is the number of trials up to the last that was no repeat.

    `exhausted`: the strategy had nothing more to ask for.
    """

    strategy: Strategy[Spec]
    objective: Objective
    accuracy: Estimator[Spec]
    latency: Estimator[Spec]
    candidates: int
    batch: int
    watch: Watch[Spec]
    trials: list[Trial[Spec]] = field(default_factory=list)
    seen: dict[Spec, Trial[Spec]] = field(default_factory=dict)
    newest: int = 0
    exhausted: bool = False

    def loop(self, device: ThreadPoolExecutor) -> None:
        """Go on until there are enough candidates, or only repeats come."""
        limit = MAX_ASKS_PER_CANDIDATE * self.candidates
        while len(self.seen) < self.candidates and len(self.trials) < limit:
            specs = self.strategy.ask(min(self.batch, self.candidates))
            if not specs:
                self.exhausted = True
                return
            begin = len(self.trials)
            self._evaluate(specs, device)
            self.strategy.tell(self.trials[begin:])

    def why_short(self) -> str:
        """Return why the loop ended before its budget was used."""
        if self.exhausted:
            return "the strategy has no more to ask for"
        return (
            f"the last {len(self.trials) - self.newest} of {len(self.trials)} that the strategy "
            "asked for were repeats; the space may have no more, or the strategy has converged"
        )

    def _evaluate(self, specs: Sequence[Spec], device: ThreadPoolExecutor) -> None:
        fresh = [s for s in dict.fromkeys(specs) if s not in self.seen]
        fresh = fresh[: self.candidates - len(self.seen)]
        pending = {s: device.submit(estimate_one, self.latency, s) for s in fresh}
        for spec in specs:
            if spec in pending:
                found = {
                    self.accuracy.metric: estimate_one(self.accuracy, spec),
                    "latency_ms": pending.pop(spec).result(),
                }
                self.seen[spec] = trial_of(spec, found, self.objective)
                self.newest = len(self.trials) + 1
            elif spec not in self.seen:
                return  # the budget ends in mid-batch: only the first few are told
            self.trials.append(self.seen[spec])
            self.watch.on_trial(len(self.trials) - 1, self.seen[spec])


def trial_of(
    spec: Spec, found: Mapping[str, Estimate | Failure], objective: Objective
) -> Trial[Spec]:
    """Return the trial of a candidate: scored, or failed if one of its metrics did."""
    estimates = {k: v for k, v in found.items() if isinstance(v, Estimate)}
    failures = [v for v in found.values() if isinstance(v, Failure)]
    if failures:
        return Trial(spec, estimates, failure=failures[0])
    return Trial(spec, estimates, objective.score(estimates))


def estimate_one(estimator: Estimator[Spec], spec: Spec) -> Estimate | Failure:
    """Return one candidate's estimate; one that is no number is a failure."""
    found = estimator.estimate([spec])[0]
    if isinstance(found, Estimate) and not math.isfinite(found.value):
        return Failure(f"{estimator.metric} came out as {found.value}, which is no number")
    return found
