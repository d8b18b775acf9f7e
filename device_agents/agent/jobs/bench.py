"""Time a model, interleaved with a reference model if one is given, in a fresh child process."""

import gc
import sys
from typing import Any, Callable, Dict

from .. import clock, inputs, model_job, parts, runtimes, sensors, shapes, timing
from ..arguments import Argument
from ..resources import Resources

ARGUMENTS = {
    "sha256": Argument("text"),
    "reference_sha256": Argument("text", default=None),
    "reference_parts": Argument("object", default={}),
    "reference_shapes": Argument("object", default={}),
    "reference_inputs": Argument("list", default=[]),
    "warmup_min_ms": Argument("number"),
    "warmup_max_ms": Argument("number"),
    "max_s": Argument("number"),
    "min_samples": Argument("integer"),
    "max_samples": Argument("integer"),
    "block_ms": Argument("number"),
    "target_half_width": Argument("number"),
    "seed": Argument("integer"),
    # Device time that preparing this call has cost: timing lasts longer for it.
    "spent_ns": Argument("integer", default=0),
    **model_job.ARGUMENTS,
}


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return how the model and the reference ran, and the raw times of their blocks."""
    reference = args["reference_sha256"]
    order = {
        # The clock is the machine's, so the child can tell what starting it has cost.
        "begun_ns": clock.current().now_ns(),
        "path": str(resources.store.path(args["sha256"])),
        "reference_path": str(resources.store.path(reference)) if reference else None,
        "reference_parts": parts.check(args["reference_parts"], resources.store.path),
        "reference_shapes": shapes.check(args["reference_shapes"]),
        "reference_inputs": inputs.check_all(args["reference_inputs"], resources.store.path),
        "max_ns": int(args["max_s"] * 1e9),
    }
    for name in ("warmup_min", "warmup_max", "block"):
        order[name + "_ns"] = int(args[name + "_ms"] * 1e6)
    for name in ("min_samples", "max_samples", "seed", "spent_ns", "target_half_width"):
        order[name] = args[name]
    return model_job.run("bench", order, args, resources)


def work(order: Dict[str, Any], stage: Callable[[str], None]) -> Dict[str, Any]:
    """Load, warm up and time; all figures go back raw, statistics are the host's."""
    model_job.pin(order["cpus"])
    model, load_ns = model_job.load(order, order["path"], "the model", stage)
    subjects = [model]
    if order["reference_path"]:
        own = ("shapes", "parts")
        other = dict(order, **{name: order["reference_" + name] for name in own})
        reference, more_ns = model_job.load(other, order["reference_path"], "the reference", stage)
        subjects.append(reference)
        load_ns += more_ns
    for subject, name in zip(subjects, ("inputs", "reference_inputs")):
        inputs.fill(subject, order[name], order["seed"])
    # No collection first: after a fork it would copy every page that holds a Python object.
    gc.disable()
    stage("warming up")
    step_ns = clock.current().step_ns()
    with model_job.blame_runtime():
        warmups = [
            timing.warm_up(item.invoke, order["warmup_min_ns"], order["warmup_max_ns"], step_ns)
            for item in subjects
        ]
        typical_ns = [item["typical_ns"] for item in warmups]
        invokes = [timing.invokes_per_sample(ns, step_ns, order) for ns in typical_ns]
        stage("timing")
        blocks = timing.time_blocks(
            [timing.Batch(item.invoke, count) for item, count in zip(subjects, invokes)],
            [ns * count for ns, count in zip(typical_ns, invokes)],
            order,
            timing.limits_ns(order, sum(item["ns"] for item in warmups)),
        )
    # At once: a governor lowers the clock within milliseconds of the last invoke.
    core = sensors.current().busiest(order["cpus"])
    delegation = runtimes.read_delegation(model)
    return {
        "package": model.package,
        "version": model.version,
        "load_ns": load_ns,
        "warmups": warmups,
        "blocks": blocks,
        "invokes_per_sample": invokes,
        "step_ns": step_ns,
        "clock_khz": core.clock_khz if core else None,
        "core_max_khz": core.max_khz if core else None,
        "fastest_max_khz": sensors.current().fastest_khz(),
        "partitions": model.partitions(),
        "ops": model.ops(),
        "delegate": delegation["delegate"],
        "delegated_share": delegation["share"],
        "left": delegation["left"],
        "settings": runtimes.read_settings(model),
        "inputs": [item.inputs() for item in subjects],
        "peak_rss_bytes": _peak_rss_bytes(),
    }


def _peak_rss_bytes() -> int:
    """Return this process's largest resident size; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(size if sys.platform == "darwin" else size * 1024)
