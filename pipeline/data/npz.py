"""Your own images: one .npz with `images` (N, H, W) or (N, H, W, C) and `labels` (N,).

uint8 images are scaled from 0..255 to -1..1; float images are taken as they are.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.api import DataError, Images, Labels


@dataclass(frozen=True, slots=True)
class Npz:
    """Option `path`: the .npz file."""

    path: str

    def load(self) -> tuple[Images, Labels]:
        """Read the file. Raises DataError naming it."""
        return _read(Path(self.path).expanduser())


def _read(path: Path) -> tuple[Images, Labels]:
    if not path.is_file():
        raise DataError(
            f"data set 'npz': no file {str(path)!r}; set data.options.path to an .npz "
            "with arrays 'images' and 'labels'"
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except KeyError as error:
        raise DataError(
            f"{path} has no array {error}; it must hold 'images' and 'labels'"
        ) from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable .npz file ({error}); write it again") from None
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{path}: images {images.dtype}{list(images.shape)} and labels "
            f"{labels.dtype}{list(labels.shape)} must be (N, H, W[, C]) and integers (N,)"
        )
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / np.float32(127.5) - 1
    nchw = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    return nchw, labels.astype(np.int64)
