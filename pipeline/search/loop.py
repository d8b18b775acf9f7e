"""The search loop: ask, estimate, score, tell.

Training and measuring overlap: while the host trains candidate i for its accuracy, one worker
thread has the device measure the latencies of the candidates behind it. Trials are told in the
order they were asked, whichever estimate came first, so a search replays from its seed.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from device_agents.api import Failure
from pipeline.search.api import Estimate, Spec, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.search.api import Estimator, Objective, Strategy

MAX_ASKS_PER_CANDIDATE = 4
"""A strategy that has converged repeats itself; the search ends when only repeats come."""


def search(
    strategy: Strategy[Spec],
    objective: Objective,
    *,
    accuracy: Estimator[Spec],
    latency: Estimator[Spec],
    candidates: int,
    batch: int,
    on_trial: Callable[[int, Trial[Spec]], None],
    abort: Callable[[], None] = lambda: None,
) -> list[Trial[Spec]]:
    """Search until `candidates` different networks are evaluated.

    Args:
        strategy: asked for `batch` specs at a time.
        objective: scores the two estimates.
        accuracy: runs in this thread.
        latency: runs in a worker thread, on the device.
        candidates: different networks to evaluate; repeats are told again but not counted.
        batch: specs an ask.
        on_trial: called with the index and the trial, in order.
        abort: ends the latency estimate in progress; called when the search ends by an exception.

    Returns:
        All trials in order, repeats included. Fewer than `candidates` different ones only if the
        strategy kept repeating itself.

    Raises:
        DeviceError: the device cannot be used any more; what was told is not lost.
    """
    trials: list[Trial[Spec]] = []
    seen: dict[Spec, Trial[Spec]] = {}
    with ThreadPoolExecutor(1, thread_name_prefix="device") as device:
        try:
            while len(seen) < candidates and len(trials) < MAX_ASKS_PER_CANDIDATE * candidates:
                specs = strategy.ask(min(batch, candidates))
                fresh = [s for s in dict.fromkeys(specs) if s not in seen]
                fresh = fresh[: candidates - len(seen)]
                pending = {s: device.submit(_one, latency, s) for s in fresh}
                told: list[Trial[Spec]] = []
                for spec in specs:
                    if spec in pending:
                        seen[spec] = _trial(spec, accuracy, pending.pop(spec), objective)
                    if spec in seen:  # the budget may end in mid-batch
                        told.append(seen[spec])
                        on_trial(len(trials) + len(told) - 1, seen[spec])
                strategy.tell(told)
                trials += told
        except BaseException:
            abort()
            device.shutdown(wait=True, cancel_futures=True)
            raise
    return trials


def _one(estimator: Estimator[Spec], spec: Spec) -> Estimate | Failure:
    return estimator.estimate([spec])[0]


def _trial(
    spec: Spec,
    accuracy: Estimator[Spec],
    latency: Future[Estimate | Failure],
    objective: Objective,
) -> Trial[Spec]:
    found: dict[str, Estimate | Failure] = {
        accuracy.metric: _one(accuracy, spec),
        "latency_ms": latency.result(),
    }
    estimates = {k: v for k, v in found.items() if isinstance(v, Estimate)}
    failures: Sequence[Failure] = [v for v in found.values() if isinstance(v, Failure)]
    if failures:
        return Trial(spec, estimates, failure=failures[0])
    return Trial(spec, estimates, objective.score(estimates))
