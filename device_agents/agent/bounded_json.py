"""JSON from outside, refused before it is decoded when it is no message but an attack or an error.

Decoded JSON takes up to forty times the memory of its text (`[[],[],…]`), nested without end it
exhausts the stack, and Python reads what JSON does not have: NaN, integers of any length. One
reader for both ends of the link and for every file: it bounds size, marks and depth before decoding
and takes no number that 64 bits do not hold, no key twice, no half of a surrogate pair.
"""

import json
import math
import re
from typing import Any, Dict, List, Tuple

LIMIT_CHARS = 64 * 1024 * 1024
MARKS_LIMIT = 2_000_000
DEPTH_LIMIT = 64

# Each value of a text needs one of these, so their number bounds what decoding makes of it. Those
# inside strings are counted too: what is sent has few there.
_MARKS = ("[", "{", ",")
_STEPS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_INTEGER_LIMIT = 1 << 64
_INTEGER_CHARS = 20


class JsonRefused(ValueError):
    """JSON beyond a bound; `str()` says which, to stand behind "it holds" or alone."""


def marks(text: str) -> int:
    """Return how many characters could begin a value: a text holds no more values than that."""
    return sum(text.count(mark) for mark in _MARKS)


def loads(text: str, *, limit_chars: int = LIMIT_CHARS) -> Any:
    """Return the value of a JSON text.

    Raises JsonRefused beyond a bound, ValueError (of which it is one) for what is not JSON.
    """
    if len(text) > limit_chars:
        raise JsonRefused("more than %d characters" % limit_chars)
    if marks(text) > MARKS_LIMIT:
        raise JsonRefused("more than %d values" % MARKS_LIMIT)
    if text.count("[") + text.count("{") > DEPTH_LIMIT:
        _refuse_depth(text)
    value = json.loads(
        text,
        object_pairs_hook=_object,
        parse_int=_integer,
        parse_float=_number,
        parse_constant=_constant,
    )
    if _SURROGATE.search(text):
        _refuse_halves(value)
    return value


def _refuse_depth(text: str) -> None:
    """Refuse what is nested too deep; what closes more than it opened is left to the decoder."""
    depth, in_string = 0, False
    for step in _STEPS.finditer(text):
        sign = step.group()
        if sign == '"':
            in_string = not in_string
        elif in_string or len(sign) > 1:
            continue
        elif sign in "[{":
            depth += 1
            if depth > DEPTH_LIMIT:
                raise JsonRefused("values nested more than %d deep" % DEPTH_LIMIT)
        else:
            depth -= 1
            if depth < 0:
                return


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonRefused("the key %.80r twice" % key)
            seen.add(key)
    return made


def _integer(digits: str) -> int:
    value = int(digits) if len(digits) <= _INTEGER_CHARS else _INTEGER_LIMIT
    if not -_INTEGER_LIMIT < value < _INTEGER_LIMIT:
        raise JsonRefused("an integer of %d digits" % len(digits.lstrip("-")))
    return value


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise JsonRefused("a number too large: %.40s" % digits)
    return value


def _constant(name: str) -> float:
    raise JsonRefused("%s, which is no number of JSON" % name)


def _refuse_halves(value: Any) -> None:
    """Refuse text that no encoding can write: half of a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise JsonRefused("text with half a surrogate pair") from None
