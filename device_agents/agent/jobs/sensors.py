"""Read the device's state."""

from typing import Any, Dict

from ..arguments import Argument
from ..resources import Resources

ARGUMENTS = {"max_age_s": Argument("number", default=0.0)}


def answer(args: Dict[str, Any], resources: Resources) -> Dict[str, Any]:
    """Return the state; what a tool tells of it may be up to `max_age_s` old."""
    state: Dict[str, Any] = resources.sensors.read(resources.store.directory, args["max_age_s"])
    return state
