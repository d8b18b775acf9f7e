"""Put what is staged in use."""

from typing import Any, Dict

from ..arguments import Argument
from ..resources import Resources

ARGUMENTS = {"name": Argument("text"), "version": Argument("text")}


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return {"path", "current"}: where it lies now, and its version."""
    return resources.releases.activate(args["name"], args["version"])
