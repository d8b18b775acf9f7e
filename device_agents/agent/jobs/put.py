"""Take a file in that was transferred, as a model."""

from typing import Any, Dict

from ..arguments import Argument
from ..resources import Resources
from ..store import KEEP_BYTES

ARGUMENTS = {
    "sha256": Argument("text"),
    "path": Argument("text"),
    "keep_bytes": Argument("integer", default=KEEP_BYTES),  # of other models
}


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Verify the hash of the file and move it to the models, of which old ones make room."""
    resources.store.accept(args["sha256"], args["path"], args["keep_bytes"])
    return {}
