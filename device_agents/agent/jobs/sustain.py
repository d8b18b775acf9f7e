"""Run a model at full rate for a long time, to see what heat does to its latency.

The time is cut into intervals; the state of the device is read once in each, between two invokes.
Of every interval a bounded number of samples is kept, evenly spread: when there are too many, every
second one goes and from then on only every second is kept. By a clock that moves in steps a sample
is the mean of several invokes, as in timing.py.
"""

import gc
from typing import Any, Callable, Dict, List, Optional, Tuple

from .. import clock, inputs, model_job, runtimes, sensors, timing
from ..arguments import Argument
from ..resources import Resources

_KEPT = 512
_PRECISION = 0.01  # a step of the clock is at most so much of a sample

ARGUMENTS = {
    "sha256": Argument("text"),
    "duration_s": Argument("number"),
    "interval_s": Argument("number"),
    "trip_celsius": Argument("number", default=None),  # the run ends above it
    "seed": Argument("integer", default=0),
    **model_job.ARGUMENTS,
}


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return the state and the times of every interval, and whether the heat ended the run."""
    order = {
        "path": str(resources.store.path(args["sha256"])),
        "duration_ns": int(args["duration_s"] * 1e9),
        "interval_ns": int(args["interval_s"] * 1e9),
        "trip_celsius": args["trip_celsius"],
        "seed": args["seed"],
    }
    return model_job.run("sustain", order, args, resources)


def work(order: Dict[str, Any], stage: Callable[[str], None]) -> Dict[str, Any]:
    """Load the model and run it until its time is over or it is too hot."""
    model_job.pin(order["cpus"])
    model, _ = model_job.load(order, order["path"], "the model", stage)
    inputs.fill(model, order["inputs"], order["seed"])
    gc.disable()
    state = sensors.current()
    # The tool and the files answer a little slower the first time.
    first = state.at_load(order["cpus"])
    with model_job.blame_runtime():
        model.invoke()
        batch = timing.Batch(model.invoke, _invokes_per_sample(model.invoke))
        intervals, stopped = run_intervals(batch, lambda: state.at_load(order["cpus"]), order)
    delegation = runtimes.read_delegation(model)
    return {
        "package": model.package,
        "version": model.version,
        "before": first,
        "intervals": intervals,
        "stopped": stopped,
        "delegate": delegation["delegate"],
        "delegated_share": delegation["share"],
        "left": delegation["left"],
        "settings": runtimes.read_settings(model),
        "inputs": [model.inputs()],
    }


def _invokes_per_sample(invoke: Callable[[], None]) -> int:
    """Return how many invokes make a step of the clock a small part of their time."""
    step_ns = clock.current().step_ns()
    if not step_ns:
        return 1
    return max(1, round(step_ns / _PRECISION / timing.time_by_steps(invoke, step_ns)))


def run_intervals(
    batch: timing.Batch, read: Callable[[], Dict[str, Any]], order: Dict[str, Any]
) -> Tuple[List[Dict[str, Any]], bool]:
    """Return the intervals, and whether the trip value ended them before `duration_ns`."""
    begin = clock.current().now_ns()
    trip: Optional[float] = order["trip_celsius"]
    intervals: List[Dict[str, Any]] = []
    while clock.current().now_ns() - begin < order["duration_ns"]:
        start = clock.current().now_ns()
        end = min(start + order["interval_ns"], begin + order["duration_ns"])
        count, samples = _until(batch, end)
        took_ns = clock.current().now_ns() - start
        state = read()
        intervals.append(
            {
                "start_ns": start - begin,
                "took_ns": took_ns,
                "invokes": count,
                "samples_ns": samples,
                **state,
            }
        )
        celsius = state["soc_celsius"]
        if trip is not None and celsius is not None and celsius > trip:
            return intervals, True
    return intervals, False


def _until(batch: timing.Batch, end_ns: int) -> Tuple[int, List[int]]:
    """Invoke until the clock says `end_ns`, once at least; return how often, and the samples."""
    now_ns, run, every, count = clock.current().now_ns, batch.run, 1, 0
    kept: List[int] = []
    while True:
        start = now_ns()
        run()
        stop = now_ns()
        if count % every == 0:
            if len(kept) == _KEPT:
                kept = kept[::2]
                every *= 2
            if count % every == 0:
                kept.append((stop - start) // batch.count)
        count += 1
        if stop >= end_ns:
            return count * batch.count, kept
