"""Starts the agent: the first code of ours on a device, sent with the command and never kept there.

Nothing of the agent's file runs before its hash is what the host says. What lies on the device is
trusted only where nobody else could have put it: in folders of this user's own, mode 0700, that
are no links. The file imports nothing of ours, since it runs alone; the store uses its folders.

    <directory>/agent/edgewright-agent-<hash>.pyz       held while an agent of it lives
    <directory>/*/.part-<random>/       what is half done; `lock` in it is held while its process
                                        lives, so that whoever comes next can tell and remove it
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib
import json
import os
import select
import shutil
import stat
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

PART = ".part-"
_MUTEX = ".mutex"


class Unsafe(Exception):
    """A folder in which somebody else could have put something; says what to do."""


def own_folder(path: Path) -> Path:
    """Make a folder that is this user's alone, or see that it is one; raises Unsafe, OSError."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "no folder"
        raise Unsafe(
            "%s is %s, where a folder of this user's own must be; remove it" % (path, kind)
        )
    if found.st_uid != os.geteuid():
        raise Unsafe(
            "%s belongs to user %d and not to user %d, who is logged in; remove it there, or set "
            "another `directory` in the profile" % (path, found.st_uid, os.geteuid())
        )
    if found.st_mode & 0o022:
        raise Unsafe(
            "others may write in %s (mode %o), so what lies there may be theirs; remove it, or run "
            "`chmod -R go-w` on it when it is not" % (path, stat.S_IMODE(found.st_mode))
        )
    if found.st_mode & 0o077:
        path.chmod(0o700)
        if path.lstat().st_mode & 0o077:
            raise Unsafe(
                "%s cannot be made this user's alone (its file system keeps no modes); set another "
                "`directory` in the profile" % path
            )
    return path


def top_folder(path: Path) -> Path:
    """Do the same for the directory of the profile, which its user may have made a link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        if path.lstat().st_uid not in (0, os.geteuid()):
            raise Unsafe("%s is a link of another user; remove it there" % path)
        path = path.resolve()
    return own_folder(path)


@contextlib.contextmanager
def mutex(folder: Path) -> Iterator[None]:
    """Hold a folder's lock for a `with` block; waits for it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(folder / _MUTEX, flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def claim(folder: Path) -> Tuple[Path, int]:
    """Make a folder below `folder` for what is half done; return its path and its lock.

    It is this process's until the lock is closed.
    """
    path = folder / (PART + os.urandom(8).hex())
    with mutex(folder):
        path.mkdir(0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        lock = os.open(path / "lock", flags, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return path, lock


def sweep(folder: Path) -> None:
    """Remove what processes that are gone have left half done in a folder of `claim`."""
    with mutex(folder):
        for path in folder.iterdir():
            if PART in path.name and not is_held(path / "lock"):
                remove(path)


def remove(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link, which is not followed."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path))
        else:
            path.unlink()


def keep(path: Path) -> bool:
    """Hold a file for as long as this process, or a fork of it, lives."""
    fcntl.flock(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), fcntl.LOCK_SH)
    return True


def is_held(path: Path) -> bool:
    """Tell whether a process holds a file."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def sha256_of(path: Path) -> str:
    """Return the hash of a regular file of this user's, in hex; empty for anything else."""
    try:
        # Not blocking: it may be a pipe that somebody has put there.
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(file, "rb") as opened:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return ""
        digest = hashlib.sha256()
        for chunk in iter(lambda: opened.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def launch(path: Path, wanted: str, directory: Path) -> bool:
    """See that the agent is there and is the wanted one; have it sent when it is not.

    Returns whether it may run. Speaks the agent's protocol: the host's first call, `hello`, is
    answered here with where to put the file; the second one is the agent's, or the refusal.
    """
    os.umask(0o077)
    try:
        top_folder(directory)
        folder = own_folder(path.parent)
        sweep(folder)
        with mutex(folder):
            # Nobody removes it between these two.
            if sha256_of(path) == wanted:
                return keep(path)
        nest, lock = claim(folder)
    except Unsafe as error:
        _hear_call()
        return _answer(1, {"error": _error("unsafe_directory", str(error))})
    except OSError as error:
        kind = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "internal"
        sentence = "cannot make %s: %s" % (error.filename or directory, error.strerror)
        _hear_call()
        return _answer(1, {"error": _error(kind, sentence)})
    _hear_call()
    sent = nest / "agent"
    _answer(1, {"result": {"send_agent_to": str(sent)}})
    select.select([0], [], [])
    found = sha256_of(sent)
    if found == wanted:
        sent.chmod(0o600)
        keep(sent)
        sent.replace(path)
    remove(nest)
    os.close(lock)
    if found == wanted:
        return True
    sentence = "the agent arrived with hash %s instead of %s" % (found[:12] or "none", wanted[:12])
    return _answer(2, {"error": _error("hash_mismatch", sentence)})


def _hear_call() -> None:
    """Read the host's first call, to its end.

    Also before a refusal: a host whose call meets a closed pipe reads no answer.
    """
    while os.read(0, 1) not in (b"\n", b""):
        pass


def _error(kind: str, sentence: str) -> Dict[str, str]:
    return {"kind": kind, "message": sentence, "detail": ""}


def _answer(number: int, message: Dict[str, Any]) -> bool:
    part = json.dumps(dict(message, busy_ns=0))
    line = json.dumps({"id": number, "part": part, "end": True})
    # First the end of whatever line a login script has left.
    os.write(1, b"\n\x1eew1 " + line.encode() + b"\n")
    return False


def main(argv: List[str]) -> int:
    """Run the agent `argv[0]` whose hash is `argv[1]` with the arguments behind them."""
    path, wanted, rest = argv[0], argv[1], argv[2:]
    directory = rest[rest.index("--directory") + 1]
    if not launch(Path(path), wanted, Path(directory)):
        return 1
    sys.argv = [path, *rest]
    sys.path.insert(0, path)
    return int(importlib.import_module("edgewright_agent.main").main(rest))
