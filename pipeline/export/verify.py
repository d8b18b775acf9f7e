"""Does an exported file compute what the network computes? Run it in its own runtime and compare.

Integer kernels differ between runtimes by a few codes, so an int8 file is judged by its
signal-to-quantisation-noise ratio (SQNR) and by how often it names the same class, never by
equality. Accuracy hardly moves where SQNR loses 15 dB, so SQNR is the sharper of the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError, VerificationError
from device_agents.model_files import check_suffix, read
from pipeline.export import FORMATS, create
from pipeline.export.apart import run_apart
from pipeline.export.api import artifact_io as format_io

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.export.api import ArtifactIO, Exporter

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Verification:
    """How a file's logits compare with the network's.

    Attributes:
        images: how many were compared.
        max_abs_error: largest difference of a logit.
        sqnr_db: 10 log10 of the power of the reference over that of the difference, all images;
            infinite for equal outputs.
        typical_sqnr_db: the same of the median image: what the limits look at, because the sum
            is ruled by a single image with activations beyond all that were calibrated.
        argmax_agreement: share of images with the same class, 0..1.
        accuracy: of the file, 0..1; None without labels.
    """

    images: int
    max_abs_error: float
    sqnr_db: float
    typical_sqnr_db: float
    argmax_agreement: float
    accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file must reach, by scheme."""

    typical_sqnr_db: float
    argmax_agreement: float


LIMITS = {
    # Float files reach 80 to 130 dB: anything below 60 is a wrong constant, not rounding.
    "float32": Limits(60.0, 0.99),
    # Small trained nets reach 20 to 35 dB; bad calibration ends at 14.
    "static8": Limits(10.0, 0.9),
}


def exporter_of(path: Path) -> Exporter:
    """Return the exporter whose files end like this one.

    Raises:
        ConfigError: no format has that suffix; lists those known.
    """
    exporters = [create(name) for name in FORMATS.names()]
    for exporter in exporters:
        if path.suffix == exporter.suffix:
            return exporter
    known = ", ".join(exporter.suffix for exporter in exporters)
    raise ConfigError(f"{path.name!r} has no known suffix; known: {known}")


def artifact_io(path: Path) -> ArtifactIO:
    """Read how a file takes images and gives logits.

    Raises:
        ConfigError: no such file, or not of the format that its suffix names.
    """
    exporter = exporter_of(path)
    file = read(path)
    check_suffix(file)
    try:
        return format_io(exporter.layout, file.inputs or (), file.outputs or ())
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def run_artifact(path: Path, images: FloatArray, *, apart: bool = False) -> FloatArray:
    """Run images (N, C, H, W) through a file in its own runtime; return logits (N, classes).

    `apart` is for a file that was not written by this process: it is run in one of its own.
    """
    exporter, io = exporter_of(path), artifact_io(path)
    samples = io.pack(images)
    raw = run_apart(path, exporter.name, samples) if apart else exporter.run(path, samples)
    return io.unpack(raw)


def compare(
    reference: FloatArray, logits: FloatArray, labels: npt.NDArray[Any] | None = None
) -> Verification:
    """Compare logits (N, classes) with reference logits of the same images.

    Raises:
        ConfigError: shapes differ or there are no images.
    """
    if reference.shape != logits.shape or reference.ndim != 2 or not len(reference):
        raise ConfigError(
            f"logits of shape {logits.shape} cannot be compared with {reference.shape}; both "
            "must be (images, classes) of the same images"
        )
    truth, error = reference.astype(np.float64), np.subtract(logits, reference, dtype=np.float64)
    signal, noise = (np.square(values).sum(axis=1) for values in (truth, error))
    per_image = [_decibels(s, n) for s, n in zip(signal.tolist(), noise.tolist(), strict=True)]
    classes = logits.argmax(1)
    return Verification(
        images=len(reference),
        max_abs_error=float(np.abs(error).max()),
        sqnr_db=_decibels(float(signal.sum()), float(noise.sum())),
        typical_sqnr_db=float(np.median(per_image)),
        argmax_agreement=float(np.mean(classes == reference.argmax(1))),
        accuracy=None if labels is None else float(np.mean(classes == labels)),
    )


def verify(
    path: Path,
    images: FloatArray,
    reference: FloatArray,
    *,
    scheme: str,
    labels: npt.NDArray[Any] | None = None,
) -> Verification:
    """Run a file in its own runtime on the host and hold it against the network's logits.

    Args:
        path: the exported file.
        images: (N, C, H, W) float32.
        reference: (N, classes), the network's logits of these images.
        scheme: float32 | static8: decides the limits.
        labels: (N,) true classes, for the file's accuracy.

    Raises:
        VerificationError: it misses a limit; one sentence with the figures.
        ConfigError: unknown scheme, or a file that cannot be read or loaded.
    """
    if scheme not in LIMITS:
        raise ConfigError(f"scheme {scheme!r} has no limits; known: {', '.join(LIMITS)}")
    found = compare(reference, run_artifact(path, images), labels)
    check(found, scheme, path.name)
    return found


def check(found: Verification, scheme: str, name: str) -> None:
    """Hold figures against the scheme's limits. Raises VerificationError with all of them."""
    limits = LIMITS[scheme]
    # Written so that NaN, which compares false with everything, fails.
    precise = found.typical_sqnr_db >= limits.typical_sqnr_db
    if precise and found.argmax_agreement >= limits.argmax_agreement:
        return
    raise VerificationError(
        f"{name} ({scheme}) does not compute what the network computes: on {found.images} images "
        f"the median SQNR is {found.typical_sqnr_db:.1f} dB (at least "
        f"{limits.typical_sqnr_db:g}), the class agrees on "
        f"{found.argmax_agreement:.1%} (at least {limits.argmax_agreement:.0%}), the largest "
        f"error is {found.max_abs_error:.3g}"
    )


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    if not math.isfinite(noise):  # of a file that overflows
        return -math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
