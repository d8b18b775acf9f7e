"""Writing a file whole or not at all."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, never meets half of it; makes missing folders.

    Raises OSError.
    """
    # A sibling, so that the replacement is one rename; opened plainly, so that the umask counts.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Do as `replace_file`, for a path that the user chose.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        replace_file(path, content)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror or error}; choose a path in a folder that you "
            "may write to, on a disk with room"
        ) from error
