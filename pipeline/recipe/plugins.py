"""Plugins: one file each, found by listing a folder, imported only when used.

The convention. In a plugin folder every file without a leading underscore is a plugin, named like
the file: ``mnasnet_ppo.py`` is ``mnasnet_ppo`` (``mnasnet-ppo`` is accepted). Its one entry is the
public class or function *defined in that file* whose name, without case and underscores, is the
file's name, with or without the folder's noun behind it: ``MnasNetPPO`` or ``MnasNetPPOStrategy``.
Nothing is registered. Files that several plugins share start with an underscore.

Because a file is imported only when its plugin is asked for, what it needs may be missing as long
as nobody uses it. Options of a plugin are a dataclass, read by `device_agents.plain_values`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError
from device_agents.near_names import did_you_mean, nearest_first

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class PluginFolder:
    """A package whose files are plugins.

    Attributes:
        package: dotted name, such as ``pipeline.search.strategy``.
        what: what a plugin is, for sentences; its last word is the noun that an entry's name may
            end with: ``search strategy``.
        not_plugins: files of the folder that are none, such as ``api``.
        folders: each plugin is a folder, named like it; files beside the folders are none.
        holding: a module that a folder must have to be one, such as ``write``; any if empty.
    """

    package: str
    what: str
    not_plugins: tuple[str, ...] = ()
    folders: bool = False
    holding: str = ""

    def names(self) -> list[str]:
        """Return the names of all plugins in alphabetical order; imports none of them."""
        path = importlib.import_module(self.package).__path__
        found = (m.name for m in pkgutil.iter_modules(path) if m.ispkg or not self.folders)
        named = (n for n in found if not n.startswith("_") and n not in self.not_plugins)
        return sorted(name for name in named if not self.holding or self._holds(path, name))

    def _holds(self, path: Iterable[str], name: str) -> bool:
        inside = pkgutil.iter_modules([str(Path(folder) / name) for folder in path])
        return any(module.name == self.holding for module in inside)

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
