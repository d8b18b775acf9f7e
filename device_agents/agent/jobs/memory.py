"""Tell the memory that a model takes, loaded and running, in a child process of its own."""

import re
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from .. import inputs, model_job, parts
from ..arguments import Argument
from ..resources import Resources
from ..wire import Refused

ARGUMENTS = {
    "sha256": Argument("text"),
    "invokes": Argument("integer"),
    **model_job.ARGUMENTS,
}


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return resident bytes before loading, loaded, and at most over so many invokes."""
    order = {
        "path": str(resources.store.path(args["sha256"])),
        "invokes": args["invokes"],
    }
    return model_job.run("memory", order, args, resources)


def work(order: Dict[str, Any], stage: Callable[[str], None]) -> Dict[str, Any]:
    """Load the model and run it; Refused where the kernel does not tell a process's memory."""
    before = resident_bytes("VmRSS")
    if before is None:
        raise Refused("bad_request", "this device does not tell a process's memory in /proc")
    model_job.pin(order["cpus"])
    model, _ = model_job.load(order, order["path"], "the model", stage)
    loaded = resident_bytes("VmRSS")
    stage("running")
    with model_job.blame_runtime():
        inputs.fill(model, order["inputs"], seed=0)
        for _ in range(order["invokes"]):
            model.invoke()
    return {
        "package": model.package,
        "version": model.version,
        "inputs": [model.inputs()],
        "before_bytes": before,
        "loaded_bytes": loaded,
        "peak_bytes": resident_bytes("VmHWM"),
        "model_bytes": parts.total_bytes(order["path"], order["parts"]),
    }


def resident_bytes(field: str, status: str = "/proc/self/status") -> Optional[int]:
    """Return VmRSS (now) or VmHWM (at most so far) of this process; None where unknown."""
    try:
        text = Path(status).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^%s:\s+(\d+) kB$" % field, text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None
