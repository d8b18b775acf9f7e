"""What the agent answers; one file here is one op, of the file's name, found by listing.

A job's file holds:

    ARGUMENTS                   name -> Argument (agent/arguments.py); what a call has besides
                                them, or of another kind, is refused before `answer` is called
    answer(args, resources)     -> dict, the result, as JSON; `args` has every declared argument
                                and those of every call; raises Refused

A job that loads a model does so in a child process (agent/model_job.py), as does one that takes
long and may fail on what arrived (unpack.py), and its file also holds:

    work(order, stage)          -> dict, the result, as JSON; called in the child with what `answer`
                                has ordered, as JSON; `stage` is told what it is about to do;
                                raises Refused

A file is imported when its op is called for the first time.
"""

import functools
import importlib
import pkgutil
from typing import Any, Callable, Dict, Tuple

from ..wire import Refused

Stage = Callable[[str], None]
Work = Callable[[Dict[str, Any], Stage], Dict[str, Any]]


@functools.lru_cache(maxsize=None)
def names() -> Tuple[str, ...]:
    """Return the ops that this agent knows, in alphabetical order."""
    return tuple(sorted(item.name for item in pkgutil.iter_modules(__path__)))


def module(op: Any) -> Any:
    """Return the job's module; raises Refused for an op that is not known."""
    if op not in names():
        raise Refused("bad_request", "no op %.100r known; have %s" % (op, ", ".join(names())))
    return importlib.import_module("." + op, __name__)


def work_of(op: str) -> Work:
    """Return what a job does in a child process."""
    work: Work = module(op).work
    return work
