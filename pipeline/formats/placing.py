"""A file stands under its name once it is whole and has been checked, or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def place_file(target: Path) -> Iterator[Path]:
    """Yield a path beside the target, of its suffix, which takes its name in the end.

    Whatever is raised in the block leaves no file, and what stood at the target as it was.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent
        )
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror or error}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
