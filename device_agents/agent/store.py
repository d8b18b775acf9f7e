"""Models on the device, named by the SHA-256 of their content; releases beside them.

    models/<sha256>                     what was pushed; the least recently used go first when the
                                        folder grows past its bound
    deployed/<name>/<version>/model.<extension> and release.json
    deployed/<name>/current             symbolic link to the version in use
    deployed/<name>/history.json        every activation, oldest first

Only files of these folders, made by this agent, are ever removed.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from .facts import file_sha256
from .wire import Refused

_SHA = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = ("current", "history.json")
_ABANDONED_S = 24 * 3600


class Store:
    """The agent's folders under `directory`."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._models = Path(directory, "models")
        self._deployed = Path(directory, "deployed")
        self.incoming = Path(directory, "incoming")
        for folder in (self._models, self._deployed, self.incoming):
            folder.mkdir(parents=True, exist_ok=True)
        self._clear_incoming()

    def _clear_incoming(self) -> None:
        """Remove transfers that were given up; another host's running one is younger than a day."""
        for path in self.incoming.iterdir():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - _ABANDONED_S:
                    path.unlink()

    def path(self, sha256: Any) -> Path:
        """Return the model's path and mark it as used; Refused("no_model") when it is not here."""
        path = self._models / checked_sha(sha256)
        try:
            os.utime(path)
        except FileNotFoundError:
            sentence = "model %s is not on the device; push it first" % sha256[:12]
            raise Refused("no_model", sentence) from None
        return path

    def has(self, sha256: Any) -> bool:
        """Tell whether the model is here; if so, it counts as used now."""
        try:
            os.utime(self._models / checked_sha(sha256))
        except FileNotFoundError:
            return False
        return True

    def accept(self, sha256: Any, source: Any, keep_bytes: int) -> None:
        """Verify a transferred file and move it into the models; a wrong one is deleted.

        `source` must lie in the folder for incoming files.
        """
        wanted = checked_sha(sha256)
        path = Path(str(source)).resolve()
        if path.parent != self.incoming.resolve():
            raise Refused("bad_request", "%r is not in %s" % (source, self.incoming))
        try:
            found, size = file_sha256(path), path.stat().st_size
            if found != wanted:
                path.unlink()
                raise Refused(
                    "hash_mismatch",
                    "the file arrived with %d bytes and hash %s instead of %s; deleted, send again"
                    % (size, found[:12], wanted[:12]),
                )
            sync(path)
            path.replace(self._models / wanted)
            sync(self._models)
        except FileNotFoundError:
            raise Refused("bad_request", "nothing was transferred to %s" % path) from None
        except OSError as error:
            raise disk_error(error, self.directory) from error
        self._shrink(keep_bytes, wanted)

    def _shrink(self, keep_bytes: int, newest: str) -> None:
        files = []
        for path in self._models.iterdir():
            # Another host's agent may make room at the same time.
            with contextlib.suppress(FileNotFoundError):
                if _SHA.fullmatch(path.name) and path.name != newest:
                    found = path.stat()
                    files.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= keep_bytes:
                break
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            total -= size

    def deploy(self, sha256: Any, name: Any, version: Any, extension: Any) -> Dict[str, Any]:
        """Copy a model to its release folder and make it current; the same call twice is one."""
        source = self.path(sha256)
        home, target = self._release(name, version)
        if not re.fullmatch(r"[A-Za-z0-9]{1,16}", str(extension)):
            raise Refused("bad_request", "extension %r is not letters and digits" % (extension,))
        known = _read_release(target)
        if known is not None and known["sha256"] != sha256:
            raise Refused(
                "bad_request",
                "%s %s is already deployed with model %s; choose another version"
                % (name, version, known["sha256"][:12]),
            )
        file_name = known["file"] if known else "model." + str(extension)
        try:
            if known is None or not _intact(target / known["file"], known["sha256"]):
                part = home / (".part-%s-%d" % (version, os.getpid()))
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
                shutil.copyfile(source, part / file_name)
                sync(part / file_name)
                release = {"name": name, "version": version, "sha256": sha256, "file": file_name}
                write_json(part / "release.json", release)
                # Damaged, or without release.json: a leftover of an interrupted older agent.
                shutil.rmtree(target, ignore_errors=True)
                part.rename(target)
                sync(home)
            self._activate(home, str(version), str(sha256))
        except OSError as error:
            raise disk_error(error, self.directory) from error
        return {"path": str(target / file_name), "current": str(version)}

    def rollback(self, name: Any, version: Optional[Any]) -> Dict[str, Any]:
        """Make `version`, or the release that was current before, current again."""
        home = self._home(name)
        if version is None:
            past = [item["version"] for item in self._history(home)]
            older = [item for item in past if item != (past[-1] if past else None)]
            if not older:
                raise Refused("bad_request", "%s has no release before the current one" % name)
            version = older[-1]
        _, release = self._known(name, version)
        self._activate(home, str(version), release["sha256"])
        return {"current": str(version), "sha256": release["sha256"]}

    def release_path(self, name: Any, version: Any) -> Path:
        """Return a release's model file; Refused("hash_mismatch") when its bytes have changed."""
        target, release = self._known(name, version)
        path = target / str(release["file"])
        if not _intact(path, release["sha256"]):
            raise Refused(
                "hash_mismatch",
                "the file of %s %s is damaged or gone: %s no longer has the hash %s that was "
                "deployed; deploy it again" % (name, version, path, release["sha256"][:12]),
            )
        return path

    def releases(self) -> List[Dict[str, Any]]:
        """Return every release: name, version, sha256, file, current."""
        found = []
        for home in sorted(self._deployed.iterdir()):
            current = _link_target(home / "current")
            for target in sorted(home.iterdir()):
                if target.name.startswith(".") or target.name in _RESERVED:
                    continue
                release = _read_release(target)
                if release is not None:
                    found.append(dict(release, current=target.name == current))
        return found

    def _home(self, name: Any) -> Path:
        if not _NAME.fullmatch(str(name)):
            raise Refused(
                "bad_request",
                "name %r must be letters, digits, dot, dash or underscore, at most 64" % (name,),
            )
        return self._deployed / str(name)

    def _release(self, name: Any, version: Any) -> Tuple[Path, Path]:
        home = self._home(name)
        if not _NAME.fullmatch(str(version)) or version in _RESERVED:
            raise Refused(
                "bad_request",
                "version %r must be letters, digits, dot, dash or underscore, at most 64"
                % (version,),
            )
        return home, home / str(version)

    def _known(self, name: Any, version: Any) -> Tuple[Path, Dict[str, Any]]:
        """Return a release's folder and its record; Refused with the releases there are."""
        target = self._release(name, version)[1]
        release = _read_release(target)
        if release is None:
            have = self.releases()
            own = [item["version"] for item in have if item["name"] == name]
            known = own or ["%s %s" % (item["name"], item["version"]) for item in have]
            sentence = "%s has no release %s; have %s" % (name, version, ", ".join(known) or "none")
            raise Refused("bad_request", sentence)
        return target, release

    def _activate(self, home: Path, version: str, sha256: str) -> None:
        link, part = home / "current", home / ".current-part"
        if _link_target(link) == version:
            return
        if part.is_symlink():
            part.unlink()
        part.symlink_to(version)
        part.replace(link)
        history = self._history(home)
        history.append({"version": version, "sha256": sha256, "unix_s": int(time.time())})
        write_json(home / "history.json", history)
        sync(home)

    def _history(self, home: Path) -> List[Dict[str, Any]]:
        try:
            with (home / "history.json").open(encoding="utf-8") as file:
                return list(json.load(file))
        except (OSError, ValueError):
            return []


def _read_release(target: Path) -> Optional[Dict[str, Any]]:
    try:
        with (target / "release.json").open(encoding="utf-8") as file:
            release = json.load(file)
    except (OSError, ValueError):
        return None
    if not isinstance(release, dict):
        return None
    names = ("name", "version", "sha256", "file")
    return release if all(isinstance(release.get(name), str) for name in names) else None


def _intact(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path) == sha256
    except OSError:
        return False


def _link_target(link: Path) -> Optional[str]:
    return str(link.readlink()) if link.is_symlink() else None


def checked_sha(sha256: Any) -> str:
    """Return the argument when it is a SHA-256 in hex; nothing else may become a path."""
    if not isinstance(sha256, str) or not _SHA.fullmatch(sha256):
        raise Refused("bad_request", "%r is not a SHA-256 in lower-case hex" % (sha256,))
    return sha256


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Replace a file in one step."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
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
