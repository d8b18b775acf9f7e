"""How a file's outputs compare with the network's, and with the arithmetic of its own codes.

Accuracy hardly moves where the signal-to-quantisation-noise ratio (SQNR) loses 15 dB, so SQNR is
the sharper of the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError
from pipeline.data.tasks.classification import Classification
from pipeline.formats.decibels import to_decibels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.data.task import Task

FloatArray = npt.NDArray[np.float32]

CLASSIFICATION = Classification()
"""What outputs are held to where no recipe says otherwise."""

SQNR_LOSS_DB = 2.0
"""What an int8 file may lose against its own integer arithmetic."""

EXCESS_STEPS = 1.0
"""And how much more, as a root mean square in output codes: an output of few classes, or one that
is nearly exact, moves by decibels when a single code does."""

STRAY_STEPS = 5.0
"""How far a single image may be from the integer arithmetic, beside what its own noise hides.

On 150 random networks LiteRT 2.3 and onnxruntime 1.32 stayed below 0.6, TFLite's own kernels of
2.7 to 2.14 (which round twice) below 4.7; onnxruntime's saturating ones reach 20 to 150."""

_NOISE_RATIO = 10 ** (SQNR_LOSS_DB / 20)
_HIDDEN_SHARE = math.sqrt(_NOISE_RATIO**2 - 1)
"""Noise of this share, independent of what is there, makes SQNR_LOSS_DB of it."""


@dataclass(frozen=True, slots=True)
class Integers:
    """What exact integer arithmetic makes of the codes of an int8 file.

    Attributes:
        logits: (images, classes).
        step: of the output: one code as a real number.
    """

    logits: FloatArray
    step: float


@dataclass(frozen=True, slots=True)
class BesideIntegers:
    """How a file's logits compare with its own integer arithmetic.

    Attributes:
        sqnr_db: of the integer arithmetic against the network, all images.
        typical_sqnr_db: the same of the median image.
        excess_steps: by how many output codes the file's error against the network (root mean
            square; all images and the median one, whichever is worse) exceeds that of
            the integer arithmetic with SQNR_LOSS_DB less; negative where it stays below.
        strayed: images whose logits are farther from the integer arithmetic than rounding
            explains.
        farthest_steps: the largest such distance, in output codes (root mean square of an image).
    """

    sqnr_db: float
    typical_sqnr_db: float
    excess_steps: float
    strayed: int
    farthest_steps: float

    @property
    def agrees(self) -> bool:
        """Whether the file computes what its codes mean, but for rounding."""
        return self.excess_steps <= EXCESS_STEPS and self.strayed == 0


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
        integers: of an int8 file, beside its own integer arithmetic; None if that is not known.
    """

    images: int
    max_abs_error: float
    sqnr_db: float
    typical_sqnr_db: float
    argmax_agreement: float
    accuracy: float | None = None
    integers: BesideIntegers | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verification:
        """Read what `dataclasses.asdict` gave."""
        beside = data.get("integers")
        return cls(**{**data, "integers": None if beside is None else BesideIntegers(**beside)})


def compare(
    reference: FloatArray,
    logits: FloatArray,
    labels: npt.NDArray[Any] | None = None,
    integers: Integers | None = None,
    *,
    task: Task = CLASSIFICATION,
) -> Verification:
    """Compare logits (N, classes) with reference logits of the same images, by a task's measure.

    Raises:
        ConfigError: shapes differ or there are no images.
    """
    if reference.shape != logits.shape or reference.ndim != 2 or not len(reference):
        raise ConfigError(
            f"logits of shape {logits.shape} cannot be compared with {reference.shape}; both "
            "must be (images, classes) of the same images"
        )
    sqnr_db, typical_sqnr_db = _sqnr_db(reference, logits)
    return Verification(
        images=len(reference),
        max_abs_error=float(np.abs(np.subtract(logits, reference, dtype=np.float64)).max()),
        sqnr_db=sqnr_db,
        typical_sqnr_db=typical_sqnr_db,
        argmax_agreement=task.agreement(logits, reference),
        accuracy=None if labels is None else task.score(logits, labels),
        integers=None if integers is None else _beside(integers, reference, logits),
    )


def _beside(integers: Integers, reference: FloatArray, logits: FloatArray) -> BesideIntegers:
    exact, step = integers.logits, integers.step
    own, noise = _rms_steps(logits - reference, step), _rms_steps(exact - reference, step)
    distance, typical = _rms_steps(logits - exact, step), float(np.median(noise))
    sqnr_db, typical_sqnr_db = _sqnr_db(reference, exact)
    allowed = STRAY_STEPS + _HIDDEN_SHARE * np.maximum(noise, typical)
    return BesideIntegers(
        sqnr_db=sqnr_db,
        typical_sqnr_db=typical_sqnr_db,
        excess_steps=max(
            float(np.median(own)) - _NOISE_RATIO * typical,
            _rms(own) - _NOISE_RATIO * _rms(noise),
        ),
        strayed=int(np.sum(~(distance <= allowed))),
        farthest_steps=float(distance.max()),
    )


def _rms_steps(difference: FloatArray, step: float) -> npt.NDArray[np.float64]:
    """Return each image's root mean square in output codes."""
    squares = np.square(difference.astype(np.float64)).mean(axis=1)
    steps: npt.NDArray[np.float64] = np.sqrt(squares) / step
    return steps


def _rms(values: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _sqnr_db(reference: FloatArray, logits: FloatArray) -> tuple[float, float]:
    """Return the SQNR over all images and that of the median image."""
    truth, error = reference.astype(np.float64), np.subtract(logits, reference, dtype=np.float64)
    signal, noise = (np.square(values).sum(axis=1) for values in (truth, error))
    per_image = [_decibels(s, n) for s, n in zip(signal.tolist(), noise.tolist(), strict=True)]
    return _decibels(float(signal.sum()), float(noise.sum())), float(np.median(per_image))


def _decibels(signal: float, noise: float) -> float:
    """Return decibels of which one that is no number is the worst of a median, not all of it."""
    found = to_decibels(signal, noise)
    return -math.inf if math.isnan(found) else found
