"""What all jobs have in common that load a model, in a child process of their own."""

import contextlib
import os
from typing import Any, Callable, Dict, Iterator, List, Tuple

from . import clock, inputs, parts, runtimes, shapes, words
from .arguments import Argument
from .resources import Resources
from .wire import Refused

ARGUMENTS = {
    "runtime": Argument("text"),
    "threads": Argument("integer", default=1),
    "cpus": Argument("list", default=[]),
    "parts": Argument("object", default={}),  # location -> SHA-256, of a model of several files
    "shapes": Argument("object", default={}),  # of inputs that the file leaves open (shapes.py)
    "inputs": Argument("list", default=[]),  # what it is run on (inputs.py); else seeded values
    "xnnpack": Argument("flag", default=True),
    "optimised": Argument("flag", default=True),
    "deadline_s": Argument("number"),
}
"""Those of every such job, besides its own."""


def run(
    op: str, order: Dict[str, Any], args: Dict[str, Any], resources: Resources
) -> Dict[str, Any]:
    """Do the work of the job `op` in a child process and return its result.

    The work gets `order` with what ARGUMENTS say of how to load the model; `args` are the call's.
    Raises Refused; HostGone when nobody is left who waits for it.
    """
    order = dict(
        order,
        parts=parts.check(args["parts"], resources.store.path),
        shapes=shapes.check(args["shapes"]),
        inputs=inputs.check_all(args["inputs"], resources.store.path),
        **{name: args[name] for name in ("runtime", "threads", "cpus", "xnnpack", "optimised")},
    )
    resources.prepare(args["runtime"])
    call = {name: args[name] for name in ("id", "rejoin_s", "deadline_s")}
    try:
        return resources.turns.run(op, order, call)  # type: ignore[no-any-return]
    finally:
        resources.store.end_job()


def load(
    order: Dict[str, Any], path: str, what: str, stage: Callable[[str], None]
) -> Tuple[Any, int]:
    """Load one file; return the model and the nanoseconds that it took.

    Raises Refused("load_failed") with the runtime's own words.
    """
    stage("loading " + what)
    start = clock.current().now_ns()
    try:
        known = runtimes.module(order["runtime"])
        names = getattr(known, "SETTINGS", ())
        more = {name: order[name] for name in names if name in order}
        with parts.lay_together(path, order["parts"]) as whole:
            model = known.Model(whole, order["threads"], order["shapes"], **more)
    except Refused:
        raise
    except Exception as error:
        why = words.reason(str(error))
        sentence = "the %s runtime refuses %s: %s" % (order["runtime"], what, why)
        raise Refused("load_failed", sentence, str(error)) from error
    return model, clock.current().now_ns() - start


@contextlib.contextmanager
def blame_runtime() -> Iterator[None]:
    """Say of what goes wrong in a `with` block that the runtime failed to run the loaded model.

    What the agent itself refuses there, such as the device's clock, stays what it is.
    """
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        sentence = "the runtime failed to run the model: %s" % words.reason(str(error))
        raise Refused("invoke_failed", sentence, str(error)) from error


def pin(cpus: List[int]) -> None:
    """Pin this process to the given CPUs; an empty list leaves it alone."""
    if not cpus:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise Refused("bad_request", "this device cannot pin a process to CPUs; remove `cpus`")
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise Refused(
            "bad_request",
            "cannot pin to CPUs %s of %s: %s" % (cpus, os.cpu_count(), error.strerror),
        ) from error
