"""Does an exported file compute what the network computes? Run it in its own runtime and compare.

A float32 file is held against the network's logits. An int8 file is held against two things: its
own integer arithmetic (`models.integer`, with the scales that the file holds), which a
good file and good kernels follow to within rounding, and the network, from which that arithmetic
itself differs by what quantisation costs. The first is the file's or the runtime's fault, the
second is not, and the sentences say which it is (`pipeline.formats.limits`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from device_agents.errors import VerificationError
from models.codes import CODE_MAX, CODE_MIN, QuantizationError
from models.integer import integer_logits
from pipeline.formats.figures import CLASSIFICATION, Integers, compare
from pipeline.formats.files import run_content
from pipeline.formats.limits import check

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from models.codes import QParams
    from models.model import Model
    from models.number_format import NumberFormat
    from pipeline.data.task import Task
    from pipeline.formats.api import Format
    from pipeline.formats.figures import FloatArray, Verification


def compute_integers(
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
        float32, or written by another program; and for one whose output is real.

    Raises:
        VerificationError: the network's weights cannot have the file's scales.
    """
    try:
        quantization = format_.read_quantization(content, model.graph)
    except Exception:  # noqa: BLE001  # of a file that may hold anything, although it runs
        return None
    if quantization is None or not all(map(_possible, quantization.tensors.values())):
        return None
    result = quantization.tensors.get(model.graph.output.name)
    if result is None:
        return None
    try:
        logits = integer_logits(replace(model, quantization=quantization), images)
    except QuantizationError as error:
        raise VerificationError(
            f"the file was written from another network, or calibrated with other weights: {error}"
        ) from error
    return Integers(logits, result.scale)


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
    if quantization is not None and quantization.tensors:
        found = format_.read_quantization(content, model.graph)
        if found is None or dict(found.tensors) != {
            tensor: quantization[tensor] for tensor in found.tensors
        }:
            raise VerificationError(
                f"{name} does not hold the scales that it was to be written with: the writer or "
                "onnx-simplifier changed them"
            )
        integers = compute_integers(format_, content, model, images)
    outputs = run_content(format_, content, images)
    verification = compare(reference, outputs, labels, integers, task=task)
    check(verification, model.number_format, name)
    return content, verification


def verify_outputs(
    name: str,
    number_format: NumberFormat,
    reference: Mapping[str, FloatArray],
    outputs: Mapping[str, FloatArray],
) -> Verification:
    """Hold the outputs of a converted file against those of the model that it was made of.

    Args:
        name: of the file, for the sentences.
        number_format: the file's.
        reference: the model's outputs by name, (N, …, classes): each place of a map counts.
        outputs: the file's, of the same inputs.

    Returns:
        How the output that compares worst does.

    Raises:
        VerificationError: an output is missing, has another shape, or misses a limit.
    """
    shapes = [{key: value.shape for key, value in of.items()} for of in (reference, outputs)]
    if shapes[0] != shapes[1]:
        raise VerificationError(
            f"{name} gives outputs of the shapes {shapes[1]}, and the model that it was made of "
            f"{shapes[0]}"
        )
    found: list[Verification] = []
    for key, value in reference.items():
        subject = name if len(reference) == 1 else f"{name}: output {key!r}"
        by_place = compare(_rows(value), _rows(outputs[key]))
        found.append(replace(by_place, images=len(value)))
        check(found[-1], number_format, subject)
    return min(found, key=lambda verification: verification.typical_sqnr_db)


def _rows(outputs: FloatArray) -> FloatArray:
    """Bring (N, …, classes) into (N, classes), or for a map into (places, classes)."""
    classes = outputs.shape[-1] if outputs.ndim > 1 else 1
    return outputs.reshape(-1, classes)


def _possible(params: QParams) -> bool:
    return 0 < params.scale < math.inf and CODE_MIN <= params.zero_point <= CODE_MAX
