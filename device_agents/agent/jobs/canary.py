"""Time the canary, a tiny fixed job on one CPU that tells a slowed device without any sensor.

The idea is that of androidx's ThrottleDetector: the minimum of a few repetitions is what the CPU
can do now, the smallest minimum ever is what it can do at all. That value is kept in the agent's
directory, by Python release, since another Python takes another time for the same job.
"""

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List

from .. import clock, model_job, store
from ..arguments import Argument
from ..resources import Resources

ARGUMENTS = {"cpus": Argument("list", default=[])}

_REPETITIONS = 25
_STEPS = 40  # of a coarse clock, in which the job's time is known to 2.5 %
_ROUNDS = 400
_SIDE = 4
_TYPICAL_NS = 1_000_000


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return {"ns", "idle_ns"}: what the canary takes now, and the least it ever took."""
    return sing(resources.store.directory, args["cpus"])


def sing(directory: str, cpus: List[int]) -> Dict[str, Any]:
    """Time the canary on these CPUs, and keep its best time in `directory`."""
    step_ns = clock.current().step_ns()
    now_ns = _pinned(cpus, step_ns)
    kept = Path(directory) / "canary.json"
    best = _read(kept)
    key = "%s on CPUs %s" % (platform.python_version(), cpus or "any")
    if _is_coarse(step_ns):
        # A mean is no minimum: the two are not compared.
        key += " by a coarse clock"
    idle_ns = min(now_ns, best.get(key, now_ns))
    if idle_ns != best.get(key):
        best[key] = idle_ns
        _write(kept, best)
    return {"ns": now_ns, "idle_ns": idle_ns}


def _pinned(cpus: List[int], step_ns: int) -> int:
    """Time the job on the CPUs of the measurement, and leave the agent where it was."""
    before = os.sched_getaffinity(0) if cpus and hasattr(os, "sched_getaffinity") else None
    model_job.pin(cpus)
    try:
        if _is_coarse(step_ns):
            return _mean(_STEPS * step_ns)
        return min(_once() for _ in range(_REPETITIONS))
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


def _is_coarse(step_ns: int) -> bool:
    return step_ns > _TYPICAL_NS // 100


def _once() -> int:
    start = clock.current().now_ns()
    clock.current().work(_job, _TYPICAL_NS)
    return clock.current().now_ns() - start


def _mean(least_ns: int) -> int:
    """Return the job's mean time over at least so long, for a clock that cannot time a single one.

    The invokes count from one step of the clock to a later one.
    """
    now_ns = clock.current().now_ns
    start = now_ns()
    while now_ns() == start:
        clock.current().work(_job, _TYPICAL_NS)
    start, jobs = now_ns(), 0
    while now_ns() - start < least_ns:
        clock.current().work(_job, _TYPICAL_NS)
        jobs += 1
    return (now_ns() - start) // jobs


def _job() -> None:
    matrix = [[float(row == column) for column in range(_SIDE)] for row in range(_SIDE)]
    for step in range(_ROUNDS):
        for row in matrix:
            for column in range(_SIDE):
                row[column] = row[column] * 0.5 + row[column - 1] * 0.25 + step


def _read(path: Path) -> Dict[str, int]:
    found = store.read_json(path)
    if not isinstance(found, dict):
        return {}
    return {key: ns for key, ns in found.items() if isinstance(ns, int) and ns > 0}


def _write(path: Path, best: Dict[str, int]) -> None:
    # A full disk costs only the memory of the best value.
    with suppress(OSError):
        store.write_json(path, best)
