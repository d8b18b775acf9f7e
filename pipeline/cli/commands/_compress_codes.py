"""What the int8 file that `edgewright compress` wrote gives on the device, code by code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.cli.commands._verify_files import open_file

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.cli.commands._compress_device import Timing
    from pipeline.formats.ends import Array
    from pipeline.formats.subjects import Subject
    from pipeline.measure.codes import CodesBeside

_SAMPLES = 8


def compare_there(
    timing: Timing, file: Path, samples: tuple[Subject, dict[str, Array]]
) -> CodesBeside | None:
    """Hold the codes of a file's outputs on a device against exact integers, on a few samples.

    Args:
        timing: names the device.
        file: that was written.
        samples: inputs (N, *shape), and whose they are.

    Returns:
        None where no output of the file is made of codes, or samples cannot be put together.

    Raises:
        DeviceError: the device cannot be reached, or cannot run it.
    """
    from pipeline.compress.passes.ptq import spread_rows
    from pipeline.formats.api import ReadOptions, Unsupported
    from pipeline.formats.pairing import move_inputs
    from pipeline.formats.source import read_model
    from pipeline.measure.codes import compare_codes, has_codes

    model = read_model(str(file), ReadOptions())
    if isinstance(model, Unsupported) or not has_codes(model):
        return None
    if any(tensor.shape[:1] != (1,) for tensor in model.graph.inputs):
        return None
    subject, judged = samples
    few = {name: values[spread_rows(len(values), _SAMPLES)] for name, values in judged.items()}
    with open_file(str(file), ReadOptions(), timing.profile.name) as there:
        return compare_codes(model, there, there, move_inputs(subject.ends, there.ends, few))
