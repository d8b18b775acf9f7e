"""Names that are like a name which nobody knows, for sentences that offer what there is."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """Return `known` with the names most like `name` first, equals in alphabetical order."""

    def distance(other: str) -> float:
        return -difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()

    return sorted(sorted(known), key=distance)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean 'random_search'? " for a name that is like a known one, else "".

    The first or last words of a longer name are like it too, which a ratio alone misses.
    """
    names = nearest_first(name, known)
    partly = [other for other in names if len(name) > 1 and name.lower() in other.lower()]
    near = [*partly, *difflib.get_close_matches(name.lower(), names, 1)]
    return f"did you mean {near[0]!r}? " if near else ""
