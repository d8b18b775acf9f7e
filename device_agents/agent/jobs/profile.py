"""Time every op of a model with the runtime's own profiler, which would disturb the timing."""

import shutil
import tempfile
from typing import Any, Callable, Dict

from .. import inputs, model_job, parts, runtimes
from ..arguments import Argument
from ..resources import Resources
from ..wire import Refused

ARGUMENTS = {
    "sha256": Argument("text"),
    "invokes": Argument("integer"),
    **model_job.ARGUMENTS,
}
# Kept out of the figures: the first runs of an op pack its weights and fill the caches.
_WARMUP_INVOKES = 3


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return the times of every op over so many invokes."""
    order = {
        "path": str(resources.store.path(args["sha256"])),
        "invokes": args["invokes"],
    }
    return model_job.run("profile", order, args, resources)


def work(order: Dict[str, Any], stage: Callable[[str], None]) -> Dict[str, Any]:
    """Load the model and profile it; Refused for a runtime that has no profiler."""
    known = runtimes.module(order["runtime"])
    times_of = getattr(known, "profile", None)
    if times_of is None:
        raise Refused(
            "bad_request",
            "the %s runtime gives no times of single ops; the runtime benchmark_model gives them "
            "for TFLite models, onnx for ONNX models" % order["runtime"],
        )
    model_job.pin(order["cpus"])
    model, _ = model_job.load(order, order["path"], "the model", stage)
    data = inputs.first(order["inputs"], model.inputs())
    stage("profiling")
    folder = tempfile.mkdtemp(prefix="edgewright-")
    try:
        invokes = _WARMUP_INVOKES + order["invokes"]
        with model_job.blame_runtime(), parts.lay_together(order["path"], order["parts"]) as whole:
            how = {"invokes": invokes, "folder": folder, "data": data}
            rows = times_of(whole, order["threads"], order["shapes"], **how)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for row in rows:
        # An op in a branch that is rarely taken may have run less often than the warm-up.
        row["samples_ns"] = row["samples_ns"][_WARMUP_INVOKES:] or row["samples_ns"][-1:]
    return {
        "package": model.package,
        "version": model.version,
        "inputs": [model.inputs()],
        "ops": rows,
    }
