"""Runs one model at full rate for a long time, to see what heat does to its latency.

The time is cut into intervals; the state of the device is read once in each, between two invokes.
Of every interval a bounded number of samples is kept, evenly spread: when there are too many, every
second one goes and from then on only every second is kept.
"""

import gc
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import bench, clock, runtimes, sensors
from .wire import Refused

_KEPT = 512


def sustain(args: Dict[str, Any], stage: Callable[[str], None]) -> Dict[str, Any]:
    """Load the model and run it; the keys of `args` are those of `op_sustain` in main.py."""
    bench.pin(args["cpus"])
    model, _ = bench.load(args, args["path"], "the model", stage)
    model.fill(args["seed"])
    gc.disable()
    state = sensors.current()
    # The tool and the files answer a little slower the first time.
    first = state.at_load(args["cpus"])
    try:
        model.invoke()
        intervals, stopped = run_intervals(model.invoke, lambda: state.at_load(args["cpus"]), args)
    except Exception as error:
        raise Refused("invoke_failed", "the runtime failed to run the model", str(error)) from error
    delegation = runtimes.told_delegation(model)
    return {
        "package": model.package,
        "version": model.version,
        "before": first,
        "intervals": intervals,
        "stopped": stopped,
        "delegate": delegation["delegate"],
        "delegated_share": delegation["share"],
        "left": delegation["left"],
        "settings": runtimes.told_settings(model),
        "inputs": [model.inputs()],
    }


def run_intervals(
    invoke: Callable[[], None], read: Callable[[], Dict[str, Any]], args: Dict[str, Any]
) -> Tuple[List[Dict[str, Any]], bool]:
    """Return the intervals, and whether the trip value ended them before `duration_ns`."""
    begin = clock.current().now_ns()
    trip: Optional[float] = args["trip_celsius"]
    intervals: List[Dict[str, Any]] = []
    while clock.current().now_ns() - begin < args["duration_ns"]:
        start = clock.current().now_ns()
        end = min(start + args["interval_ns"], begin + args["duration_ns"])
        count, samples = _until(invoke, end)
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


def _until(invoke: Callable[[], None], end_ns: int) -> Tuple[int, List[int]]:
    """Invoke until the clock says `end_ns`, once at least; return how often, and the samples."""
    now_ns, every, count = clock.current().now_ns, 1, 0
    kept: List[int] = []
    while True:
        start = now_ns()
        invoke()
        stop = now_ns()
        if count % every == 0:
            if len(kept) == _KEPT:
                kept = kept[::2]
                every *= 2
            if count % every == 0:
                kept.append(stop - start)
        count += 1
        if stop >= end_ns:
            return count, kept
