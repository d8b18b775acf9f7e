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
from models.integer import integer_logits
from models.quantization import CODE_MAX, CODE_MIN, QuantizationError
from pipeline.formats.figures import CLASSIFICATION, Integers, compare
from pipeline.formats.files import run_content
from pipeline.formats.limits import check

if TYPE_CHECKING:
    import numpy.typing as npt

    from models.model import Model
    from models.quantization import QParams
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
        integers = compute_integers(format_, content, model, images)
    outputs = run_content(format_, content, images)
    verification = compare(reference, outputs, labels, integers, task=task)
    check(verification, model.number_format, name)
    return content, verification


def _possible(params: QParams) -> bool:
    return 0 < params.scale < math.inf and CODE_MIN <= params.zero_point <= CODE_MAX
