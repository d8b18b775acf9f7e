"""A model of any kind as a file of another format, checked before anyone sees it.

The file is run in its runtime, in a process of its own, and compared with what it came from: the
user's own file in its own runtime where that has one, else the graph. Codes are held against their
integer arithmetic besides, as those of our own networks are (`pipeline.formats.verify`). A file
that fails never stands under its name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from device_agents import bounded
from device_agents.errors import ConfigError, VerificationError
from models.integer import integer_reals
from pipeline.formats.beside import Beside, check_files, compare_files
from pipeline.formats.figures import EXCESS_STEPS, Integers, compare
from pipeline.formats.files import describe_file, find_format
from pipeline.formats.pairing import pair_files
from pipeline.formats.placing import place_file
from pipeline.formats.subjects import FileSubject, ModelSubject, Remembered
from pipeline.formats.trace import describe_first_difference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from models.model import Model
    from pipeline.formats.api import Format
    from pipeline.formats.ends import Array, Arrays
    from pipeline.formats.subjects import Subject


@dataclass(frozen=True, slots=True)
class Checked:
    """A file that has been written and checked.

    Attributes:
        path: where it stands.
        beside: how it compares with what it came from.
    """

    path: Path
    beside: Beside


def write_checked(
    format_: Format, model: Model, target: Path, source: Subject, inputs: Arrays
) -> Checked:
    """Write a model to a file, hold the file against its source, and only then name it.

    Args:
        format_: of the file.
        model: what to write.
        target: its path.
        source: what it came from: a file in its runtime, or the model itself.
        inputs: by the source's names, (N, *shape) each.

    Raises:
        ExportError: the format cannot express an op.
        QuantizationError: a tensor without parameters.
        VerificationError: it computes something else; names the output, and the first tensor.
    """
    content = format_.write(model)
    with place_file(target) as temporary:
        temporary.write_bytes(content)
        file = Remembered(_subject(temporary))
        found, _, _ = compare_files((source.ends, file.ends), inputs, source.run, file.run)
        names = (source.name, target.name)
        try:
            written = _as_written(format_, content, model)
            _check_codes(target.name, written, file, source, inputs)
            check_files(found, [source.numbers, file.numbers], names)
        except VerificationError as error:
            blame = _blame(format_, model, source, inputs)
            raise VerificationError(f"{error}{blame}") from error
    return Checked(target, found)


def graph_inputs(model: Model, source: Subject, inputs: Arrays) -> dict[str, Array]:
    """Return inputs of a source as those of the graph: by its names, N samples in place of 1.

    Raises:
        ConfigError: the source's ends are not the model's.
    """
    pairs = pair_files(source.ends, ModelSubject("", model).ends)[0].inputs
    names = {end.name: tensor for tensor, end in zip(model.graph.inputs, model.inputs, strict=True)}
    found = {}
    for pair in pairs:
        values = pair.move(inputs[pair.first])
        tensor = names[pair.second]
        if tensor.shape[:1] != (1,):
            raise ConfigError(
                f"the input {pair.second!r} has no batch dimension of 1 but the shape "
                f"{tensor.shape}; samples cannot be put together"
            )
        found[tensor.name] = values.reshape(len(values), *tensor.shape[1:])
    return found


def _as_written(format_: Format, content: bytes, model: Model) -> Model:
    """Return a model with a scale for each output of its dense layers, or one, as its file has."""
    if model.quantization is None:
        return model
    found = format_.read_quantization(content, model.graph)
    if found is None:
        return model
    held = replace(model.quantization, dense_per_output=found.dense_per_output)
    return replace(model, quantization=held)


def _check_codes(name: str, model: Model, file: Subject, source: Subject, inputs: Arrays) -> None:
    """Hold the outputs of a file of codes, called `name`, against exact integer arithmetic."""
    quantization = model.quantization
    if quantization is None or not quantization.number_format.is_static:
        return
    given = graph_inputs(model, source, inputs)
    exact, coded = integer_reals(model, given), quantization.made_as_codes(model.graph)
    ours = ModelSubject(source.name, model)
    _, reals, codes = compare_files(
        (ours.ends, file.ends), as_file(ours, given), ours.run, file.run
    )
    for made, end in zip(model.graph.outputs, model.outputs, strict=True):
        if made not in coded:
            continue
        real = _rows(exact[made])
        found = compare(
            _rows(reals[end.name]),
            _rows(codes[end.name]),
            integers=Integers(real, quantization[made].scale),
        )
        beside = found.integers
        # A single sample may stray: where a hundred ops each round otherwise, near ties turn over.
        if beside is not None and not beside.excess_steps <= EXCESS_STEPS:
            raise VerificationError(
                f"{name} does not compute what its codes mean: its output {end.name!r} has "
                f"{found.sqnr_db:.1f} dB SQNR to the float model, and exact integer arithmetic "
                f"with the same codes {beside.sqnr_db:.1f} dB; the file or this runtime's kernels "
                "are at fault, not the quantisation"
            )


def as_file(ours: ModelSubject, given: Mapping[str, Array]) -> dict[str, Array]:
    """Return inputs of a graph by their names in files, with the batch dimension of 1."""
    pairs = zip(ours.model.graph.inputs, ours.model.inputs, strict=True)
    return {end.name: given[tensor.name][:, None] for tensor, end in pairs}


def _rows(values: Array) -> Array:
    return values.reshape(len(values), -1)


def _blame(format_: Format, model: Model, source: Subject, inputs: Arrays) -> str:
    """Return the end of a sentence that names the first tensor that differs, if there is one."""
    scales = model.quantization
    if scales is not None and not scales.number_format.is_static:
        return ""
    ends = pair_files(source.ends, ModelSubject("", model).ends)[0].inputs
    names = {end.name: tensor for tensor, end in zip(model.graph.inputs, model.inputs, strict=True)}
    sample = {names[pair.second].name: pair.move(inputs[pair.first][:1])[0] for pair in ends}
    return describe_first_difference(format_, model, sample)


def _subject(path: Path) -> FileSubject:
    numbers = find_format(path).read_numbers(bounded.read_bytes(path))
    # What is asked is whether the file is right, not whether this computer's kernels are: a file
    # for an ARM may have codes that saturate here.
    return FileSubject(path, describe_file(path), numbers, as_deployed=False)
