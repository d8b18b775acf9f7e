"""Tell whether a model is here."""

from typing import Any, Dict

from ..arguments import Argument
from ..resources import Resources

ARGUMENTS = {"sha256": Argument("text")}


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return {"has"}; the model counts as used now."""
    return {"has": resources.store.has(args["sha256"])}
