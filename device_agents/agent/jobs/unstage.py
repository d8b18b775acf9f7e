"""Forget what is staged."""

from typing import Any, Dict

from ..arguments import Argument
from ..resources import Resources

ARGUMENTS = {"name": Argument("text"), "version": Argument("text")}


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Remove what is staged; what is in use stays."""
    resources.releases.unstage(args["name"], args["version"])
    return {}
