"""Tell what the models take, and may take at most."""

from typing import Any, Dict

from ..arguments import Argument
from ..resources import Resources
from ..store import KEEP_BYTES

ARGUMENTS = {"keep_bytes": Argument("integer", default=KEEP_BYTES)}


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return {"models", "bytes", "bound_bytes"} for a host that keeps `keep_bytes` of models."""
    return resources.store.usage(args["keep_bytes"])
