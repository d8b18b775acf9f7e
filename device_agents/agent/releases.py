"""Releases on the device: staged, checked, and only then in use.

    deployed/<name>/<version>/model.<extension> and release.json
    deployed/<name>/current             symbolic link to the version in use
    deployed/<name>/history.json        every activation, oldest first

A staged release lies in the agent's own folder for what is half done. The host runs it from there;
then one rename puts it in place and another one makes it current. Whatever ends in between, what
was in use stays in use, and what was staged goes with the agent or with the next one.
"""

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from . import launcher
from .store import ModelStore, disk_error, read_json, sync, write_json
from .wire import Refused

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = ("current", "history.json")


class Releases:
    """The folder `deployed` of a store's directory."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._deployed = launcher.own_folder(Path(store.directory, "deployed"))
        self._sweep()

    def _sweep(self) -> None:
        """Remove what interrupted older agents have left; this one leaves nothing half here."""
        for home in self._deployed.iterdir():
            if not home.is_dir() or home.is_symlink():
                continue
            for path in home.iterdir():
                parts = (".current-part", "history.json.part")
                if path.name.startswith(launcher.PART) or path.name in parts:
                    launcher.remove(path)

    def stage(self, sha256: Any, name: Any, version: Any, extension: Any) -> Dict[str, Any]:
        """Copy a model to where it can be run and is not in use yet.

        Refused when the version holds another model.
        """
        source = self._store.path(sha256)
        _, target = self._release(name, version)
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
        staged = self._staged(name, version)
        try:
            launcher.remove(staged)
            staged.mkdir(mode=0o700)
            shutil.copyfile(str(source), str(staged / file_name))
            sync(staged / file_name)
            release = {"name": name, "version": version, "sha256": sha256, "file": file_name}
            write_json(staged / "release.json", release)
            sync(staged)
        except OSError as error:
            launcher.remove(staged)
            raise disk_error(error, self._store.directory) from error
        return {"current": self._current(self._home(name))}

    def unstage(self, name: Any, version: Any) -> None:
        """Forget what is staged; what is in use stays."""
        self._release(name, version)
        launcher.remove(self._staged(name, version))

    def staged_path(self, name: Any, version: Any) -> Path:
        """Return a staged model's file; Refused when it is not there, or not what was staged."""
        self._release(name, version)
        return self._checked(self._staged(name, version), name, version)

    def activate(self, name: Any, version: Any) -> Dict[str, Any]:
        """Put what is staged in place and make it current; the same call twice is one."""
        home, target = self._release(name, version)
        staged = self._staged(name, version)
        path = self._checked(staged, name, version)
        release = _read_release(staged) or {}
        try:
            with launcher.mutex(self._deployed):
                launcher.own_folder(home)
                if os.path.lexists(str(target)):
                    # The same model again: the link may lead there, so no moment without a file.
                    launcher.own_folder(target)
                    for part in (path, staged / "release.json"):
                        part.replace(target / part.name)
                    sync(target)
                else:
                    staged.rename(target)
                sync(home)
                self._make_current(home, str(version), release["sha256"])
        except launcher.Unsafe as error:
            raise Refused("unsafe_directory", str(error)) from error
        except OSError as error:
            raise disk_error(error, self._store.directory) from error
        finally:
            launcher.remove(staged)
        return {"path": str(target / path.name), "current": str(version)}

    def rollback(self, name: Any, version: Optional[Any]) -> Dict[str, Any]:
        """Make `version`, or the release that was current before, current again."""
        home = self._home(name)
        if version is None:
            current, past = self._current(home), [i["version"] for i in self._history(home)]
            # What stands behind the current one was about to be activated and never was.
            while current in past and past[-1] != current:
                past.pop()
            older = [item for item in past if item != current]
            if not older:
                raise Refused("bad_request", "%s has no release before the current one" % name)
            version = older[-1]
        # Nothing is made current that is damaged.
        path = self.path(name, version)
        release = _read_release(path.parent) or {}
        with launcher.mutex(self._deployed):
            self._make_current(home, str(version), release["sha256"])
        return {"current": str(version), "sha256": release["sha256"]}

    def path(self, name: Any, version: Any) -> Path:
        """Return a release's model file; Refused("hash_mismatch") when its bytes have changed."""
        target = self._release(name, version)[1]
        if _read_release(target) is None:
            have = self.list()
            own = [item["version"] for item in have if item["name"] == name]
            known = own or ["%s %s" % (item["name"], item["version"]) for item in have]
            sentence = "%s has no release %s; have %s" % (name, version, ", ".join(known) or "none")
            raise Refused("bad_request", sentence)
        return self._checked(target, name, version)

    def list(self) -> List[Dict[str, Any]]:
        """Return every release: name, version, sha256, file, current."""
        found = []
        for home in sorted(self._deployed.iterdir()):
            if not home.is_dir():
                continue
            current = self._current(home)
            for target in sorted(home.iterdir()):
                if target.name.startswith(".") or target.name in _RESERVED:
                    continue
                release = _read_release(target)
                if release is not None:
                    found.append(dict(release, current=target.name == current))
        return found

    def _checked(self, folder: Path, name: Any, version: Any) -> Path:
        release = _read_release(folder)
        if release is None:
            raise Refused("bad_request", "%s %s is not staged; stage it first" % (name, version))
        path = folder / Path(str(release["file"])).name
        if launcher.sha256_of(path) != release["sha256"]:
            raise Refused(
                "hash_mismatch",
                "the file of %s %s is damaged or gone: %s no longer has the hash %s that was "
                "deployed; deploy it again" % (name, version, path, release["sha256"][:12]),
            )
        return path

    def _staged(self, name: Any, version: Any) -> Path:
        return self._store.incoming / ("release-%s-%s" % (name, version))

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

    def _make_current(self, home: Path, version: str, sha256: str) -> None:
        if self._current(home) == version:
            return
        part = self._store.incoming / "current"
        if part.is_symlink():
            part.unlink()
        part.symlink_to(version)
        # All that a full disk can refuse comes before the switch.
        history = self._history(home)
        history.append({"version": version, "sha256": sha256, "unix_s": int(time.time())})
        write_json(home / "history.json", history, folder=self._store.incoming)
        part.replace(home / "current")
        sync(home)

    @staticmethod
    def _current(home: Path) -> Optional[str]:
        link = home / "current"
        return str(link.readlink()) if link.is_symlink() else None

    @staticmethod
    def _history(home: Path) -> List[Dict[str, Any]]:
        found = read_json(home / "history.json")
        items = found if isinstance(found, list) else []
        return [i for i in items if isinstance(i, dict) and isinstance(i.get("version"), str)]


def _read_release(target: Path) -> Optional[Dict[str, Any]]:
    release = read_json(target / "release.json")
    if not isinstance(release, dict):
        return None
    names = ("name", "version", "sha256", "file")
    return release if all(isinstance(release.get(name), str) for name in names) else None
