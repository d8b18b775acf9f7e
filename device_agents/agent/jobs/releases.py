"""List what is deployed."""

from typing import Any, Dict

from ..arguments import Argument
from ..resources import Resources

ARGUMENTS: Dict[str, Argument] = {}


def answer(_: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return {"releases"}: name, version, sha256, file and current of each."""
    return {"releases": resources.releases.list()}
