"""The chain of passes of a recipe: its tables [[compress]], in order.

A table holds the options of its pass, beside `pass`, which names it, and `max_drop`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError
from device_agents.near_names import did_you_mean, nearest_first
from pipeline.compress.pass_words import QUANTIZE, make_pass, make_quantizer, spelled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.compress.api import Pass

_MOST_POINTS = 1e9


@dataclass(frozen=True, slots=True)
class Planned:
    """A pass of a recipe.

    Attributes:
        words: as the command line spells it.
        one: the pass.
        max_drop: points that the model may have lost after it; None to ask nothing.
    """

    words: str
    one: Pass
    max_drop: float | None


def check_tables(tables: Sequence[Mapping[str, Any]], source: str) -> None:
    """Refuse tables that name no chain of passes, as `read_tables` does. Raises ConfigError."""
    read_tables(tables, source)


def read_tables(
    tables: Sequence[Mapping[str, Any]], source: str, *, images: int = 256, multiple: int = 1
) -> tuple[Planned, ...]:
    """Return the passes that the tables of a recipe name.

    Args:
        tables: of [[compress]], in order.
        source: begins every sentence.
        images: samples to calibrate on, where that is not said.
        multiple: of channels, where that is not said.

    Raises:
        ConfigError: a pass or an option is unknown or cannot be, or one comes after numbers were
            made smaller; names the table by its number.
    """
    found: list[Planned] = []
    for number, table in enumerate(tables, 1):
        place = f"{source}: [[compress]] table {number}"
        if found and found[-1].one.quantizes:
            raise ConfigError(
                f"{place}: it comes after {found[-1].words}, and numbers are made smaller last"
            )
        try:
            found.append(_planned(table, images, multiple))
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error
    return tuple(found)


def _planned(table: Mapping[str, Any], images: int, multiple: int) -> Planned:
    options = dict(table)
    name, max_drop = options.pop("pass", None), options.pop("max_drop", None)
    if name is None:
        raise ConfigError(f'it names no pass; write pass = "prune", say: have {_list(spelled())}')
    if name not in spelled():
        known = nearest_first(str(name), spelled())
        hint = did_you_mean(str(name), spelled())
        raise ConfigError(f"no pass {name!r} known; {hint}known: {_list(known)}")
    number = isinstance(max_drop, int | float) and not isinstance(max_drop, bool)
    if max_drop is not None and not (number and 0 <= max_drop <= _MOST_POINTS):
        raise ConfigError(f"max_drop = {max_drop!r} is no number of points from 0 up to 1e9")
    if name == QUANTIZE:
        scheme = options.pop("format", "static8")
        if "scheme" in options:
            raise ConfigError(f'write the number format as format = "{options["scheme"]}"')
        one = make_quantizer(QUANTIZE, str(scheme), options, images=images)
        words = _words(QUANTIZE, [str(scheme)], options)
    else:
        one = make_pass(name, options, images=images, multiple=multiple)
        words = _words(name, [], options)
    return Planned(words, one, None if max_drop is None else float(max_drop))


def _words(name: str, first: list[str], options: Mapping[str, Any]) -> str:
    said = [*first, *(f"{key}={_shown(value)}" for key, value in options.items())]
    return f"{name}:{','.join(said)}" if said else name


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(_shown, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
