"""The arguments of a call: whatever a host sends is held against what the job declares."""

import copy
from typing import Any, Dict, NamedTuple, Tuple

from .wire import Refused

_REQUIRED = object()
_KINDS: Dict[str, Tuple[str, Tuple[type, ...]]] = {
    "text": ("a text", (str,)),
    "number": ("a number", (int, float)),
    "integer": ("an integer", (int,)),
    "list": ("a list", (list,)),
    "flag": ("a flag", (bool,)),
    "object": ("an object", (dict,)),
}


class Argument(NamedTuple):
    """What a job declares of one argument; without a default it is required."""

    kind: str  # text, number, integer, list, flag or object
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        """Whether a call without it is refused."""
        return self.default is _REQUIRED


OF_EVERY_CALL = {
    "id": Argument("text", default=""),
    "rejoin_s": Argument("number", default=0.0),
}
"""What a host may say of any call, to make the same one again after a lost link (turns.py)."""


def check(what: str, given: Any, declared: Dict[str, Argument]) -> Dict[str, Any]:
    """Return name -> value of every declared argument, those that are not given by their default.

    Raises Refused for what is missing, unknown or of another kind; `what` takes the arguments, in
    its sentence.
    """
    if not isinstance(given, dict):
        raise Refused(
            "bad_request", "%s takes its arguments as an object, not %.100r" % (what, given)
        )
    for name in given:
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            sentence = "%s takes no argument %.100r; it takes %s"
            raise Refused("bad_request", sentence % (what, name, known))
    return {name: _value(name, given.get(name), argument) for name, argument in declared.items()}


def _value(name: str, value: Any, argument: Argument) -> Any:
    if value is None:
        if argument.required:
            raise Refused("bad_request", "argument %s is missing" % name)
        return copy.copy(argument.default)
    words, types = _KINDS[argument.kind]
    wrong_flag = isinstance(value, bool) and argument.kind != "flag"
    if wrong_flag or not isinstance(value, types):
        raise Refused("bad_request", "argument %s = %.100r is not %s" % (name, value, words))
    return value
