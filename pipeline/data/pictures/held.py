"""Pictures of a data set as an array of floats that is made of bytes, batch by batch.

60,000 pictures of 32x32 are 184 MB of bytes and 737 MB of floats: bytes are kept, and whoever
indexes gets floats. A picture is decoded when it is first asked for, at the size of the network.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.data.api import DataError
from pipeline.data.pictures.decode import BrokenPicture, Bytes, Frame, decode, decode_mask
from pipeline.data.pictures.values import Values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.data.pictures.files import Files

Masked = Literal["", "numbers", "black and white"]
"""What the pictures are if they are masks: numbers of classes, or black for 0 and white for 1."""

WHITE = 255

_IN_MEMORY_BYTES = 256 << 20
"""Of decoded pictures; more lie in a nameless file, whose pages the system can take back."""


@dataclass(slots=True)
class _Shelf:
    """Decoded pictures of some files, each decoded once in a process; others decode their own."""

    files: Files
    names: tuple[str, ...]
    frame: Frame
    masks: Masked = ""
    _bytes: Bytes | None = None
    _there: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    @property
    def shape(self) -> tuple[int, ...]:
        size = (self.frame.height, self.frame.width)
        return size if self.masks else (*size, self.frame.channels)

    def take(self, rows: npt.NDArray[np.intp]) -> Bytes:
        """Return the pixels of some pictures, (n, height, width, …)."""
        if self._bytes is None:
            self._bytes = _room((len(self.names), *self.shape))
            self._there = np.zeros(len(self.names), np.bool_)
        for row in np.unique(rows[~self._there[rows]]).tolist():
            self._bytes[row] = self._decode(self.names[row])
            self._there[row] = True
        taken: Bytes = self._bytes[rows]
        return taken

    def _decode(self, name: str) -> Bytes:
        try:
            content = self.files.read(name)
            if not self.masks:
                return decode(content, self.frame)
            numbers = decode_mask(content, self.frame)
            return numbers // WHITE if self.masks == "black and white" else numbers
        except BrokenPicture as error:
            raise DataError(
                f"{self.files.path}: the picture {name!r} looked whole, and {error}; remove it"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "names": self.names, "frame": self.frame, "masks": self.masks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _room(shape: tuple[int, ...]) -> Bytes:
    size = prod(shape)
    if size <= _IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - kept open by the map
        # All of it at once: a page that the disk has no room for would end the process.
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise DataError(
            f"no room for {size >> 20} MiB of decoded pictures in {tempfile.gettempdir()} "
            f"({error.strerror}); let TMPDIR name a folder with more, or lower data.resolution"
        ) from error
    return np.memmap(file, np.uint8, "r+", shape=shape)


@dataclass(frozen=True, slots=True)
class _Held:
    """Some rows of a shelf, in an order."""

    shelf: _Shelf
    rows: npt.NDArray[np.intp]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.rows)

    def digest(self) -> str:
        """Return a hash of the files, their order and how they are decoded."""
        sha = hashlib.sha256(repr((self.shelf.frame, self.shelf.masks)).encode())
        for row in self.rows.tolist():
            sha.update(hashlib.sha256(self.shelf.files.read(self.shelf.names[row])).digest())
        return sha.hexdigest()

    def _shelf_at(self, height: int, width: int) -> _Shelf:
        frame = replace(self.shelf.frame, height=height, width=width)
        names = tuple(self.shelf.names[row] for row in self.rows.tolist())
        return _Shelf(self.shelf.files, names, frame, self.shelf.masks)

    def _taken(self, key: Any) -> Bytes:
        rows = np.atleast_1d(self.rows[key])
        pixels = self.shelf.take(rows)
        return pixels[0] if np.ndim(self.rows[key]) == 0 else pixels


@dataclass(frozen=True, slots=True)
class Pictures(_Held):
    """Pictures (N, C, H, W) as `values` feeds them; indexing gives float32 arrays.

    Attributes:
        values: how they are fed.
    """

    values: Values = field(default_factory=Values)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        height, width, channels = self.shelf.shape
        return (len(self), channels, height, width)

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Of what indexing gives."""
        return np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        """4."""
        return 4

    def __getitem__(self, key: Any) -> npt.NDArray[np.float32]:
        """Decode what is asked for, by any index of the first axis. Raises DataError."""
        return self.values.feed(self._taken(key))

    def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[Any]:
        """Return all of them, which takes their memory."""
        return self[:].astype(dtype or np.float32, copy=False)

    def digest(self) -> str:
        """Return a hash of the files, their order, how they are decoded and how they are fed."""
        text = f"{_Held.digest(self)} {self.values}"
        return hashlib.sha256(text.encode()).hexdigest()

    def take(self, rows: npt.NDArray[np.intp]) -> Pictures:
        """Return some of them, not yet decoded."""
        return replace(self, rows=self.rows[rows])

    def at(self, height: int, width: int) -> Pictures:
        """Return the same pictures decoded at another size."""
        return replace(self, shelf=self._shelf_at(height, width), rows=np.arange(len(self)))


@dataclass(frozen=True, slots=True)
class Masks(_Held):
    """Numbers of classes (N, H, W) for each pixel of pictures; indexing gives int64 arrays."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W)."""
        return (len(self), *self.shelf.shape)

    @property
    def dtype(self) -> np.dtype[np.int64]:
        """Of what indexing gives."""
        return np.dtype(np.int64)

    def __getitem__(self, key: Any) -> npt.NDArray[np.int64]:
        """Decode what is asked for, by any index of the first axis. Raises DataError."""
        return self._taken(key).astype(np.int64)

    def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[Any]:
        """Return all of them, which takes their memory."""
        return self[:].astype(dtype or np.int64, copy=False)

    def take(self, rows: npt.NDArray[np.intp]) -> Masks:
        """Return some of them, not yet decoded."""
        return replace(self, rows=self.rows[rows])

    def at(self, height: int, width: int) -> Masks:
        """Return the same masks at another size."""
        return replace(self, shelf=self._shelf_at(height, width), rows=np.arange(len(self)))


def hold_pictures(files: Files, names: Sequence[str], frame: Frame, values: Values) -> Pictures:
    """Return the pictures of these names, decoded when they are asked for."""
    return Pictures(_Shelf(files, tuple(names), frame), np.arange(len(names)), values)


def hold_masks(files: Files, names: Sequence[str], frame: Frame, masked: Masked) -> Masks:
    """Return the masks of these names, decoded when they are asked for."""
    return Masks(_Shelf(files, tuple(names), frame, masked), np.arange(len(names)))
