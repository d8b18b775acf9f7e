"""Reads the user's SSH configuration by `ssh -G`, which prints what holds for one host."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_READ_TIMEOUT_S = 20.0


class Settings:
    """The lines that `ssh -G` prints, by lower-case keyword."""

    def __init__(self, lines: Mapping[str, list[str]]) -> None:
        self._lines = lines

    def one(self, key: str, default: str = "") -> str:
        """Return the value; `none` means that nothing is set."""
        value = self._lines.get(key, [default])[0]
        return default if value == "none" else value

    def all(self, key: str) -> list[str]:
        """Return every value of a keyword that may stand several times."""
        return self._lines.get(key, [])

    def paths(self, key: str, default: Sequence[str]) -> Sequence[str]:
        """Return the paths of a keyword that takes several.

        `ssh -G` prints them without their quotes: a blank that does not stand before the beginning
        of a path is part of one.
        """
        value = self.one(key)
        return re.split(r"\s+(?=[/~%$])", value) if value else default


def read_settings(name: str, config: Path, flags: Sequence[str], alias: str) -> Settings:
    """Return what holds for `alias`; raises ConfigError naming the file and the line."""
    command = ["ssh", "-G", *flags, "--", alias]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_READ_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise ConfigError(
            f"device {name!r}: reading {config} needs the program ssh; install the OpenSSH client"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"device {name!r}: `{shlex.join(command)}` did not end within {_READ_TIMEOUT_S:g} s; "
            f"does a `Match exec` in {config} hang?"
        ) from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        # What a `Match exec` wrote may come first.
        line = next((line for line in said if " line " in line), said[-1] if said else "")
        raise ConfigError(
            f"device {name!r}: the SSH configuration cannot be read: {line.strip()}; "
            f"correct it (`{shlex.join(command)}` checks it)"
        )
    found: dict[str, list[str]] = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key.lower(), []).append(value)
    _use_our_home(found)
    return Settings(found)


def _use_our_home(found: dict[str, list[str]]) -> None:
    """Let the usual known_hosts be those beside the configuration that was read.

    `ssh` takes the home directory of the user database and prints this one default in full.
    """
    value = found.get("userknownhostsfile", [""])[0]
    usual = re.fullmatch(r"(.+)/\.ssh/known_hosts \1/\.ssh/known_hosts2", value)
    if usual:
        del found["userknownhostsfile"]
