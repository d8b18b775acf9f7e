"""One picture: what it is, whether it is whole, and its pixels as a network takes them.

JPEG, PNG and WebP. Pixels are bytes: 16-bit grey is brought to 8 (Pillow would cut it off at 255),
CMYK and palettes become RGB, and what is transparent shows white, as on paper. A picture is turned
as its EXIF data says, as every viewer shows it.
"""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from device_agents.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

Bytes = npt.NDArray[np.uint8]
Fit = Literal["crop", "stretch"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MOST_PIXELS = 100_000_000
"""A larger picture is no photograph but an attack on memory, or a map to be cut up first."""

_FORMATS = ("JPEG", "PNG", "WEBP")
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
_WIDE = ("I", "I;16", "I;16B", "I;16L", "F")
_ORIENTATION, _ON_ITS_SIDE = 0x0112, 5
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"


class BrokenPicture(ValueError):
    """A file that is no picture, is cut short or asks for too much; `str()` says which."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What of a picture a network sees.

    Attributes:
        height: of the network's input.
        width: likewise.
        grey: one channel instead of three.
        fit: crop: the middle, of the input's proportions; stretch: all of it.
        share: of the picture's height or width that a crop keeps: 0.875 cuts an eighth away.
    """

    height: int
    width: int
    grey: bool = False
    fit: Fit = "crop"
    share: float = 1.0

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 1 if self.grey else 3

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return (left, top, right, bottom) of what is seen of a picture of that size."""
        if self.fit == "stretch":
            return (0.0, 0.0, float(width), float(height))
        scale = min(width / self.width, height / self.height) * self.share
        seen_width, seen_height = self.width * scale, self.height * scale
        left, top = (width - seen_width) / 2, (height - seen_height) / 2
        return (left, top, left + seen_width, top + seen_height)


def is_picture(name: str) -> bool:
    """Whether a file is named like one."""
    return name.lower().endswith(SUFFIXES)


def examine(content: bytes) -> bool:
    """Check that a picture is whole, without decoding it; return whether it is grey.

    Raises:
        BrokenPicture: it is not.
    """
    with _opened(content) as image:
        grey = image.mode in _GREY
        if image.format == "JPEG" and content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN):
            raise BrokenPicture("it is cut short")
        if image.format == "WEBP" and int.from_bytes(content[4:8], "little") + 8 > len(content):
            raise BrokenPicture("it is cut short")
        if image.format == "PNG":
            image.verify()  # the checksums of all its parts
        return grey


def size_of(content: bytes) -> tuple[int, int]:
    """Return the width and height of a picture as it is shown. Raises BrokenPicture."""
    with _opened(content) as image:
        turned = image.getexif().get(_ORIENTATION, 1) >= _ON_ITS_SIDE
        return (image.height, image.width) if turned else image.size


def decode(content: bytes, frame: Frame) -> Bytes:
    """Return a picture's pixels, (height, width, channels) of the frame, RGB or grey.

    Raises:
        BrokenPicture: it cannot be decoded.
    """
    with _opened(content) as image:
        image.load()
        turned = ImageOps.exif_transpose(image)
        plain_ = _eight_bit(turned, "L" if frame.grey else "RGB")
        box = frame.box(*plain_.size)
        size = (frame.width, frame.height)
        if plain_.size != size or box != (0.0, 0.0, *map(float, size)):
            plain_ = plain_.resize(size, Image.Resampling.BILINEAR, box=box)
        return np.asarray(plain_).reshape(frame.height, frame.width, frame.channels)


def decode_mask(content: bytes, frame: Frame | None = None) -> Bytes:
    """Return a mask's numbers of classes (height, width), of the frame or of its own size.

    Raises:
        BrokenPicture: it cannot be decoded, or its pixels are colours and no numbers.
    """
    with _opened(content) as image:
        image.load()
        if image.mode not in ("1", "L", "P"):
            raise BrokenPicture(
                f"it is a picture of the mode {image.mode}; a mask is grey or has a palette, 8 "
                "bits, and its values are the numbers of classes"
            )
        mask = image
        if frame is not None:
            size, box = (frame.width, frame.height), frame.box(*image.size)
            mask = image.resize(size, Image.Resampling.NEAREST, box=box)
        return np.asarray(mask).astype(np.uint8)


def _eight_bit(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in _WIDE:
        values = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.clip(values / 257 + 0.5, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        image = Image.alpha_composite(white, seen)
    return image if image.mode == mode else image.convert(mode)


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Open a picture; raise whatever its bytes make Pillow say as BrokenPicture."""
    try:
        with _quiet(), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _refuse_huge(image)
            yield image
    except BrokenPicture:
        raise
    except Image.DecompressionBombError as error:
        raise BrokenPicture(f"it says that it has more than {MOST_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise BrokenPicture("it is no JPEG, PNG or WebP picture, or its head is gone") from error
    except Exception as error:  # of bytes that may be anything
        said = plain(error, limit=120) or type(error).__name__
        raise BrokenPicture(f"it cannot be decoded ({said})") from error


def _refuse_huge(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise BrokenPicture(
            f"it says that it has {width} x {height} pixels; at most {MOST_PIXELS} are taken"
        )


def _quiet() -> AbstractContextManager[object]:
    """Keep Pillow from warning of sizes, which are bounded here, and of odd EXIF data."""
    return warnings.catch_warnings(action="ignore")
