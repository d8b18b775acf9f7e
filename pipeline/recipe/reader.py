"""Recipes as TOML: the file, the ones that may have been meant, overrides from the command line.

What the values may be is read by `device_agents.plain_values`.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.near_names import nearest_first
from device_agents.plain_values import from_plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")
_TRIED_FOLDER = "recipes"
# Of the recipes that may have been meant.
_MOST_READ, _MOST_SHOWN = 100, 5
_KEY = re.compile(r"[A-Za-z0-9_-]+")


class RecipeError(ConfigError):
    """A recipe that cannot be read; the sentence names file, section, key and what is allowed."""


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
    return isinstance(values.get("name"), str) and (
        isinstance(values.get("data"), dict) or isinstance(values.get("model"), dict)
    )


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
        return from_plain(cls, data, source, sections=True)
    except ConfigError as error:
        raise RecipeError(str(error)) from error
