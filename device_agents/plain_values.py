"""Plain values, such as a TOML file's, into dataclasses.

Recipes, device profiles, scripts of fake devices and options of plugins are read here. A dataclass
is the only description of what it may hold: types and defaults are those of its fields, what types
do not say is in their metadata (`bounds`), and what must hold between fields is said by its method
``problem() -> str | None``. A refusal is one sentence that names place, value and what is allowed.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from device_agents.errors import ConfigError
from device_agents.near_names import did_you_mean, nearest_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

T = TypeVar("T")


def bounds(
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    filled: bool = False,
    plugin: str = "",
    other_names: Mapping[str, str] | None = None,
    gone: Mapping[str, str] | None = None,
    checked_by: str = "",
) -> dict[str, Any]:
    """Return field metadata: what a value (or each item of its list) may be.

    Args:
        low: smallest number allowed.
        high: largest number allowed; without it any finite one, if there is another bound.
        above: the number must be larger than this.
        filled: a text or list must not be empty.
        plugin: ``module:FOLDER``, a `PluginFolder` that must know the name; `filled` too.
        other_names: what people write for a value, and what the value is.
        gone: texts that were allowed once, and what to use instead.
        checked_by: ``module:function`` that is given a value and the file it is of, and raises
            ConfigError if it cannot be.
    """
    given = {"low": low, "high": high, "above": above}
    return {
        **{name: value for name, value in given.items() if value is not None},
        "filled": filled,
        "plugin": plugin,
        "other_names": other_names or {},
        "gone": gone or {},
        "checked_by": checked_by,
    }


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands, as a sentence says it.

    Attributes:
        source: the file, or what the options are of.
        section: of the file, "" for its top; None where tables are no sections but values.
        value: which value of the section.
        path: what the section is called that the value is, if it is a table.
    """

    source: str
    section: str | None
    value: str = ""
    path: str = ""

    def __str__(self) -> str:
        return (f"{self.source}: [{self.section}]" if self.section else self.source) + self.value

    def option(self, name: str) -> _Place:
        path = f"{self.section}.{name}" if self.section else name
        return replace(self, value=f"{self.value}, option {name!r}", path=path)

    def item(self, index: int) -> _Place:
        return replace(self, value=f"{self.value}, item {index}", path=f"{self.path}[{index}]")

    def table(self) -> _Place:
        return self if self.section is None else _Place(self.source, self.path)


def from_plain(cls: type[T], values: Mapping[str, Any], what: str, *, sections: bool = False) -> T:
    """Build the dataclass `cls` from plain values; `what` begins every sentence.

    Whole numbers become floats where a float is asked; lists become tuples; a nested dataclass is
    a table, or a list of its fields in order. With `sections` nested tables are called as in a
    file: [outer.inner].

    Raises:
        ConfigError: an unknown, missing, wrongly typed or out-of-range value.
    """
    return _built(cls, values, _Place(what, "" if sections else None))


def refuse_unknown(names: Iterable[str], known: Sequence[str], what: str) -> None:
    """Raise ConfigError for the first name that is not known; lists the known, nearest first."""
    for name in names:
        if name not in known:
            have = ", ".join(nearest_first(name, known)) or "none"
            hint = did_you_mean(name, known)
            raise ConfigError(f"{what} has no option {name!r}; {hint}known: {have}")


def _built(cls: type[T], values: Mapping[str, Any], place: _Place) -> T:
    options = {f.name: f for f in fields(cls) if f.init}  # type: ignore[arg-type]
    refuse_unknown(values, tuple(options), str(place))
    for name, option in options.items():
        required = option.default is MISSING and option.default_factory is MISSING
        if required and name not in values:
            raise ConfigError(f"{place} needs the option {name!r}")
    hints = typing.get_type_hints(cls)
    made = cls(
        **{
            name: _option(value, options[name], hints[name], place.option(name))
            for name, value in values.items()
        }
    )
    if problem := getattr(made, "problem", lambda: None)():
        raise ConfigError(f"{place}: {problem}")
    return made


def _option(value: Any, option: Field[Any], hint: Any, place: _Place) -> Any:
    rule = option.metadata
    if isinstance(value, str):
        value = rule.get("other_names", {}).get(value, value)
        if instead := rule.get("gone", {}).get(value):
            raise ConfigError(f"{place}: {value!r} is gone; {instead}")
    found = _converted(value, hint, place)
    filled = rule.get("filled") or rule.get("plugin")
    if filled and not (found.strip() if isinstance(found, str) else found != ()):
        raise ConfigError(f"{place}: the {'list' if found == () else 'text'} is empty")
    for item in found if isinstance(found, tuple) else (found,):
        _check(item, rule, place)
    if rule.get("checked_by"):
        module, _, function = rule["checked_by"].partition(":")
        getattr(import_module(module), function)(found, place.source)
    return found


def _converted(value: Any, hint: Any, place: _Place) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _converted_union(value, args, place)
    if origin is tuple and isinstance(value, (list, tuple)):
        return _converted_tuple(value, args, place)
    if origin is Mapping and isinstance(value, dict):
        if (number := _infinite(value)) is not None:
            raise ConfigError(f"{place}: {number!r} is not a finite number")
        return value
    if isinstance(hint, type) and is_dataclass(hint) and not isinstance(value, hint):
        return _converted_table(value, hint, place)
    if hint is float and type(value) is int:
        return float(value)
    allowed = value in args if origin is typing.Literal else _is_a(value, hint)
    if not allowed:
        raise ConfigError(f"{place}: {value!r} is not {_described(hint, place)}")
    return value


def _is_a(value: Any, hint: Any) -> bool:
    if isinstance(value, bool):  # which Python takes for a whole number
        return hint is bool
    return isinstance(hint, type) and isinstance(value, hint)


def _converted_table(value: Any, cls: type, place: _Place) -> Any:
    if isinstance(value, (list, tuple)) and len(value) <= len(fields(cls)):
        value = dict(zip([f.name for f in fields(cls)], value, strict=False))
    if not isinstance(value, dict):
        raise ConfigError(f"{place}: {value!r} is not {_described(cls, place)}")
    return _built(cls, value, place.table())


def _converted_union(value: Any, arms: Sequence[Any], place: _Place) -> Any:
    if value is None and types.NoneType in arms:
        return None
    rest = [arm for arm in arms if arm is not types.NoneType]
    for arm in rest[:-1]:
        try:
            return _converted(value, arm, place)
        except ConfigError:
            continue
    return _converted(value, rest[-1], place)


def _converted_tuple(value: Sequence[Any], args: Sequence[Any], place: _Place) -> tuple[Any, ...]:
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_converted(v, args[0], place.item(i)) for i, v in enumerate(value))
    if len(value) != len(args):
        raise ConfigError(f"{place}: {value!r} has {len(value)} items, not {len(args)}")
    pairs = enumerate(zip(value, args, strict=True))
    return tuple(_converted(v, arg, place.item(i)) for i, (v, arg) in pairs)


def _infinite(value: Any) -> float | None:
    """Return the first number that is none (NaN, infinite), of which no plugin knows a bound."""
    if isinstance(value, (dict, list)):
        inner = value.values() if isinstance(value, dict) else value
        return next((found for item in inner if (found := _infinite(item)) is not None), None)
    return value if isinstance(value, float) and not math.isfinite(value) else None


def _check(value: Any, rule: Mapping[str, Any], place: _Place) -> None:
    """Check one number or text against the bounds of its field."""
    if isinstance(value, str) and rule.get("plugin"):
        module, _, folder = rule["plugin"].partition(":")
        try:
            getattr(import_module(module), folder).resolve(value)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error
    low, high, above = (rule.get(name) for name in ("low", "high", "above"))
    if not isinstance(value, (int, float)) or (low is None and high is None and above is None):
        return
    inside = (
        (low is None or value >= low)
        and (above is None or value > above)
        and (value <= high if high is not None else math.isfinite(value))
    )
    if not inside:
        raise ConfigError(f"{place}: {value!r} is not {_allowed(value, rule)}")


def _allowed(value: float, rule: Mapping[str, Any]) -> str:
    words = "a whole number" if isinstance(value, int) else "a number"
    if "low" in rule:
        words += f" from {rule['low']:g}"
    if "above" in rule:
        words += f" above {rule['above']:g}"
    high = rule.get("high")
    if high is None:
        return words
    return f"{words} up to {high:.12g}"


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _described(hint: Any, place: _Place) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin is tuple:
        of_tables = is_dataclass(args[0]) or typing.get_origin(args[0]) is Mapping
        tables = place.section is not None and of_tables
        return f"a list; write [[{place.path}]]" if tables else "a list"
    if origin is Mapping:
        return "a table"
    if isinstance(hint, type) and is_dataclass(hint):
        return f"a table of {', '.join(f.name for f in fields(hint))}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
