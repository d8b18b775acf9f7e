"""How the pixels of a picture become what a network is fed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from models.model import Input
    from pipeline.data.pictures.decode import Bytes


@dataclass(frozen=True, slots=True)
class Values:
    """How pixels, 0..255, become what a network is fed: (pixel - mean) * scale.

    Attributes:
        mean: of each channel, or one for all.
        scale: likewise.
        colours: RGB, BGR or grey.
    """

    mean: tuple[float, ...] = (127.5,)
    scale: tuple[float, ...] = (1 / 127.5,)
    colours: str = "RGB"

    @classmethod
    def of(cls, end: Input) -> Values | None:
        """Return how an input says that it is fed; None if it does not."""
        if not end.mean or not end.scale:
            return None
        return cls(end.mean, end.scale, end.colours or "RGB")

    def feed(self, pixels: Bytes) -> npt.NDArray[np.float32]:
        """Return pixels (…, H, W, C), RGB or grey, as floats (…, C, H, W)."""
        ordered = pixels[..., ::-1] if self.colours == "BGR" else pixels
        mean, scale = np.array(self.mean, np.float32), np.array(self.scale, np.float32)
        return np.ascontiguousarray(np.moveaxis((ordered - mean) * scale, -1, -3))
