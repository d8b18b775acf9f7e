"""Your own images: one .npz with `images` (N, H, W) or (N, H, W, C) and `labels` (N,).

uint8 images are scaled from 0..255 to -1..1, booleans from 0..1; floats about -1..1 are taken as
they are. Whatever could be meant in two ways is refused with the option that settles it: a wrong
guess would be trained without complaint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from device_agents import bounded
from models import npz_file
from pipeline.data.api import Array, DataError, Images, Labels, Loaded, refuse_truths, user_path

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.data.api import Truths

_FEW_CHANNELS = 4
"""So many (grey, with alpha, RGB, with alpha) are taken for channels whatever stands beside."""

_LARGEST_FLOAT = 5.0
"""Images about -1..1, or with mean 0 and deviation 1, stay below it; 0..255 and 0..16 do not."""

_DARKEST_WHITE = 16
"""Bytes that all lie below were hardly meant as 0..255."""

_AS_BYTES = (0.0, 255.0)
_AS_BOOLEANS = (0.0, 1.0)
_AS_THEY_ARE = (-1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Npz:
    """Options of the data set.

    Attributes:
        path: the .npz file.
        layout: of images with four dimensions: hwc (channels last) or chw (channels first); empty
            where the shape leaves no doubt.
        values: the pixel values that become -1 and 1, such as [0, 255]; [-1, 1] takes floats as
            they are. Empty where the type leaves no doubt.
    """

    path: str
    layout: Literal["", "hwc", "chw"] = ""
    values: tuple[float, ...] = ()

    def load(self, truths: Truths = "classes") -> Loaded:
        """Read the file. Raises DataError naming it."""
        if self.values and not _is_range(self.values):
            raise DataError(
                f"data set 'npz': data.options.values = {list(self.values)} must be two numbers, "
                "the lower first, such as [0, 255]"
            )
        if truths != "numbers":
            refuse_truths("npz", truths)
        path = user_path(self.path)
        images, labels = _arrays(path)
        checked = _numbers(path, labels) if truths == "numbers" else _labels(path, labels)
        pixels = _channels_first(path, images, self.layout)
        return Loaded(_scaled(path, pixels, self.values), checked)


def _is_range(values: tuple[float, ...]) -> bool:
    return len(values) == 2 and bool(np.isfinite(values).all()) and values[0] < values[1]


def _channels_first(path: Path, images: npt.NDArray[Any], layout: str) -> npt.NDArray[Any]:
    """Return images as (N, C, H, W). Raises DataError where it is not clear which axis is C."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise DataError(
            f"{path}: images {images.dtype}{list(images.shape)} must be (N, H, W), (N, H, W, C) "
            'or, with data.options.layout = "chw", (N, C, H, W)'
        )
    first, middle, last = images.shape[1:]
    looks_hwc = last <= _FEW_CHANNELS or last < min(first, middle)
    looks_chw = first <= _FEW_CHANNELS or first < min(middle, last)
    if not layout and images.size and (looks_chw or not looks_hwc):
        as_chw = f"{middle} x {last} pixels of {first} channels"
        as_hwc = f"{first} x {middle} pixels of {last}"
        doubt = "look like channels first" if not looks_hwc and looks_chw else "can be read twice"
        raise DataError(
            f'{path}: images {list(images.shape)} {doubt}: say data.options.layout = "chw" for '
            f'{as_chw}, or "hwc" for {as_hwc}'
        )
    return images if layout == "chw" else images.transpose(0, 3, 1, 2)


def _scaled(path: Path, images: npt.NDArray[Any], values: tuple[float, ...]) -> Images:
    """Return images as float32, `values` (or what their type says) mapped to -1..1."""
    low, high = values or _values(path, images)
    if (low, high) == _AS_THEY_ARE:
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
            return np.ascontiguousarray(images, dtype=np.float32)
    middle, half = (low + high) / 2, (high - low) / 2
    wide: npt.NDArray[Any] = images.astype(np.float32 if images.dtype.itemsize <= 2 else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray((wide - middle) / half, dtype=np.float32)


def _values(path: Path, images: npt.NDArray[Any]) -> tuple[float, float]:
    """Return which pixel values are black and white, from type and content.

    Raises:
        DataError: they do not say.
    """
    if images.dtype == np.bool_:
        return _AS_BOOLEANS
    if not np.issubdtype(images.dtype, np.integer) and not np.issubdtype(images.dtype, np.floating):
        raise DataError(
            f"{path}: images are {images.dtype}; they must be uint8 (0..255) or floats (-1..1)"
        )
    if not images.size:
        return _AS_THEY_ARE  # refused by the check of every data set
    low, high = float(images.min()), float(images.max())
    asked = (
        f"{path}: images are {images.dtype} with values {low:g} to {high:g}; say which are black "
        "and white: data.options.values = "
    )
    if images.dtype == np.uint8:
        if 0 < high <= _DARKEST_WHITE:
            raise DataError(f"{asked}[0, {high:g}], or [0, 255] if they are that dark")
        return _AS_BYTES
    likely = f"[0, {_power(high):g}], say" if low >= 0 else f"[{low:g}, {high:g}], say"
    if np.issubdtype(images.dtype, np.integer):
        raise DataError(asked + likely)
    if max(-low, high) > _LARGEST_FLOAT:  # NaN is refused by the check of every data set
        raise DataError(f"{asked}{likely}, or [-1, 1] to take them as they are")
    return _AS_THEY_ARE


def _power(value: float) -> float:
    """Return the largest number of so many bits, 8 at least: 255, 1023, 4095, 65535."""
    bits = 8
    while 2**bits - 1 < value and bits < 64:
        bits += 2
    return max(2.0**bits - 1, value)


def _labels(path: Path, labels: npt.NDArray[Any]) -> Labels:
    """Return labels (N,) int64. Raises DataError with how to make them of what is there."""
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        return labels.astype(np.int64)
    advice = "number the classes from 0"
    if labels.ndim == 2 and labels.shape[1] == 1:
        advice = "save labels[:, 0]"
    elif labels.ndim == 2:
        advice = "if they are one-hot, save labels.argmax(1)"
    elif labels.ndim == 1 and labels.dtype.kind in "fb":
        advice = "save labels.astype(int)"
    raise DataError(
        f"{path}: labels {labels.dtype}{list(labels.shape)} must be integers (N,): {advice}"
    )


def _numbers(path: Path, labels: Array) -> npt.NDArray[np.float32]:
    """Return labels (N, k) float32. Raises DataError: they are no numbers."""
    if labels.ndim in (1, 2) and labels.dtype.kind in "iuf":
        return labels.reshape(len(labels), -1).astype(np.float32)
    raise DataError(
        f"{path}: labels {labels.dtype}{list(labels.shape)} must be numbers (N,) or (N, k)"
    )


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
