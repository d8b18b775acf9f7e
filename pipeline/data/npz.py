"""Your own images: one .npz with `images` (N, H, W) or (N, H, W, C) and `labels` (N,).

uint8 images are scaled from 0..255 to -1..1; float images are taken as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents import bounded
from models import npz_file
from pipeline.data.api import DataError, Images, Labels, user_path

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Npz:
    """Option `path`: the .npz file."""

    path: str

    def load(self) -> tuple[Images, Labels]:
        """Read the file. Raises DataError naming it."""
        return _read(user_path(self.path))


def _read(path: Path) -> tuple[Images, Labels]:
    images, labels = _arrays(path)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{path}: images {images.dtype}{list(images.shape)} and labels "
            f"{labels.dtype}{list(labels.shape)} must be (N, H, W[, C]) and integers (N,)"
        )
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise DataError(
            f"{path}: images are {images.dtype}; they must be uint8 (0..255) or floats (-1..1)"
        )
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / np.float32(127.5) - 1
    with np.errstate(over="ignore"):  # a float64 too large becomes infinite, which is refused
        nchw = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    return nchw, labels.astype(np.int64)


def _arrays(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    try:
        arrays = npz_file.read(path, ("images", "labels"))
        return arrays["images"], arrays["labels"]
    except bounded.Unreadable as error:
        wanted = "set data.options.path to an .npz with arrays 'images' and 'labels'"
        if error.missing:
            raise DataError(f"data set 'npz': no file {str(path)!r}; {wanted}") from error
        raise DataError(f"data set 'npz': {error}; {wanted}") from error
    except KeyError as error:
        raise DataError(
            f"{path} has no array {error}; it must hold 'images' and 'labels'"
        ) from None
    except bounded.Undecodable as error:
        raise DataError(
            f"{path}: {error}; write images and labels into one file with numpy.savez"
        ) from error
