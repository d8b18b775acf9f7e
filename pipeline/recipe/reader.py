"""TOML into dataclasses with bounds: the reader behind `pipeline.recipe.recipe`.

`from_plain` of `pipeline.recipe.plugins` gives types, unknown and missing keys; this adds TOML
itself, the name of file and section in every sentence, bounds and plugin names from field metadata,
checks between keys (a method `problem()` of a section) and overrides from the command line.
"""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass, replace
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from device_agents import bounded
from device_agents.errors import ConfigError
from pipeline.recipe.plugins import from_plain, nearest_first

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

T = TypeVar("T")
_TRIED_FOLDER = "recipes"
# Of the recipes that may have been meant.
_MOST_READ, _MOST_SHOWN = 100, 5
_KEY = re.compile(r"[A-Za-z0-9_-]+")


class RecipeError(ConfigError):
    """A recipe that cannot be read; the sentence names file, section, key and what is allowed."""


def bounds(
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    filled: bool = False,
    plugin: str = "",
    other_names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return field metadata: what a key's value (or each item of its list) may be.

    Args:
        low: smallest value allowed.
        high: largest value allowed; without it any finite number.
        above: the value must be larger than this.
        filled: a list must not be empty.
        plugin: ``module:FOLDER``, a `PluginFolder` that must know the name.
        other_names: what people write for a value, and what the value is.
    """
    given = {"low": low, "high": high, "above": above}
    return {
        **{name: value for name, value in given.items() if value is not None},
        "filled": filled,
        "plugin": plugin,
        "other_names": other_names or {},
    }


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises RecipeError: missing (names recipes there are), not TOML."""
    try:
        text = bounded.read_text(path, limit_bytes=bounded.TOML_BYTES)
    except bounded.Unreadable as error:
        if not error.missing:
            raise RecipeError(f"no recipe can be read: {error}") from error
        have = ", ".join(_recipes_near(path)) or "none in that folder"
        raise RecipeError(f"no recipe {str(path)!r}; have {have}") from error
    try:
        return bounded.toml(text)
    except bounded.Undecodable as error:
        raise RecipeError(f"{path} is not TOML that a recipe can be: {error}") from error


def _recipes_near(path: Path) -> list[str]:
    """Return recipes beside a file that is not there, or in `recipes`, the likest names first."""
    folders = {path.parent, path.parent / _TRIED_FOLDER}
    files = {str(file): file for folder in folders for file in folder.glob("*.toml")}
    likest = nearest_first(str(path), files)[:_MOST_READ]
    return list(islice((name for name in likest if _is_recipe(files[name])), _MOST_SHOWN))


def _is_recipe(path: Path) -> bool:
    """Whether it is one rather than the settings of some program."""
    try:
        values = bounded.toml(bounded.read_text(path, limit_bytes=bounded.TOML_BYTES))
    except (bounded.Unreadable, bounded.Undecodable):
        return False
    return isinstance(values.get("name"), str) and isinstance(values.get("data"), dict)


def override(data: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return `data` with one ``section.key=value`` replaced; a value that is not TOML is text.

    Raises:
        RecipeError: not of that form, or the section is not a table.
    """
    path, equals, value = text.partition("=")
    names = [name.strip() for name in path.split(".")]
    if not equals or not all(map(_KEY.fullmatch, names)):
        raise RecipeError(f"--set {text!r} is not understood; write --set section.key=value")
    return _with(data, names, _toml_value(value.strip()), text)


def _toml_value(text: str) -> Any:
    try:
        parsed = bounded.toml(f"value = {text}")
    except bounded.Undecodable:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _with(data: Mapping[str, Any], names: Sequence[str], value: Any, text: str) -> dict[str, Any]:
    name, *rest = names
    if not rest:
        return {**data, name: value}
    inner = data.get(name, {})
    if not isinstance(inner, dict):
        raise RecipeError(f"--set {text!r}: {name!r} is not a section but a value")
    return {**data, name: _with(inner, rest, value, text)}


def build(cls: type[T], data: Mapping[str, Any], source: str) -> T:
    """Build the dataclass `cls` from nested tables; `source` begins every sentence.

    Raises:
        RecipeError: an unknown, missing, wrongly typed or out-of-range value.
    """
    try:
        return _section(cls, data, source, "")
    except RecipeError:
        raise
    except ConfigError as error:
        raise RecipeError(str(error)) from error


def _section(cls: type[T], data: Mapping[str, Any], source: str, section: str) -> T:
    where = f"{source}: [{section}]" if section else source
    hints = typing.get_type_hints(cls)
    values = dict(data)
    for name in (name for name in hints if name in values):
        path = f"{section}.{name}" if section else name
        if (inner := _table(hints[name])) and isinstance(values[name], dict):
            values[name] = _section(inner, values[name], source, path)
        if (item := _table_of_list(hints[name])) and isinstance(values[name], (list, tuple)):
            values[name] = [
                _section(item, table, source, f"{path}[{number}]")
                if isinstance(table, dict)
                else table
                for number, table in enumerate(values[name])
            ]
    values |= _by_own_names(cls, values)
    tables = {n: values.pop(n) for n in hints if n in values and _is_free_table(hints[n])}
    for name, table in tables.items():
        _check_free_table(f"{where}, option {name!r}", table)
    built = replace(from_plain(cls, values, where), **tables)  # type: ignore[type-var]
    for option in fields(cls):  # type: ignore[arg-type]
        _check_option(where, option, getattr(built, option.name))
    if problem := getattr(built, "problem", lambda: None)():
        raise RecipeError(f"{where}: {problem}")
    return built


def _by_own_names(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that people write otherwise, as they are called here."""
    names = {f.name: f.metadata.get("other_names", {}) for f in fields(cls)}
    given = {key: value for key, value in values.items() if isinstance(value, str)}
    return {key: names[key].get(value, value) for key, value in given.items() if key in names}


def _check_option(where: str, option: Field[Any], found: Any) -> None:
    for value in _items(found):
        _check(f"{where}, option {option.name!r}", value, option.metadata)
    if option.metadata.get("filled") and not found:
        raise RecipeError(f"{where}, option {option.name!r}: the list is empty")


def _table(hint: Any) -> type[Any] | None:
    """Return the section that a table is, if it is one; it may be one that can be left out."""
    arms = [arm for arm in typing.get_args(hint) if arm is not type(None)] or [hint]
    return _class(arms[0]) if len(arms) == 1 and is_dataclass(arms[0]) else None


def _class(hint: Any) -> type[Any]:
    return typing.cast("type[Any]", hint)


def _table_of_list(hint: Any) -> type[Any] | None:
    """Return the section that each item of a list of tables is, if it is one."""
    first = next(iter(typing.get_args(hint)), None)
    listed = typing.get_origin(hint) is tuple and is_dataclass(first)
    return _class(first) if listed else None


def _check_free_table(where: str, table: Any) -> None:
    if not isinstance(table, dict):
        raise RecipeError(f"{where}: {table!r} is not a table")
    if (number := _infinite(table)) is not None:
        raise RecipeError(f"{where}: {number!r} is not a finite number")


def _infinite(value: Any) -> float | None:
    """Return the first number that is none (NaN, infinite), of which no plugin knows a bound."""
    if isinstance(value, (dict, list)):
        inner = value.values() if isinstance(value, dict) else value
        return next((found for item in inner if (found := _infinite(item)) is not None), None)
    return value if isinstance(value, float) and not math.isfinite(value) else None


def _is_free_table(hint: Any) -> bool:
    return typing.get_origin(hint) is Mapping


def _items(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, tuple) else (value,)


def _check(where: str, value: Any, rule: Mapping[str, Any]) -> None:
    """Check one number or text against the bounds of its field."""
    if isinstance(value, str):
        if not value.strip():
            raise RecipeError(f"{where}: the text is empty")
        if rule.get("plugin"):
            _check_plugin(where, value, rule["plugin"])
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high, above = (rule.get(name) for name in ("low", "high", "above"))
        inside = (
            (low is None or value >= low)
            and (above is None or value > above)
            and (value <= high if high is not None else math.isfinite(value))
        )
        if not inside:
            raise RecipeError(f"{where}: {value!r} is not {_allowed(value, rule)}")


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


def _check_plugin(where: str, name: str, plugin: str) -> None:
    module, _, folder = plugin.partition(":")
    try:
        getattr(import_module(module), folder).resolve(name)
    except ConfigError as error:
        raise RecipeError(f"{where}: {error}") from error
