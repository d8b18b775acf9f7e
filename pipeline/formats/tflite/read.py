"""Reads a TFLite file, whoever wrote it, into our graph.

Every op of the file is read by a function of its family. One that cannot be said is kept by name,
and reading goes on with what the file says of its output, so that all of them are found at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from device_agents import bounded, model_files
from device_agents.errors import ConfigError
from device_agents.model_files.flatbuffer import DamagedError
from device_agents.plain_text import plain
from models.graph import GraphError
from models.model import Input, Model, Output
from models.ops import FLOAT, Reshape
from pipeline.formats.api import NO_SHAPES, UnknownOp, Unsupported
from pipeline.formats.code_readers import with_codes_read, without_copies
from pipeline.formats.tflite.file import parse
from pipeline.formats.tflite.labels import read_labels
from pipeline.formats.tflite.read_arithmetic import ARITHMETIC
from pipeline.formats.tflite.read_known import KNOWN
from pipeline.formats.tflite.read_layers import LAYERS
from pipeline.formats.tflite.read_quantization import quantization_of
from pipeline.formats.tflite.read_reducing import REDUCING
from pipeline.formats.tflite.read_shaping import SHAPING
from pipeline.formats.tflite.read_slicing import SLICING
from pipeline.formats.tflite.reading import Reading
from pipeline.formats.tflite.values import UnknownError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.graph import Graph
    from models.ops import Shape
    from pipeline.formats.tflite.file import File, FileOp

_READERS: Mapping[str, Callable[[Reading, FileOp], None]] = {
    **LAYERS,
    **ARITHMETIC,
    **REDUCING,
    **SHAPING,
    **SLICING,
    **KNOWN,
}
_NO_NAME = "the file"
_WHY_CHARS = 300
_PLACE_CHARS = 200
_INPUT_DTYPES = ("float32", "int32", "int64", "bool", "int8", "uint8")


def read_tflite(
    source: bytes | Path, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES
) -> Model | Unsupported:
    """Read a file; its quantised tensors are real numbers in the graph, with their scales beside.

    Args:
        source: the file's content, or its path.
        shapes: of inputs whose dimensions the file leaves open, by their names in its signature or
            in the file.

    Returns:
        The model, or every op that the graph cannot say.

    Raises:
        ConfigError: it is no TFLite file, damaged, or leaves a dimension open.
    """
    name = str(source) if isinstance(source, Path) else _NO_NAME
    content = bounded.read_bytes(source) if isinstance(source, Path) else source
    try:
        file = parse(content)
        return _read(file, name, shapes)
    except DamagedError as error:
        raise ConfigError(f"{name} is a TFLite model that is damaged: {plain(error)}") from error
    except ConfigError as error:
        if isinstance(source, Path) and name not in str(error):
            raise ConfigError(f"{name}: {error}") from error
        raise


def _read(file: File, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Model | Unsupported:
    reading = Reading(file)
    unknown = _inputs(reading, name, shapes)
    unknown += _ops(reading)
    if len(file.subgraphs) > 1:
        rest = plain(", ".join(file.subgraphs[1:]), limit=_PLACE_CHARS)
        unknown.append(UnknownOp("SUBGRAPH", rest, "one network in a file is known"))
    outputs: list[str] = []
    free = {op.name for op in reading.builder.ops}
    for number in file.outputs:
        try:
            outputs.append(_output(reading, number, free))
        except (UnknownError, GraphError) as error:
            if unknown:
                break  # which it may come from
            place = plain(reading.names[number], limit=_PLACE_CHARS)
            unknown.append(UnknownOp("OUTPUT", place, plain(error, limit=_WHY_CHARS)))
    if not outputs and not unknown:
        raise ConfigError(f"{name} gives nothing")
    if unknown:
        return Unsupported(name, tuple(unknown))
    graph = _settle(reading, outputs)
    kept = {tensor.name for tensor in graph.constants} | {
        op.name for op in graph.ops if op.has_weights
    }
    labels = read_labels(file, [reading.builder.shapes[output] for output in outputs])
    model = Model(
        graph,
        {key: arrays for key, arrays in reading.weights.items() if key in kept},
        quantization_of(reading, graph),
        tuple(
            Input(_end_name(file.input_names, number, reading), "NHWC") for number in file.inputs
        ),
        tuple(
            Output(_end_name(file.output_names, number, reading), found)
            for number, found in zip(file.outputs, labels, strict=True)
        ),
        (f"read from {Path(name).name if name != _NO_NAME else 'a TFLite file'}",),
    )
    return with_codes_read(model)


def _settle(reading: Reading, outputs: list[str]) -> Graph:
    """Return the graph without the copies of which only the codes are read."""
    graph, params, gone = without_copies(
        reading.builder.graph(*outputs), reading.copies, reading.params
    )
    # A file that reshapes real numbers before it quantises them has no codes of what it reshapes.
    said = reading.params.keys() | gone.values()
    reading.params = {name: item for name, item in params.items() if name in said}
    return graph


def _ops(reading: Reading) -> list[UnknownOp]:
    """Add all ops; return those that cannot be said.

    Behind one of them shapes are only what the file says, which may be open: an op there that
    fails is not held against the file, unless its kind is not known at all.
    """
    unknown: list[UnknownOp] = []
    doubtful: set[int] = set()
    for op in reading.file.ops:
        doubted = not doubtful.isdisjoint(op.inputs)
        try:
            _add(reading, op)
        except DamagedError:
            raise
        # NumPy's, of constants that do not fit together.
        except (GraphError, ValueError, ArithmeticError, IndexError) as error:
            if not doubted or op.kind not in _READERS:
                why = plain(error, limit=_WHY_CHARS)
                unknown.append(UnknownOp(op.kind, _place(reading, op), why))
            doubted = True
            _go_on(reading, op)
        if doubted:
            doubtful.update(op.outputs)
    return unknown


def _add(reading: Reading, op: FileOp) -> None:
    """Add an op of the file to the graph. Raises UnknownError or GraphError if it cannot be."""
    reader = _READERS.get(op.kind)
    if reader is None:
        raise UnknownError("")
    if not op.outputs:
        raise UnknownError("gives nothing")
    reader(reading, op)


def _inputs(reading: Reading, path: str, shapes: Mapping[str, tuple[int, ...]]) -> list[UnknownOp]:
    """Add the inputs of the file, whole; return those that cannot be."""
    file = reading.file
    inner = {name: file.tensors[number].name for number, name in file.input_names.items()}
    given = {inner.get(name, name): shape for name, shape in shapes.items()}
    found = model_files.input_shapes(model_files.ModelFile(Path(path), "tflite", file.ends), given)
    unknown = []
    for number, tensor in zip(file.inputs, file.ends, strict=True):
        name, shape = reading.names[number], found[tensor.name]
        try:
            _add_input(reading, number, shape)
        except UnknownError as error:
            unknown.append(UnknownOp("INPUT", plain(name, limit=_PLACE_CHARS), str(error)))
            _stand_in(reading, number, shape)
    return unknown


def _add_input(reading: Reading, number: int, shape: Shape) -> None:
    dtype, name = reading.tensor(number).dtype, reading.names[number]
    if number in reading.at:
        raise UnknownError("is fed twice")
    params = reading.scale(number)
    if params is None and dtype not in _INPUT_DTYPES:
        raise UnknownError(f"takes {dtype}")
    reading.at[number] = reading.builder.input(name, shape, dtype if params is None else FLOAT)
    reading.note(name, number)


def _go_on(reading: Reading, op: FileOp) -> None:
    """Let what an unknown op gives be what the file says of it."""
    for number in op.outputs:
        tensor = reading.tensor(number)
        if number not in reading.at and min(tensor.shape, default=1) > 0:
            _stand_in(reading, number, tensor.shape)


def _stand_in(reading: Reading, number: int, shape: Shape) -> None:
    tensor = reading.tensor(number)
    dtype = tensor.dtype if tensor.dtype in _INPUT_DTYPES and not tensor.quantized else FLOAT
    reading.at[number] = reading.builder.input(reading.unique("unknown"), shape, dtype)


def _output(reading: Reading, number: int, free: set[str]) -> str:
    """Return the op that gives an output, of those that are `free`, or one that copies."""
    name = reading.name(number)
    if name in free:
        free.remove(name)
        return name
    if name in reading.builder.constants:
        raise UnknownError("is a constant")
    shape = reading.builder.shapes[name]
    copy = reading.apply("reshape", reading.unique(f"{name}.copy"), [name], Reshape(shape))
    reading.note(copy, number)
    return copy


def _place(reading: Reading, op: FileOp) -> str:
    """Say where an op stands: what it gives, and its number in the order of execution."""
    number = f"op {op.number}"
    if not op.outputs:
        return number
    return f"{plain(reading.names[op.outputs[0]], limit=_PLACE_CHARS)} ({number})"


def _end_name(named: Mapping[int, str], number: int, reading: Reading) -> str:
    return named.get(number) or reading.names[number]
