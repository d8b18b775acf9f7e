"""Does an exported file compute what the network computes? Run it in its own runtime and compare.

A float32 file is held against the network's logits. An int8 file is held against two things: its
own integer arithmetic (`models.integer`, with the scales that the file holds), which a
good file and good kernels follow to within rounding, and the network, from which that arithmetic
itself differs by what quantisation costs. The first is the file's or the runtime's fault, the
second is not, and the sentences say which it is. Accuracy hardly moves where the
signal-to-quantisation-noise ratio (SQNR) loses 15 dB, so SQNR is the sharper of the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError, VerificationError
from device_agents.model_files import check_suffix, read
from models.integer import integer_logits
from models.number_format import FLOAT32, STATIC8
from models.quantization import CODE_MAX, CODE_MIN, QuantizationError
from pipeline.data.tasks.classification import Classification
from pipeline.formats import FORMATS, create
from pipeline.formats.apart import run_apart
from pipeline.formats.api import artifact_io as format_io

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from models.model import Model
    from models.number_format import NumberFormat
    from models.quantization import QParams
    from pipeline.data.task import Task
    from pipeline.formats.api import ArtifactIO, Format

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


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file must reach against the network, by number format."""

    typical_sqnr_db: float
    argmax_agreement: float


LIMITS = {
    # Float files reach 80 to 130 dB: anything below 60 is a wrong constant, not rounding.
    FLOAT32: Limits(60.0, 0.99),
    # Small trained nets reach 20 to 35 dB; bad calibration ends at 14.
    STATIC8: Limits(10.0, 0.9),
}


def format_of(path: Path) -> Format:
    """Return the format whose files end like this one.

    Raises:
        ConfigError: no format has that suffix; lists those known.
    """
    formats = [create(name) for name in FORMATS.names()]
    for format_ in formats:
        if path.suffix == format_.suffix:
            return format_
    known = ", ".join(format_.suffix for format_ in formats)
    raise ConfigError(f"{path.name!r} has no known suffix; known: {known}")


def artifact_io(path: Path) -> ArtifactIO:
    """Read how a file takes images and gives logits.

    Raises:
        ConfigError: no such file, or not of the format that its suffix names.
    """
    format_ = format_of(path)
    file = read(path)
    check_suffix(file)
    try:
        return format_io(format_.layout, file.inputs or (), file.outputs or ())
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def run_artifact(path: Path, images: FloatArray, *, apart: bool = False) -> FloatArray:
    """Run images (N, C, H, W) through a file in its own runtime; return logits (N, classes).

    `apart` is for a file that was not written by this process: it is run in one of its own, with
    the settings of a device.
    """
    format_, io = format_of(path), artifact_io(path)
    samples = io.pack(images)
    raw = run_apart(path, format_.name, samples) if apart else format_.run(path, samples)
    return io.unpack(raw)


def run_content(
    format_: Format, content: bytes, images: FloatArray, *, as_deployed: bool = False
) -> FloatArray:
    """Do what `run_artifact` does with a file's content; `as_deployed` is of `Format.run`."""
    io = format_.describe(content)
    return io.unpack(format_.run(content, io.pack(images), as_deployed=as_deployed))


def integers_of(
    format_: Format, content: bytes, model: Model, images: FloatArray
) -> Integers | None:
    """Run images through the integer arithmetic of an int8 file.

    The scales of activations are read from the file, the weights are the model's: a file with
    other codes than those of the model is found out.

    Args:
        format_: the file's.
        content: the file's.
        model: that it was written from; its own scales are not looked at.
        images: (N, C, H, W) float32.

    Returns:
        None for a file without the scales of the network's tensors under edgewright's names:
        float32, or written by another program.

    Raises:
        VerificationError: the network's weights cannot have the file's scales.
    """
    try:
        quantization = format_.read_quantization(content, model.graph)
    except Exception:  # noqa: BLE001  # of a file that may hold anything, although it runs
        return None
    if quantization is None or not all(map(_possible, quantization.tensors.values())):
        return None
    try:
        logits = integer_logits(replace(model, quantization=quantization), images)
    except QuantizationError as error:
        raise VerificationError(
            f"the file was written from another network, or calibrated with other weights: {error}"
        ) from error
    return Integers(logits, quantization[model.graph.output.name].scale)


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


def write_verified(
    format_: Format,
    name: str,
    model: Model,
    images: FloatArray,
    reference: FloatArray,
    labels: npt.NDArray[Any] | None = None,
    *,
    task: Task = CLASSIFICATION,
) -> tuple[bytes, Verification]:
    """Write a model and hold the file against it in its own runtime, before anyone sees it.

    Args:
        format_: of the file.
        name: of the file, for the sentences.
        model: what to write.
        images: (N, C, H, W) float32.
        reference: (N, classes), the network's logits of these images.
        labels: (N,) true classes, for the file's accuracy.
        task: what says how accurate it is, and how far it agrees.

    Returns:
        The file's content and how it compares.

    Raises:
        ExportError: the format cannot express an op.
        VerificationError: it misses a limit; one sentence with the figures.
    """
    content, quantization = format_.write(model), model.quantization
    integers = None
    if quantization is not None:
        found = format_.read_quantization(content, model.graph)
        if found is None or dict(found.tensors) != {
            tensor: quantization[tensor] for tensor in found.tensors
        }:
            raise VerificationError(
                f"{name} does not hold the scales that it was to be written with: the writer or "
                "onnx-simplifier changed them"
            )
        integers = integers_of(format_, content, model, images)
    outputs = run_content(format_, content, images)
    verification = compare(reference, outputs, labels, integers, task=task)
    check(verification, model.number_format, name)
    return content, verification


def check(found: Verification, number_format: NumberFormat, name: str) -> None:
    """Hold figures against the number format's limits. Raises VerificationError with all of them.

    Comparisons are written so that NaN, which compares false with everything, fails.
    """
    limits, beside = LIMITS[number_format], found.integers
    if beside is not None and not beside.agrees:
        raise VerificationError(
            f"{name} ({number_format}) does not compute what its codes mean: on {found.images} "
            f"images its SQNR to the network is {found.sqnr_db:.1f} dB (median image "
            f"{found.typical_sqnr_db:.1f}), that of exact integer arithmetic with the same codes "
            f"{beside.sqnr_db:.1f} dB ({beside.typical_sqnr_db:.1f}; {SQNR_LOSS_DB:g} less are "
            f"allowed); {beside.strayed} images lie farther from it than rounding explains, the "
            f"worst by {beside.farthest_steps:.1f} steps of the output; the file or this runtime's "
            "kernels are at fault, not the quantisation"
        )
    precise = found.typical_sqnr_db >= limits.typical_sqnr_db
    if precise and found.argmax_agreement >= limits.argmax_agreement:
        return
    cause = (
        ""
        if beside is None
        else (
            f"; exact integer arithmetic with the same codes reaches {beside.typical_sqnr_db:.1f} "
            "dB, so the file is right and int8 costs this network too much: calibrate on more "
            "images (quantize.calibration_images), or use float32"
        )
    )
    raise VerificationError(
        f"{name} ({number_format}) does not compute what the network computes: on {found.images} "
        f"images the median SQNR is {found.typical_sqnr_db:.1f} dB (at least "
        f"{limits.typical_sqnr_db:g}), the class agrees on "
        f"{found.argmax_agreement:.1%} (at least {limits.argmax_agreement:.0%}), the largest "
        f"error is {found.max_abs_error:.3g}{cause}"
    )


def _possible(params: QParams) -> bool:
    return 0 < params.scale < math.inf and CODE_MIN <= params.zero_point <= CODE_MAX


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
    if noise == 0:
        return math.inf
    ratio = signal / noise
    # Of a file that overflows the noise is infinite or no number, and the ratio 0 or none.
    return 10 * math.log10(ratio) if ratio > 0 else -math.inf
