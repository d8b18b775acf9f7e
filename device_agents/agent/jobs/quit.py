"""End the agent after this answer; all answers before it have arrived."""

from typing import Any, Dict

from ..arguments import Argument
from ..resources import Resources

ARGUMENTS: Dict[str, Argument] = {}


def answer(_: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Remove the last answer that was kept for a host whose link is lost."""
    resources.turns.forget()
    return {}
