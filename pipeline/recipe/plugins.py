"""Plugins: one file each, found by listing a folder, imported only when used.

The convention. In a plugin folder every file without a leading underscore is a plugin, named like
the file: ``mnasnet_ppo.py`` is ``mnasnet_ppo`` (``mnasnet-ppo`` is accepted). Its one entry is the
public class or function *defined in that file* whose name, without case and underscores, is the
file's name, with or without the folder's noun behind it: ``MnasNetPPO`` or ``MnasNetPPOStrategy``.
Nothing is registered. Files that several plugins share start with an underscore.

Because a file is imported only when its plugin is asked for, what it needs may be missing as long
as nobody uses it. Options of a plugin are a dataclass, read from plain values by `from_plain`.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import pkgutil
import types
import typing
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class PluginFolder:
    """A package whose files are plugins.

    Attributes:
        package: dotted name, such as ``pipeline.search.strategy``.
        what: what a plugin is, for sentences; its last word is the noun that an entry's name may
            end with: ``search strategy``.
        not_plugins: files of the folder that are none, such as ``api``.
        folders: each plugin is a folder, named like it; files beside the folders are none.
    """

    package: str
    what: str
    not_plugins: tuple[str, ...] = ()
    folders: bool = False

    def names(self) -> list[str]:
        """Return the names of all plugins in alphabetical order; imports none of them."""
        path = importlib.import_module(self.package).__path__
        found = (m.name for m in pkgutil.iter_modules(path) if m.ispkg or not self.folders)
        return sorted(n for n in found if not n.startswith("_") and n not in self.not_plugins)

    def resolve(self, name: str) -> str:
        """Return the plugin's name as its file spells it.

        Raises:
            ConfigError: no such plugin; lists the known ones, the nearest first.
        """
        known = self.names()
        stem = name.replace("-", "_")
        if stem not in known:
            raise ConfigError(
                f"no {self.what} {name!r} known; {did_you_mean(stem, known)}have "
                f"{', '.join(nearest_first(stem, known))}; "
                f"a new one is one {'folder' if self.folders else 'file'} in "
                f"{self.package.replace('.', '/')}/"
            )
        return stem

    def load(self, name: str) -> Any:
        """Import the plugin's file and return its entry.

        Raises:
            ConfigError: no such plugin, it needs a Python package that is not installed, or its
                file has no entry by the convention.
        """
        stem = self.resolve(name)
        module_name = f"{self.package}.{stem}"
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing in ("", module_name.partition(".")[0]):
                raise
            raise ConfigError(
                f"{self.what} {stem!r} needs the Python package {missing!r}, which is not "
                f"installed; install it or choose one of {', '.join(self.names())}"
            ) from error
        entries = [
            value
            for key, value in vars(module).items()
            if self._is_entry(key, stem) and getattr(value, "__module__", "") == module_name
        ]
        if len(entries) != 1:
            raise ConfigError(
                f"{module_name} defines {len(entries)} public names that read "
                f"{stem.replace('_', '')!r} without case and underscores; "
                f"a {self.what} is exactly one such class or function"
            )
        return entries[0]

    def summary(self, name: str) -> str:
        """Return the first line of the plugin's module docstring, without importing it."""
        spec = importlib.util.find_spec(f"{self.package}.{self.resolve(name)}")
        loader = getattr(spec, "loader", None)
        source = loader.get_source(spec.name) if loader is not None and spec is not None else None
        docstring = ast.get_docstring(ast.parse(source or "")) or ""
        return docstring.partition("\n")[0]

    def _is_entry(self, key: str, stem: str) -> bool:
        plain, noun = stem.replace("_", ""), self.what.split()[-1].lower()
        return not key.startswith("_") and key.lower().replace("_", "") in (plain, plain + noun)


def from_plain(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """Build the dataclass `cls` from plain values such as a TOML table.

    Whole numbers become floats where a float is asked; lists become tuples; a nested dataclass is
    a table, or a list of its fields in order. A field's metadata may say of a text that was once
    allowed what to use instead: ``{"gone": {text: what to use}}``.

    Raises:
        ConfigError: an unknown, missing or wrongly typed option; the sentence begins with `what`.
    """
    options = {f.name: f for f in fields(cls) if f.init}  # type: ignore[arg-type]
    for key in values:
        if key not in options:
            known = ", ".join(nearest_first(key, options)) or "none"
            raise ConfigError(f"{what} has no option {key!r}; known: {known}")
    for key, option in options.items():
        required = option.default is MISSING and option.default_factory is MISSING
        if required and key not in values:
            raise ConfigError(f"{what} needs the option {key!r}")
        instead = option.metadata.get("gone", {})
        if isinstance(value := values.get(key), str) and value in instead:
            raise ConfigError(f"{what}, option {key!r}: {value!r} is gone; {instead[value]}")
    hints = typing.get_type_hints(cls)
    return cls(**{k: _convert(v, hints[k], f"{what}, option {k!r}") for k, v in values.items()})


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, args, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return _convert_tuple(value, args, where)
    if isinstance(hint, type) and is_dataclass(hint) and not isinstance(value, hint):
        return _convert_table(value, hint, where)
    if hint is float and type(value) is int:
        return float(value)
    allowed = value in args if origin is typing.Literal else _is_a(value, hint)
    if not allowed:
        raise ConfigError(f"{where}: {value!r} is not {_describe(hint)}")
    return value


def _is_a(value: Any, hint: Any) -> bool:
    if isinstance(value, bool):  # which Python takes for a whole number
        return hint is bool
    return isinstance(hint, type) and isinstance(value, hint)


def _convert_table(value: Any, cls: type, where: str) -> Any:
    if isinstance(value, (list, tuple)) and len(value) <= len(fields(cls)):
        value = dict(zip([f.name for f in fields(cls)], value, strict=False))
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {value!r} is not {_describe(cls)}")
    return from_plain(cls, value, where)


def _convert_union(value: Any, arms: Sequence[Any], where: str) -> Any:
    if value is None and types.NoneType in arms:
        return None
    rest = [arm for arm in arms if arm is not types.NoneType]
    for arm in rest[:-1]:
        try:
            return _convert(value, arm, where)
        except ConfigError:
            continue
    return _convert(value, rest[-1], where)


def _convert_tuple(value: Sequence[Any], args: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_convert(v, args[0], f"{where}, item {i}") for i, v in enumerate(value))
    if len(value) != len(args):
        raise ConfigError(f"{where}: {value!r} has {len(value)} items, not {len(args)}")
    pairs = enumerate(zip(value, args, strict=True))
    return tuple(_convert(v, arg, f"{where}, item {i}") for i, (v, arg) in pairs)


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return "a list"
    if isinstance(hint, type) and is_dataclass(hint):
        return f"a table of {', '.join(f.name for f in fields(hint))}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
