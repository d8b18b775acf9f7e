"""The files of a folder, a .zip or a tar: listed once, read one at a time, nothing unpacked.

Nothing of an archive is written to disk under a name of its own, and yet one whose names lead out
of it is refused: whoever wrote it meant no good.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Protocol

from device_agents import bounded
from device_agents.plain_text import plain
from pipeline.data.api import DataError
from pipeline.data.pictures.decode import is_picture

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PICTURE_BYTES = 256 << 20
"""Of one file; a picture of 100 million pixels has less."""

_ZIPS = (".zip",)
_TARS = (".tar",)
_PACKED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SUFFIXES = (*_ZIPS, *_TARS, *_PACKED_TARS)

_CHUNK_BYTES = 1 << 20
_DAMAGED = (*bounded.ZIP_ERRORS, tarfile.TarError)


class Files(Protocol):
    """Named files at one place; a value that another process can be sent."""

    @property
    def path(self) -> Path:
        """Of the folder or archive."""

    @property
    def names(self) -> tuple[str, ...]:
        """Paths inside, with slashes, sorted."""

    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    def read(self, name: str) -> bytes:
        """Return a file's content. Raises DataError naming it: gone, damaged or too large."""


def is_archive(path: Path) -> bool:
    """Whether a path is named like an archive that `open_files` reads."""
    return path.name.lower().endswith(SUFFIXES)


def open_files(path: Path) -> Files:
    """List a folder or an archive; archives in a folder without pictures are folders of it.

    Raises:
        DataError: there is neither, it is damaged, or names in it lead out of it.
    """
    if bounded.is_folder(path):
        names = tuple(sorted(_walk(path)))
        archives = [name for name in names if is_archive(path / name) and "/" not in name]
        if archives and not any(map(is_picture, names)):
            return _Joined.open(path, [open_files(path / name) for name in archives])
        return _Folder(path, names)
    if not bounded.is_file(path):
        raise DataError(f"no folder or archive {str(path)!r}; give one that holds the pictures")
    with _told(path):
        return _Zip.open(path) if path.name.lower().endswith(_ZIPS) else _Tar.open(path)


def open_beside(path: Path) -> Files:
    """Return the files beside one, without listing them: `names` is empty, `has` asks for each."""
    return _Folder(path.parent, ())


def _walk(top: Path) -> Iterator[str]:
    """Give the files below a folder, in folders that links lead to as well, each folder once."""
    seen = {top.resolve()}
    for folder, below, files in os.walk(top, followlinks=True):
        here = top.__class__(folder)
        for name in list(below):
            real = (here / name).resolve()
            if real in seen or name.startswith("."):
                below.remove(name)
            seen.add(real)
        inside = here.relative_to(top)
        yield from ((inside / name).as_posix() for name in files if not name.startswith("."))


def _check_names(path: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse names that lead out of an archive, or that are there twice."""
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0]:
            raise DataError(
                f"{path} is refused: its file {plain(name, limit=200)!r} leads out of the archive; "
                "pack the pictures again under plain names"
            )
    kept = (n for n in names if not any(p.startswith((".", "__MACOSX")) for p in n.split("/")))
    return tuple(sorted(set(kept)))


@contextmanager
def _told(path: Path, name: str = "") -> Iterator[None]:
    """Raise what libraries say of a damaged archive as one sentence."""
    try:
        yield
    except (DataError, bounded.Unreadable):
        raise
    except _DAMAGED as error:
        said = plain(error, limit=200) or type(error).__name__
        inside = f"its file {plain(name, limit=200)!r}" if name else "the archive"
        raise DataError(f"{path}: {inside} cannot be read ({said}); pack it again") from error


@dataclass(frozen=True, slots=True)
class _Folder:
    path: Path
    names: tuple[str, ...]

    def has(self, name: str) -> bool:
        return bounded.is_file(self.path / name)

    def read(self, name: str) -> bytes:
        try:
            return bounded.read_bytes(self.path / name, limit_bytes=PICTURE_BYTES)
        except bounded.Unreadable as error:
            raise DataError(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Joined:
    """Archives of one folder: train.zip and test.zip, say."""

    path: Path
    names: tuple[str, ...]
    inside: dict[str, tuple[Files, str]]

    @classmethod
    def open(cls, path: Path, archives: Iterable[Files]) -> _Joined:
        inside = {
            f"{archive.path.name.partition('.')[0]}/{name}": (archive, name)
            for archive in archives
            for name in archive.names
        }
        return cls(path, tuple(sorted(inside)), inside)

    def has(self, name: str) -> bool:
        return name in self.inside

    def read(self, name: str) -> bytes:
        archive, own = self.inside[name]
        return archive.read(own)


@dataclass(frozen=True)
class _Zip:
    path: Path
    names: tuple[str, ...]
    _open: list[zipfile.ZipFile] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path) -> _Zip:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
        bounded.refuse_expansion(path.stat().st_size, sum(info.file_size for info in infos))
        return cls(path, _check_names(path, tuple(info.filename for info in infos)))

    def has(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str) -> bytes:
        with _told(self.path, name):
            if not self._open:
                self._open.append(zipfile.ZipFile(self.path))
            with self._open[0].open(name) as file:
                return _read_bounded(self.path, name, file)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "names": self.names, "_open": []}


@dataclass(frozen=True)
class _Tar:
    path: Path
    names: tuple[str, ...]
    _open: list[_TarContent] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path) -> _Tar:
        content = _TarContent(path)
        return cls(path, _check_names(path, tuple(content.places)), [content])

    def has(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str) -> bytes:
        with _told(self.path, name):
            if not self._open:
                self._open.append(_TarContent(self.path))
            content = self._open[0]
            offset, size = content.places[name]
            content.file.seek(offset)
            return _read_bounded(self.path, name, content.file, size)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "names": self.names, "_open": []}


class _TarContent:
    """An open tar and where its plain files lie in it; links and devices are none.

    A packed one is unpacked into a nameless file first, since nothing can be found in it otherwise.
    """

    def __init__(self, path: Path) -> None:
        self.file: IO[bytes] = path.open("rb")
        if path.name.lower().endswith(_PACKED_TARS):
            with self.file, tarfile.open(fileobj=self.file, mode="r:*") as packed:
                self.file = _unpack(path, packed.fileobj)
        with tarfile.open(fileobj=self.file, mode="r:") as archive:
            self.places = {
                info.name.removeprefix("./"): (info.offset_data, info.size)
                for info in archive
                if info.isreg()
            }

    def __del__(self) -> None:
        self.file.close()


def _unpack(path: Path, stream: Any) -> IO[bytes]:
    size, made = path.stat().st_size, 0
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever asked for it closes it
    stream.seek(0)
    while chunk := stream.read(_CHUNK_BYTES):
        made += len(chunk)
        bounded.refuse_expansion(size, made)
        file.write(chunk)
    file.seek(0)
    return file


def _read_bounded(path: Path, name: str, file: IO[bytes], size: int = PICTURE_BYTES + 1) -> bytes:
    content = file.read(min(size, PICTURE_BYTES + 1))
    if len(content) > PICTURE_BYTES:
        raise DataError(
            f"{path}: its file {plain(name, limit=200)!r} has more than {PICTURE_BYTES} bytes, "
            "the most that is taken for a picture"
        )
    return content
