"""Make another release current: the one before, or the version that is given."""

from typing import Any, Dict

from ..arguments import Argument
from ..resources import Resources

ARGUMENTS = {"name": Argument("text"), "version": Argument("text", default=None)}


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return {"current", "sha256"}."""
    return resources.releases.rollback(args["name"], args["version"])
