"""The arguments of a call: whatever a host sends, each is checked before it is used."""

from typing import Any, Dict, Tuple

from .wire import Refused

_KINDS: Dict[str, Tuple[type, ...]] = {
    "text": (str,),
    "number": (int, float),
    "integer": (int,),
    "list": (list,),
    "flag": (bool,),
    "object": (dict,),
}


class Arguments:
    """The arguments of one call, each checked when it is asked for."""

    def __init__(self, values: Any) -> None:
        if not isinstance(values, dict):
            raise Refused("bad_request", "args is not an object")
        self._values: Dict[str, Any] = values

    def take(self, name: str, kind: str, default: Any = None) -> Any:
        """Return the argument; without a default it is required."""
        value = self._values.get(name)
        if value is None:
            if default is None:
                raise Refused("bad_request", "argument %s is missing" % name)
            return default
        wrong_flag = isinstance(value, bool) and kind != "flag"
        if wrong_flag or not isinstance(value, _KINDS[kind]):
            raise Refused("bad_request", "argument %s = %.100r is not a %s" % (name, value, kind))
        return value

    def optional(self, name: str) -> Any:
        """Return the argument or None."""
        return self._values.get(name)
