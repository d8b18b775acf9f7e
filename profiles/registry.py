"""Finds device profiles: built-in ones beside this file, the user's own in the configuration.

The user's folder is `<config>/devices/`, where `<config>` is an argument, else $EDGEWRIGHT_CONFIG,
else ~/.config/edgewright. A user's file hides a built-in one of the same name, and may extend it.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents import bounded
from device_agents.errors import ConfigError
from profiles import _toml_text
from profiles.schema import EXTENDS, DeviceProfile, profile_from, read_toml

if TYPE_CHECKING:
    from collections.abc import Collection

BUILT_IN = Path(__file__).parent / "devices"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EXTENDS_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every profile that could be read, and one sentence for each file that could not."""

    profiles: tuple[DeviceProfile, ...]
    problems: tuple[str, ...]


def devices_folder(config: Path | None = None) -> Path:
    """Return the folder of the user's own profiles; it need not exist."""
    if config is None:
        config = Path(os.environ.get("EDGEWRIGHT_CONFIG") or "~/.config/edgewright").expanduser()
    return config / "devices"


def device_files(config: Path | None = None) -> dict[str, Path]:
    """Return name -> file, sorted; a user's file hides a built-in one."""
    found = {}
    for folder in (BUILT_IN, devices_folder(config)):
        if folder.is_dir():
            found.update({path.stem: path for path in folder.glob("*.toml")})
    return dict(sorted(found.items()))


def load_device(name: str, config: Path | None = None) -> DeviceProfile:
    """Return the profile of that name; raises ConfigError that lists the known ones."""
    files = device_files(config)
    if name not in files:
        raise ConfigError(_unknown(name, config))
    return _load(name, files[name], config)


def list_devices(config: Path | None = None) -> Catalogue:
    """Return all profiles; a broken file does not hide the others."""
    profiles, problems = [], []
    for name, path in device_files(config).items():
        try:
            profiles.append(_load(name, path, config))
        except ConfigError as error:
            problems.append(str(error))
    return Catalogue(tuple(profiles), tuple(problems))


def new_file(name: str, *, config: Path | None = None, replace: bool = False) -> Path:
    """Return where a new profile of the user's own goes; raises ConfigError as `add_device`."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"device name {name!r} must be letters, digits, dot, dash or underscore, at most 64; "
            "choose another one"
        )
    path = devices_folder(config) / f"{name}.toml"
    if path.exists() and not replace:
        raise ConfigError(
            f"device {name!r} is there already in {path}; edit that file, or replace it with "
            "--replace"
        )
    return path


def own_file(name: str, config: Path | None = None) -> Path:
    """Return the file of a profile of the user's own; raises ConfigError when there is none."""
    path = devices_folder(config) / f"{name}.toml"
    if not _NAME.fullmatch(name) or not bounded.is_file(path):
        built_in = "; it is built in" if name in device_files(config) else ""
        own = sorted(item.stem for item in devices_folder(config).glob("*.toml")) or ["none"]
        raise ConfigError(
            f"no device {name!r} of your own{built_in}; have {', '.join(own)}; "
            "`edgewright device add` adds one"
        )
    return path


def set_value(name: str, key: str, value: Any, config: Path | None = None) -> DeviceProfile:
    """Set one key of a profile of the user's own, leaving every other line as it is; return it."""
    path = own_file(name, config)
    text = bounded.read_text(path, limit_bytes=bounded.TOML_BYTES)
    line = f"{key} = {_toml(value)}"
    return _write(name, path, _toml_text.change(text, {key: line}), config)


def own_values(name: str, config: Path | None = None) -> dict[str, Any]:
    """Return what the user's own profile of that name says itself; empty when there is none.

    Raises ConfigError for a file that cannot be read.
    """
    path = devices_folder(config) / f"{name}.toml"
    return read_toml(path) if bounded.is_file(path) else {}


def add_device(
    name: str,
    values: dict[str, Any],
    *,
    config: Path | None = None,
    replace: bool = False,
    kept: Collection[str] = (),
) -> DeviceProfile:
    """Write a profile of the user's own and return it.

    `values` may hold `extends`. Of a profile that is replaced, the keys `kept` and all comments
    stay. Raises ConfigError for a bad name, key or value, and for a name
    that is taken unless `replace`; then nothing is written.
    """
    path = new_file(name, config=config, replace=replace)
    old = bounded.read_text(path, limit_bytes=bounded.TOML_BYTES) if path.exists() else ""
    lines: dict[str, str | None] = {
        key: None for key in own_values(name, config) if key not in kept
    }
    lines.update({key: f"{key} = {_toml(value)}" for key, value in values.items()})
    text = _toml_text.change(old, lines)
    return _write(name, path, text, config)


def _write(name: str, path: Path, text: str, config: Path | None) -> DeviceProfile:
    """Put a profile in place when it can be read; otherwise leave everything as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{name}.toml.part-{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        profile = _load(name, part, config)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return profile


def refuse_extended(name: str, config: Path | None = None) -> Path:
    """Return the own file; raises ConfigError when there is none or another profile extends it."""
    path = own_file(name, config)
    for other in sorted(path.parent.glob("*.toml")):
        if other != path and _base(other) == name:
            raise ConfigError(
                f"device {other.stem!r} extends {name!r}; remove it first, or change its `extends`"
            )
    return path


def remove_device(name: str, config: Path | None = None) -> Path:
    """Delete a profile of the user's own that no other extends; return its path."""
    path = refuse_extended(name, config)
    path.unlink()
    return path


def _base(path: Path) -> str:
    """Return what a profile extends; a broken file extends nothing."""
    try:
        return str(read_toml(path).get(EXTENDS, ""))
    except ConfigError:
        return ""


def _load(name: str, path: Path, config: Path | None) -> DeviceProfile:
    source, chain, values = path, [name], read_toml(path)
    files = device_files(config)
    while EXTENDS in values:
        base = values.pop(EXTENDS)
        if base == chain[-1]:
            # A user's file of the same name extends the built-in one that it hides.
            base_path = BUILT_IN / f"{base}.toml"
            if path == base_path or not base_path.is_file():
                raise ConfigError(f"{source}: extends itself; remove `{EXTENDS}`")
        elif base in files:
            base_path = files[base]
        else:
            raise ConfigError(f"{source}: {_unknown(base, config)}")
        if base in chain[:-1] or len(chain) > _EXTENDS_DEPTH:
            raise ConfigError(f"{source}: {' extends '.join([*chain, base])}: a circle; break it")
        chain.append(base)
        path = base_path
        values = {**read_toml(path), **values}
    return profile_from(name, values, source=source)


def _unknown(name: str, config: Path | None) -> str:
    """Say which devices there are, the user's own first, and what to do with templates."""
    own = sorted(path.stem for path in devices_folder(config).glob("*.toml"))
    # As they come with us: the user's files may be what is being read.
    built_in = [p for p in list_devices(BUILT_IN).profiles if p.name not in own]
    devices = [*own, *(p.name for p in built_in if not p.is_template)]
    templates = [p.name for p in built_in if p.is_template]
    near = difflib.get_close_matches(name, [*devices, *templates], n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    new = name if _NAME.fullmatch(name) else "NAME"
    return (
        f"no device {name!r} known{hint}; have {', '.join(devices)}; `edgewright device add {new} "
        f"ADDRESS` adds one, by the template that fits or the one that --extends names: "
        f"{', '.join(templates)}"
    )


def _toml(value: Any) -> str:
    """Write a text, number or list of integers; JSON's form of these is TOML's."""
    if isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, str | int | float | list):
        raise ConfigError(f"{value!r} cannot stand in a profile; use a text, number or list")
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes of a command line that are no UTF-8
        raise ConfigError(f"{value!r} is not text in UTF-8; write it as such") from error
    return text
