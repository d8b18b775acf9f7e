"""What the parts of `bench_compress` share: what they are asked, and how two networks compare."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.figures import Figure

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

NOT_MEASURED = "not measured"
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Asked:
    """What a part is given.

    Attributes:
        data: the folder that holds `cifar10_jpeg`.
        work: the folder that the trained networks lie in (`_compress_bases.find`).
        folder: for the files of this run; empty at first, gone afterwards.
        quick: whether the run is to be short, with little training or none.
        peers: whether peers are to be installed and run.
        nets: names of the networks that are tried; None for all of a part.
        seeds: trainings of each network at most; None for as many as the part asks for.
    """

    data: Path
    work: Path
    folder: Path
    quick: bool = False
    peers: bool = True
    nets: tuple[str, ...] | None = None
    seeds: int | None = None


def unmeasured(what: str, why: str, bar: str) -> Figure:
    """Return a figure that there is none of: it is neither met nor missed."""
    return Figure(what, NOT_MEASURED, why, bar, met=None)


def count(figures: list[Figure]) -> str:
    """Say how many figures meet their bar, miss it, or have not been measured."""
    met = sum(figure.met is True for figure in figures)
    missed = sum(figure.met is False for figure in figures)
    without = sum(figure.ours == NOT_MEASURED for figure in figures)
    return f"{met} met, {missed} missed, {without} not measured"


@dataclass(frozen=True, slots=True)
class Gain:
    """Mean accuracy of the first of two ways less that of the second, in points.

    Attributes:
        points: the mean over seeds and images.
        low: of the 95 % interval.
        high: likewise.
        seeds: pairs of networks.
        images: on which each was tried.
    """

    points: float
    low: float
    high: float
    seeds: int
    images: int

    @classmethod
    def of(cls, first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Gain:
        """Compare what the networks of two ways name rightly, (seeds, images) each.

        Every seed sees the same images, so that an image counts once: with its mean over seeds. The
        interval is of another draw of images, by the normal law; what another draw of seeds would
        give is not in it.
        """
        if first.shape != second.shape or first.ndim != 2 or first.shape[1] < 2 or not len(first):
            raise ValueError(f"no pairs: {first.shape} and {second.shape} answers")
        of_image = (first.astype(float) - second.astype(float)).mean(0)
        half = _Z95 * float(of_image.std(ddof=1)) / math.sqrt(first.shape[1])
        points = float(of_image.mean())
        return cls(100 * points, 100 * (points - half), 100 * (points + half), *first.shape)

    def __str__(self) -> str:
        """Return the figure with its interval."""
        return f"{self.points:+.2f} ({self.low:+.2f} to {self.high:+.2f})"
