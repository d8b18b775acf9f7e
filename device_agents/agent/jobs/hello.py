"""Tell who answers: protocol, hash of the agent, facts of the device, installed runtimes."""

from typing import Any, Dict

from ..arguments import Argument
from ..resources import Resources

ARGUMENTS: Dict[str, Argument] = {}


def answer(_: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return the facts, and where the files of this agent lie."""
    facts = resources.facts()
    facts["directory"] = resources.store.directory
    facts["incoming"] = str(resources.store.incoming)
    return facts
