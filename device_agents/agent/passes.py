"""Passes that would disturb the timing, each in a child of its own: times of ops, and memory."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from . import bench, parts, runtimes
from .wire import Refused

# Kept out of the figures: the first runs of an op pack its weights and fill the caches.
_WARMUP_INVOKES = 3


def profile(args: Dict[str, Any], stage: Callable[[str], None]) -> Dict[str, Any]:
    """Return the times of every op, from the runtime's own profiler; `args` as in `op_profile`."""
    known = runtimes.module(args["runtime"])
    times_of = getattr(known, "profile", None)
    if times_of is None:
        raise Refused(
            "bad_request",
            "the %s runtime gives no times of single ops; the runtime benchmark_model gives them "
            "for TFLite models, onnx for ONNX models" % args["runtime"],
        )
    bench.pin(args["cpus"])
    model, _ = bench.load(args, args["path"], "the model", stage)
    stage("profiling")
    folder = tempfile.mkdtemp(prefix="edgewright-")
    try:
        invokes = _WARMUP_INVOKES + args["invokes"]
        with bench.running(), parts.together(args["path"], args["parts"]) as whole:
            rows = times_of(whole, args["threads"], args["shapes"], invokes, folder)
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


def memory(args: Dict[str, Any], stage: Callable[[str], None]) -> Dict[str, Any]:
    """Return resident bytes before loading, loaded, and at most while running."""
    before = resident_bytes("VmRSS")
    if before is None:
        raise Refused("bad_request", "this device does not tell a process's memory in /proc")
    bench.pin(args["cpus"])
    model, _ = bench.load(args, args["path"], "the model", stage)
    loaded = resident_bytes("VmRSS")
    stage("running")
    with bench.running():
        model.fill(0)
        for _ in range(args["invokes"]):
            model.invoke()
    return {
        "package": model.package,
        "version": model.version,
        "inputs": [model.inputs()],
        "before_bytes": before,
        "loaded_bytes": loaded,
        "peak_bytes": resident_bytes("VmHWM"),
        "model_bytes": parts.total_bytes(args["path"], args["parts"]),
    }


def resident_bytes(field: str, status: str = "/proc/self/status") -> Optional[int]:
    """Return VmRSS (now) or VmHWM (at most so far) of this process; None where unknown."""
    try:
        text = Path(status).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^%s:\s+(\d+) kB$" % field, text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None
