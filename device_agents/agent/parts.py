"""Models of several files: a runtime finds the weights that lie beside a model by their names.

Pushed files lie under their hashes. For as long as a model is loaded its parts lie together in a
folder of their own, as links to the same bytes; once it is loaded the runtime has what it needs.
"""

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

from .wire import Refused

_PREFIX = ".parts-"
_NAME = re.compile(r"[^/\\\0]{1,255}")
_MOST = 10000


def check(value: Any, path_of: Callable[[Any], Path]) -> Dict[str, str]:
    """Return location -> path of the parts {location: SHA-256} that a host names."""
    if not isinstance(value, dict) or len(value) > _MOST:
        raise Refused("bad_request", "parts = %.100r is no object of files" % (value,))
    for location in value:
        names = location.split("/")
        if not all(_NAME.fullmatch(name) and name not in (".", "..") for name in names):
            raise Refused("bad_request", "part %.100r does not lie beside the model" % location)
    return {location: str(path_of(sha256)) for location, sha256 in value.items()}


@contextlib.contextmanager
def lay_together(path: str, parts: Dict[str, str]) -> Iterator[str]:
    """Give the path of the model with its parts beside it."""
    if not parts:
        yield path
        return
    beside = Path(path).parent
    _sweep(beside)
    folder = beside / (_PREFIX + str(os.getpid()))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        whole = folder / ("model" + "".join(Path(path).suffixes))
        # A part of the model's own name would take its place.
        while whole.name in parts:
            whole = whole.with_name("_" + whole.name)
        for target, source in [(whole, path), *((folder / at, p) for at, p in parts.items())]:
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source, target)
        yield str(whole)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def total_bytes(path: str, parts: Dict[str, str]) -> int:
    """Return the size of the model with its parts."""
    return sum(Path(item).stat().st_size for item in [path, *parts.values()])


def _link(source: str, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _sweep(beside: Path) -> None:
    """Remove what processes left that were killed while they loaded."""
    for folder in beside.glob(_PREFIX + "*"):
        pid = folder.name[len(_PREFIX) :]
        try:
            os.kill(int(pid), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
