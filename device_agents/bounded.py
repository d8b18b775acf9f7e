"""Files that users name, read with bounds: of their kind, their size, and what decoding makes.

A path may lead to a folder, a pipe that nobody writes to, /dev/zero, or a file larger than the
memory. Whatever reads a file that it did not write itself reads it here, and every TOML and JSON of
such files is decoded here.
"""

from __future__ import annotations

import lzma
import os
import re
import stat
import struct
import tomllib
import zipfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from device_agents.agent import bounded_json
from device_agents.errors import ConfigError
from device_agents.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOML_BYTES = 1 << 20
TEXT_BYTES = 16 << 20
"""Of what other programs keep as text: SSH's configuration, host keys and keys."""

JSON_BYTES = bounded_json.LIMIT_CHARS
MODEL_BYTES = 2 << 30
"""A protocol buffer cannot be larger; a TFLite file can, and is refused all the same."""

ZIP_ERRORS = (
    *(EOFError, LookupError, OSError, RuntimeError, ValueError),
    *(lzma.LZMAError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""What zipfile raises for an archive that is damaged, encrypted or packed in a way it lacks."""

_PATH_CHARS = 200
# Pictures and weights compress by a factor of ten at most, an attack by a thousand.
_EXPANSION = 50
_SMALL_BYTES = 64 << 20
# Deeper than any recipe; the decoder would need a stack for each.
_TOML_DEPTH = 32
_TOML_INTEGER = 1 << 63  # TOML's own bound
# A dotted key that long takes the decoder time that grows with its square.
_DOTTED = re.compile(rf"(?:[^\s.=,#\[\]]{{1,64}}[ \t]{{0,8}}\.[ \t]{{0,8}}){{{_TOML_DEPTH}}}")
_TOO_DEEP = f"its values are nested more than {_TOML_DEPTH} deep"


class Unreadable(ConfigError):
    """A file that cannot be read; `reason` stands behind its name, `missing` if it is not there."""

    def __init__(self, path: Path | str, reason: str, *, missing: bool = False) -> None:
        super().__init__(f"cannot read {plain(path, limit=_PATH_CHARS)}: {reason}")
        self.reason = reason
        self.missing = missing


class Undecodable(ConfigError):
    """A text that is not what it should be; `str()` stands behind "it is not TOML: " or alone."""


def is_file(path: Path) -> bool:
    """Whether there is a file; False also for a path that can be none, such as a long text."""
    return _kind(path) == stat.S_IFREG


def is_folder(path: Path) -> bool:
    """Whether there is a folder; see `is_file`."""
    return _kind(path) == stat.S_IFDIR


@contextmanager
def open_file(path: Path, *, limit_bytes: int) -> Iterator[IO[bytes]]:
    """Open a file of at most so many bytes for a `with` block.

    Raises:
        Unreadable: it is missing, not permitted, too large, or no file but a folder, pipe or
            device.
    """
    with _refused(path):
        # Asked before it is opened, which may wait for a writer or start a device.
        _check_kind(path, path.stat())
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    with file:
        found = os.fstat(file.fileno())
        _check_kind(path, found)
        if found.st_size > limit_bytes:
            raise _too_large(path, limit_bytes)
        yield file


def read_bytes(path: Path, *, limit_bytes: int = MODEL_BYTES) -> bytes:
    """Return a file's bytes. Raises Unreadable as `open_file` does."""
    with open_file(path, limit_bytes=limit_bytes) as file, _refused(path):
        data = file.read(limit_bytes + 1)  # a file of /proc has no size, one that grows another
    if len(data) > limit_bytes:
        raise _too_large(path, limit_bytes)
    return data


def read_text(path: Path, *, limit_bytes: int, errors: str = "strict") -> str:
    """Return a file's UTF-8 text, every line end as one newline. Raises Unreadable."""
    try:
        text = read_bytes(path, limit_bytes=limit_bytes).decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise Unreadable(path, "it is not UTF-8 text") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def refuse_expansion(stored_bytes: int, declared_bytes: int) -> None:
    """Refuse a compressed file that would expand beyond what real content does.

    Raises:
        Undecodable: naming both sizes.
    """
    if declared_bytes > max(_SMALL_BYTES, _EXPANSION * stored_bytes):
        raise Undecodable(
            f"its {stored_bytes} bytes declare {declared_bytes} bytes of content; "
            "if that is meant, write it again without compression"
        )


def toml(text: str) -> dict[str, Any]:
    """Return the values of a TOML text: tables, lists, texts, numbers that 64 bits hold, booleans.

    Raises:
        Undecodable: not TOML, nested too deep, or with a date, which no key of ours takes.
    """
    if len(text) > TOML_BYTES:
        raise Undecodable(f"it has more than {TOML_BYTES} characters")
    if _DOTTED.search(text):
        raise Undecodable(_TOO_DEEP)
    try:
        values = tomllib.loads(text)
    except RecursionError as error:
        raise Undecodable(_TOO_DEEP) from error
    except ValueError as error:  # TOMLDecodeError, and a number of more than 4300 digits
        raise Undecodable(plain(error, limit=_PATH_CHARS)) from error
    _check_table("", values, 0)
    return values


def json_value(text: str, *, limit_chars: int = JSON_BYTES) -> Any:
    """Return the value of a JSON text. Raises Undecodable: not JSON, or beyond a bound."""
    try:
        return bounded_json.loads(text, limit_chars=limit_chars)
    except bounded_json.JsonRefused as error:
        raise Undecodable(f"it holds {error}") from error
    except ValueError as error:
        raise Undecodable(plain(error, limit=_PATH_CHARS)) from error


def _check_table(where: str, value: dict[str, Any] | list[Any], depth: int) -> None:
    if depth > _TOML_DEPTH:
        raise Undecodable(_TOO_DEEP)
    named = isinstance(value, dict)
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        below = f"{where}.{key}" if where and named else str(key) if named else where
        if isinstance(item, (dict, list)):
            _check_table(below, item, depth + 1)
        elif problem := _problem(item):
            raise Undecodable(f"{plain(below, limit=_PATH_CHARS)} {problem}")


def _problem(value: object) -> str | None:
    """Return what keeps a value from being a text, a boolean or a number of 64 bits."""
    if isinstance(value, int) and not -_TOML_INTEGER <= value < _TOML_INTEGER:
        return "is a whole number that 64 bits cannot hold"
    if not isinstance(value, (int, float, str)):
        return f'= {value} is a date or time; write it in quotes: "…"'
    return None


def _kind(path: Path) -> int:
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError):
        return 0


def _check_kind(path: Path, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    if stat.S_ISDIR(found.st_mode):
        raise Unreadable(path, "it is a folder; name a file")
    raise Unreadable(path, "it is a pipe or a device; save what it brings as a file and name that")


def _too_large(path: Path, limit_bytes: int) -> Unreadable:
    return Unreadable(path, f"it has more than {limit_bytes} bytes, the most that is taken")


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Raise what the system says of a path as Unreadable."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unreadable(path, "there is no such file", missing=True) from error
    except OSError as error:
        raise Unreadable(path, error.strerror or str(error)) from error
    except ValueError as error:  # a path with a NUL in it
        raise Unreadable(path, "that is no path") from error
