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
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.data.api import DataError, Images, Labels, user_path

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Idx:
    """Options `images` and `labels`: the two files."""

    images: str
    labels: str

    def load(self) -> tuple[Images, Labels]:
        """Read both files. Raises DataError naming the one that is wrong."""
        images = _read(user_path(self.images), dimensions=3)
        labels = _read(user_path(self.labels), dimensions=1)
        scaled = images[:, None].astype(np.float32) / np.float32(127.5) - 1
        return scaled, labels.astype(np.int64)


def _read(path: Path, *, dimensions: int) -> npt.NDArray[np.uint8]:
    if not path.is_file():
        raise DataError(f"data set 'idx': no file {str(path)!r}; set data.options to your copies")
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, MemoryError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch it again") from None
    header = 4 + 4 * dimensions
    if len(raw) < header or raw[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{path} is not an IDX file of bytes in {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", raw[4:header])
    if len(raw) - header != math.prod(shape):
        raise DataError(
            f"{path} is cut short or damaged: its header says {math.prod(shape)} bytes of data, "
            f"it holds {len(raw) - header}; fetch it again"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
