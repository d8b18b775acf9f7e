"""onnx-simplifier with a check that it changed nothing.

Simplifiers have crashed on, and silently damaged, published networks (onnxsim issues 91, 187,
360), so every result is run beside the original before it is used.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxsim
from onnx import numpy_helper

from device_agents.errors import VerificationError
from pipeline.formats.generated_inputs import generate_inputs
from pipeline.formats.onnx.describe import describe_onnx
from pipeline.formats.onnx.run import open_session, run_session

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy.typing as npt

    from pipeline.formats.ends import Arrays

TOLERANCE = 1e-4
"""Of float outputs, relative to the largest; simplifying must not touch integer arithmetic."""

_IMAGES = 2
_SEED = 20_240_229


def simplify(content: bytes) -> bytes:
    """Return the simplified file.

    Raises:
        VerificationError: onnx-simplifier failed, or the file computes something else, or lost its
            int8 weights.
    """
    # One after the other and let go at once: of a large network each is as large as its weights.
    original = onnx.load_model_from_string(content)
    before = _stored_codes(original)
    try:
        simplified, _ = onnxsim.simplify(original)
    except Exception as error:  # its own, and those of its compiled code
        raise VerificationError(f"onnx-simplifier fails on the file: {error}") from error
    del original
    after = _stored_codes(simplified)
    result: bytes = simplified.SerializeToString(deterministic=True)
    del simplified
    if before != after:
        raise VerificationError(
            "onnx-simplifier folded or changed quantised constants of the file: "
            f"{before.total()} uses were of stored integers before, {after.total()} after"
        )
    _compare(content, result)
    return result


def _stored_codes(model: onnx.ModelProto) -> Counter[tuple[Hashable, ...]]:
    """Return how often each weight, bias and constant that is stored as integer codes is used.

    By content (codes, scale and zero point, type, shape and axis) and by what it is an input of:
    equal constants (of two gates, say) may well be merged into one.
    """
    dequantized = {
        name
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        for name in node.input
    }
    stored = {
        item.name: _content(item) for item in model.graph.initializer if item.name in dequantized
    }
    uses: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            uses[name].append((node.op_type, place))
    found: Counter[tuple[Hashable, ...]] = Counter()
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            contents = tuple(stored.get(name, name) for name in node.input)
            axes = tuple(attribute.i for attribute in node.attribute if attribute.name == "axis")
            found.update((*contents, axes, use) for use in uses[node.output[0]])
    return found


def _content(item: onnx.TensorProto) -> tuple[Hashable, ...]:
    values = numpy_helper.to_array(item)
    return (item.data_type, values.shape, values.tobytes())


def _compare(before: bytes, after: bytes) -> None:
    given = generate_inputs(describe_onnx(before), count=_IMAGES, seed=_SEED)
    for first, second in zip(_outputs(before, given), _outputs(after, given), strict=True):
        error, largest = _differ(first, second)
        limit = TOLERANCE * max(1.0, largest)
        if not error <= limit:
            raise VerificationError(
                "onnx-simplifier changed what the file computes: outputs differ by "
                f"{error:.3g}, allowed {limit:.3g}"
            )


def _outputs(content: bytes, given: Arrays) -> list[npt.NDArray[Any]]:
    """Return every output of every sample."""
    runtime = open_session(content)
    found = []
    for place in range(_IMAGES):
        feeds = {name: values[place, ...] for name, values in given.items()}
        found += run_session(runtime, feeds)
    return found


def _differ(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the largest difference, and the largest finite value.

    What random inputs make infinite, or no number, must be so in both.
    """
    # A single number is an array of one, for what is equal to be written into it.
    a, b = (np.atleast_1d(values).astype(np.float64) for values in (first, second))
    with np.errstate(invalid="ignore"):
        apart = np.abs(a - b)
    apart[(a == b) | (np.isnan(a) & np.isnan(b))] = 0
    largest = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    return float(apart.max(initial=0.0)), float(largest)
