"""Import a runtime, so that later children need not."""

from typing import Any, Dict

from ..arguments import Argument
from ..resources import Resources

ARGUMENTS = {"runtime": Argument("text")}


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return the package that runs models of this runtime, and its version."""
    package, version = resources.prepare(args["runtime"])
    return {"package": package, "version": version}
