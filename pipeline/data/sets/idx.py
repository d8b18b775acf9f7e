"""MNIST and its relatives (Fashion-MNIST, KMNIST, EMNIST) in their IDX files, plain or gzipped.

The files are not downloaded: point `images` and `labels` at copies of, for example,
train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from device_agents import bounded
from models import npz_file
from pipeline.data.api import DataError, Loaded, refuse_truths, user_path

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.data.api import Truths


@dataclass(frozen=True, slots=True)
class Idx:
    """Options `images` and `labels`: the two files."""

    images: str
    labels: str

    def load(self, truths: Truths = "classes") -> Loaded:
        """Read both files. Raises DataError naming the one that is wrong."""
        refuse_truths("idx", truths)
        images = _read(user_path(self.images), dimensions=3)
        labels = _read(user_path(self.labels), dimensions=1)
        scaled = images[:, None].astype(np.float32) / np.float32(127.5) - 1
        return Loaded(scaled, labels.astype(np.int64))


def _read(path: Path, *, dimensions: int) -> npt.NDArray[np.uint8]:
    try:
        with bounded.open_file(path, limit_bytes=npz_file.LIMIT_BYTES) as file:
            return _decoded(path, file, dimensions)
    except bounded.Unreadable as error:
        if error.missing:
            raise DataError(
                f"data set 'idx': no file {str(path)!r}; set data.options to your copies"
            ) from error
        raise DataError(f"data set 'idx': {error}; set data.options to your copies") from error
    except (OSError, EOFError, MemoryError, bounded.Undecodable, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch it again") from error


def _decoded(path: Path, stored: IO[bytes], dimensions: int) -> npt.NDArray[np.uint8]:
    """Read the header first: it says how much there must be, and no more is taken."""
    size = stored.seek(0, 2)
    stored.seek(0)
    packed = stored.read(2) == b"\x1f\x8b"
    stored.seek(0)
    file = cast("IO[bytes]", gzip.GzipFile(fileobj=stored)) if packed else stored
    header = file.read(4 + 4 * dimensions)
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{path} is not an IDX file of bytes in {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    declared = math.prod(shape)
    if packed:
        bounded.refuse_expansion(size, declared)
    raw = file.read(min(declared, npz_file.LIMIT_BYTES) + 1)
    if len(raw) != declared:
        held = f"more than {declared}" if len(raw) > declared else len(raw)
        raise DataError(
            f"{path} is cut short or damaged: its header says {declared} bytes of data, "
            f"it holds {held}; fetch it again"
        )
    return np.frombuffer(raw, np.uint8).reshape(shape)
