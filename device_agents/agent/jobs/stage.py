"""Copy a model to where it runs as a release, which is not in use yet."""

from typing import Any, Dict

from ..arguments import Argument
from ..resources import Resources

ARGUMENTS = {
    "sha256": Argument("text"),
    "name": Argument("text"),
    "version": Argument("text"),
    "extension": Argument("text"),
}


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return {"current"}, the version that is in use."""
    return resources.releases.stage(
        args["sha256"], args["name"], args["version"], args["extension"]
    )
