"""Finds the module that a user names, and runs the user's code for it. In a process of its own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from device_agents.errors import ConfigError
from device_agents.near_names import nearest_first
from device_agents.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def load_module(name: str, weights: Path | None = None) -> nn.Module:
    """Return the torch module of ``package.module:callable`` or ``file.py:callable``.

    Args:
        name: a class or function that needs no arguments, or an instance; after the colon, dots
            lead into what a file holds.
        weights: a state dict that is loaded into it, never more than tensors.

    Raises:
        ConfigError: the import fails, nothing has that name, it needs arguments, fails, or is or
            gives no module; the weights are of another module, or are more than weights.
    """
    place, _, entry = name.rpartition(":")
    with _our_names_free():
        found: Any = _imported(place)
        for part in entry.split("."):
            if not hasattr(found, part):
                known = [key for key, value in vars(found).items() if callable(value)]
                near = nearest_first(part, [key for key in known if not key.startswith("_")])
                has = ", ".join(near[:8]) or "nothing to call"
                raise ConfigError(f"{place} has no {part!r}; it has {has}")
            found = getattr(found, part)
        module = found if isinstance(found, nn.Module) else _called(found, name)
    if weights is not None:
        _load_weights(module, weights, name)
    return module


@contextmanager
def _our_names_free() -> Iterator[None]:
    """Let user's code have modules of our names, such as `models`, within a `with` block."""
    ours = {name: module for name, module in sys.modules.items() if _is_ours(name)}
    for name in ours:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(ours)


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in ("models", "pipeline", "profiles")


def _imported(place: str) -> ModuleType:
    path = Path(place)
    try:
        if path.suffix != ".py":
            sys.path.insert(0, os.getcwd())  # noqa: PTH109
            return importlib.import_module(place)
        sys.path.insert(0, str(path.resolve().parent))
        # A file may be named like a module that is there already.
        name = f"_named_{path.stem}" if path.stem in sys.modules else path.stem
        loader = SourceFileLoader(name, str(path))
        spec = importlib.util.spec_from_loader(name, loader)
        module = importlib.util.module_from_spec(cast("ModuleSpec", spec))
        sys.modules[name] = module
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        said = plain(error, limit=300) or "no reason given"
        raise ConfigError(f"importing {place} fails: {type(error).__name__}: {said}") from error
    return module


def _called(found: Any, name: str) -> nn.Module:
    if not callable(found):
        raise ConfigError(
            f"{name} is a {type(found).__name__}; name a torch.nn.Module, or a class or function "
            "without arguments that gives one"
        )
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        parameters = {}.values()  # of C; calling it will tell
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if needed:
        entry = name.rpartition(":")[2]
        raise ConfigError(
            f"{name} needs the arguments {', '.join(needed)}; write a function without any, such "
            f"as `def net(): return {entry}({', '.join(f'{each}=…' for each in needed)})`, and "
            "name that"
        )
    try:
        made = found()
    except (Exception, SystemExit) as error:
        said = plain(error, limit=300) or "no reason given"
        raise ConfigError(f"calling {name} fails: {type(error).__name__}: {said}") from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"{name} gives a {type(made).__name__}, not a torch.nn.Module")
    return made


def _load_weights(module: nn.Module, path: Path, name: str) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"no weights file {path}") from None
    except Exception as error:
        raise ConfigError(
            f"{path} is not a file of weights alone, and nothing else is unpickled: save "
            f"module.state_dict() with torch.save ({plain(error, limit=120)})"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise ConfigError(f"{path} holds a {type(state).__name__}, not a state dict")
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise ConfigError(
            f"the weights {path} are not {name}'s: {plain(said, limit=400)}"
        ) from error


def unpickle(path: Path) -> nn.Module:
    """Return the module that a pickle holds; it may run any code, so only of files one trusts.

    Raises:
        ConfigError: it cannot be unpickled, is TorchScript, or holds something else.
    """
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  # where its classes may be
    try:
        with _our_names_free():
            found = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise ConfigError(f"cannot unpickle {path}: {plain(error, limit=300)}") from error
    if isinstance(found, torch.jit.ScriptModule):
        raise ConfigError(
            f"{path} is TorchScript, which torch.export cannot capture; name the module that it "
            "was made of (file.py:callable), or save it by torch.export.save"
        )
    if not isinstance(found, nn.Module):
        raise ConfigError(
            f"{path} holds a {type(found).__name__}, not a module: name the module that the "
            f"weights belong to (file.py:callable), with --weights {path}"
        )
    return found
