"""What a deployed int8 file gives there, code by code: told beside the comparison that decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_agents.errors import DeviceError, EdgewrightError, VerificationError
from models.cost import cost
from pipeline.formats.api import ReadOptions, Unsupported
from pipeline.formats.generated_inputs import generate_pair
from pipeline.formats.numbers import numbers_of
from pipeline.formats.source import read_model
from pipeline.formats.subjects import find_runnable
from pipeline.measure.codes import check_codes, compare_codes, has_codes
from pipeline.measure.device_subject import DeviceSubject

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from device_agents.runner import Device
    from models.model import Model
    from pipeline.formats.ends import Arrays
    from pipeline.formats.subjects import FileSubject

_SAMPLES = 4
_MOST_MACS = 1 << 29
"""Of a sample: exact integers of more would take longer here than the deployment."""


def tell_codes(
    device: Device,
    path: Path,
    *,
    runtime: str,
    shapes: Mapping[str, tuple[int, ...]],
    inputs: Arrays | None,
) -> str:
    """Return how a file's codes on a device compare with exact integers, in a clause.

    Nothing is refused for it: whether a file computes there what it computes here has been decided
    (`pipeline.measure.output_check`), and kernels that are known to saturate are told of.

    Args:
        device: where the file is.
        path: the file here.
        runtime: of the agent.
        shapes: of inputs that the file leaves open.
        inputs: (N, *shape) by name, in real numbers; None: they are generated.

    Returns:
        Empty for a file whose outputs are no codes, that our graph cannot say, or that is large;
        why it is not known, where the device did not answer.
    """
    try:
        model, file = _held(path, ReadOptions(dict(shapes)))
        if model is None or file is None:
            return ""
        there = DeviceSubject(file, device, runtime, shapes)
        given = generate_pair(file.ends, file.ends) if inputs is None else inputs
        few = {name: values[:_SAMPLES] for name, values in given.items()}
        found = compare_codes(model, there, there, few)
    except DeviceError as error:
        return f"not known: {error}"
    except EdgewrightError:
        return ""
    try:
        check_codes(found, path.name, f"on device {device.name!r}")
    except VerificationError:
        return f"{found.words}: more than rounding explains"
    return found.words


def _held(path: Path, options: ReadOptions) -> tuple[Model | None, FileSubject | None]:
    """Return what an int8 file holds, and the file; None where it is not to be told of."""
    if numbers_of(path) != "integers":
        return None, None
    model, file = read_model(str(path), options), find_runnable(str(path), options)
    if isinstance(model, Unsupported) or not has_codes(model):
        return None, None
    return (model if cost(model.graph).macs <= _MOST_MACS else None), file
