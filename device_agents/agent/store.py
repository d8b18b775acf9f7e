"""Models on the device, named by the SHA-256 of their content.

    models/<sha256>     what was pushed; the least recently used go first when the folder grows
                        past its bound
    incoming/.part-…/   what this agent is being sent, and releases that are not in use yet

The times of the files in `models` are no times: they count uses. A board without a clock of its
own jumps by years, and what was pushed last must not be the first to go.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Any, Dict, List, Set, Tuple

from . import bounded_json, launcher
from .wire import Refused

KEEP_BYTES = 1 << 30
"""Of models: the bound on a device whose disk is large enough."""

_SHA = re.compile(r"[0-9a-f]{64}")
# Of the space that models have or could have: the rest is for whatever else the board does.
_SHARE = 0.25
# A file system may keep whole seconds in 31 bits.
_LAST_USE_S = (1 << 31) - 1


class ModelStore:
    """The agent's folders under `directory`."""

    def __init__(self, directory: str) -> None:
        top = launcher.top_folder(Path(directory))
        self.directory = str(top)
        self._models = launcher.own_folder(top / "models")
        folder = launcher.own_folder(top / "incoming")
        for path in folder.iterdir():
            # Older agents put transfers right there.
            if not path.name.startswith("."):
                launcher.remove(path)
        launcher.sweep(folder)
        self.incoming, self.lock = launcher.claim(folder)
        # Asked for or pushed since the last job: what the next one runs, however many files it is.
        self._wanted: Set[Path] = set()

    def close(self) -> None:
        """Remove what was half done; after a kill, the next agent does so."""
        launcher.remove(self.incoming)
        os.close(self.lock)

    def path(self, sha256: Any) -> Path:
        """Return the model's path and mark it as used; Refused("no_model") when it is not here."""
        path = self._models / check_sha(sha256)
        if not self._use(path):
            sentence = "model %s is not on the device; push it first" % sha256[:12]
            raise Refused("no_model", sentence)
        return path

    def has(self, sha256: Any) -> bool:
        """Tell whether the model is here; if so, it counts as used now."""
        return self._use(self._models / check_sha(sha256))

    def transferred(self, source: Any) -> Path:
        """Return the path of a transferred file; Refused when it is none of this agent's."""
        path = Path(str(source))
        if path.parent != self.incoming or path.name == "lock":
            raise Refused("bad_request", "%r is not in %s" % (source, self.incoming))
        return path

    def accept(self, sha256: Any, source: Any, keep_bytes: int) -> None:
        """Verify a transferred file and move it into the models; a wrong one is deleted.

        `source` must lie in this agent's own folder for incoming files.
        """
        wanted, path = check_sha(sha256), self.transferred(source)
        try:
            size = path.lstat().st_size
            found = launcher.sha256_of(path)
            if found != wanted:
                path.unlink()
                raise Refused(
                    "hash_mismatch",
                    "the file arrived with %d bytes and hash %s instead of %s; deleted, send again"
                    % (size, found[:12] or "none", wanted[:12]),
                )
            path.chmod(0o600)
            sync(path)
            path.replace(self._models / wanted)
            sync(self._models)
        except FileNotFoundError:
            raise Refused("bad_request", "nothing was transferred to %s" % path) from None
        except OSError as error:
            raise disk_error(error, self.directory) from error
        self._use(self._models / wanted)
        self._shrink(self.bound_bytes(keep_bytes))

    def end_job(self) -> None:
        """Note that the job is done, so that the models it ran may be removed for others."""
        self._wanted.clear()

    def bound_bytes(self, keep_bytes: int) -> int:
        """Return how many bytes of models may stay: `keep_bytes`, or less on a small disk."""
        held = sum(size for _, size, _ in self._uses())
        return int(min(keep_bytes, _SHARE * (held + shutil.disk_usage(self.directory).free)))

    def usage(self, keep_bytes: int) -> Dict[str, Any]:
        """Return how many models there are, their bytes, and how many bytes may stay."""
        sizes = [size for _, size, _ in self._uses()]
        return {
            "models": len(sizes),
            "bytes": sum(sizes),
            "bound_bytes": self.bound_bytes(keep_bytes),
        }

    def _shrink(self, bound_bytes: int) -> None:
        files = self._uses()
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= bound_bytes:
                break
            if path in self._wanted:
                continue
            # Another host's agent may make room at the same time.
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            total -= size

    def _uses(self) -> List[Tuple[int, int, Path]]:
        """Return (last use, bytes, path) of every model, the least recently used first."""
        files = []
        for path in self._models.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if _SHA.fullmatch(path.name):
                    found = path.lstat()
                    files.append((int(found.st_mtime), found.st_size, path))
        return sorted(files)

    def _use(self, path: Path) -> bool:
        """Count a use of a model; False when it is not here."""
        files = self._uses()
        if path not in [known for _, _, known in files]:
            return False
        self._wanted.add(path)
        newest = files[-1][0]
        if files[-1][2] == path and (len(files) == 1 or files[-2][0] < newest):
            return True
        try:
            if newest >= _LAST_USE_S:
                for number, (_, _, known) in enumerate(files):
                    os.utime(known, (number, number))
                newest = len(files)
            os.utime(path, (newest + 1, newest + 1))
        except FileNotFoundError:
            return path.is_file()
        return True


def check_sha(sha256: Any) -> str:
    """Return a SHA-256 in hex; raises Refused for anything else, since it becomes a path."""
    if not isinstance(sha256, str) or not _SHA.fullmatch(sha256):
        raise Refused("bad_request", "%r is not a SHA-256 in lower-case hex" % (sha256,))
    return sha256


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any:
    """Return the value of a file of `write_json`; None when it is missing or unreadable."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > bounded_json.LIMIT_CHARS:
                return None
            return bounded_json.loads(file.read().decode())
    except (OSError, ValueError):
        return None


def write_json(path: Path, value: Any, *, folder: "Path | None" = None) -> None:
    """Replace a file in one step; it is written in `folder`, else beside it."""
    part = (folder or path.parent) / (path.name + ".part")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(part, flags, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def disk_error(error: OSError, directory: str) -> Refused:
    """Turn a failed write into one sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        sentence = "the device's disk is full"
        # Not even the folder may be there.
        with contextlib.suppress(OSError):
            sentence += ": %d bytes free at %s" % (shutil.disk_usage(directory).free, directory)
        return Refused("disk_full", sentence)
    return Refused("internal", "cannot write below %s: %s" % (directory, error.strerror))
