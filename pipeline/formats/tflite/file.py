"""A TFLite file as plain values: tensors and ops in execution order, every offset checked.

The generated readers of the schema follow whatever offset they find; here all is read through
`device_agents.model_files.flatbuffer`, which holds each against the end of the file. Constants stay
where they are: a tensor says where its bytes lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError
from device_agents.model_files import inputs_outputs
from device_agents.model_files.flatbuffer import DamagedError, Reader
from device_agents.model_files.tflite import DTYPES
from pipeline.formats.tflite.options import FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from device_agents.model_files import Tensor

Array = npt.NDArray[Any]

# Operators may share a list of tensors, so that a small file can name very many.
_MOST_OPERANDS = 1 << 22
_MOST_AXES = 16
_BLOCKWISE = 2
"""The schema's number of codes whose scales lie in another tensor, one for each block."""
_CODES = ("int8", "uint8", "int16", "int4")


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A tensor of a file.

    Attributes:
        number: its place among the tensors.
        name: may be empty, or that of another tensor too.
        dtype: numpy's name of its type, or what numpy does not have, such as int4.
        shape: as the file has it; open dimensions are 1.
        data: the bytes of a constant, which lie in the file; None for a tensor without any.
        scales: of its codes, float32: one, or one for each position of `axis`; empty for plain
            numbers.
        zero_points: as many, or none: then all are 0.
        axis: see `scales`.
        sparsity: the table that says where the values of a sparse constant stand.
    """

    number: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview | None
    scales: Array
    zero_points: Array
    axis: int
    sparsity: int | None

    @property
    def quantized(self) -> bool:
        """Whether it holds codes of real numbers: real = scale * (code - zero point)."""
        return bool(self.scales.size) and self.dtype in _CODES


@dataclass(frozen=True, slots=True)
class FileOp:
    """An op of a file; `kind` is its name in the schema, -1 stands for an input left out.

    `number` is its place in execution order; `custom_options` are those of a custom op.
    """

    number: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    reader: Reader
    options: int | None
    custom_options: bytes = b""

    def option(self, name: str) -> Any:
        """Return a number of its options, or the default where the file holds none."""
        number, kind, default = FIELDS[self.kind][name]
        if self.options is None:
            return default
        return self.reader.number(self.options, number, kind, default)

    def list_option(self, name: str) -> tuple[int, ...]:
        """Return a list of whole numbers among its options; empty where the file holds none."""
        number, kind, _ = FIELDS[self.kind][name]
        if self.options is None:
            return ()
        return self.reader.numbers(self.options, number, kind) or ()

    def input(self, place: int) -> int | None:
        """Return the tensor it reads at that place; None where it is left out."""
        if place >= len(self.inputs) or self.inputs[place] < 0:
            return None
        return self.inputs[place]


@dataclass(frozen=True, slots=True)
class File:
    """What a file holds: its first network, whole.

    Attributes:
        subgraphs: names of all its networks.
        inputs: places of the tensors that are fed.
        outputs: places of the tensors that are given.
        input_names: tensor -> its name in the file's signature, where it has one.
        output_names: as `input_names`.
        content: the file's bytes.
        ends: the inputs as the commands name them, in their order.
    """

    reader: Reader
    content: Any
    subgraphs: tuple[str, ...]
    tensors: tuple[FileTensor, ...]
    ops: tuple[FileOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_names: Mapping[int, str]
    output_names: Mapping[int, str]
    ends: tuple[Tensor, ...]


def parse(content: Any) -> File:
    """Read a file's content: bytes, or a read-only mmap.

    Raises:
        ConfigError: it is no TFLite file, or damaged; one sentence.
    """
    ends, _ = inputs_outputs(content, "tflite")
    reader = Reader(content, {})
    try:
        return _parse(reader, content, ends)
    except DamagedError as error:
        raise ConfigError(f"the file is a TFLite model that is damaged: {error}") from error


def _parse(reader: Reader, content: Any, ends: tuple[Tensor, ...]) -> File:
    root = reader.root()
    graphs = reader.tables(root, 2)
    graph = graphs[0]
    view = memoryview(content)
    buffers = [_bytes(reader, view, buffer) for buffer in reader.tables(root, 4)]
    kinds = [_kind(reader, code) for code in reader.tables(root, 1)]
    tensors = tuple(
        _tensor(reader, number, table, buffers)
        for number, table in enumerate(reader.tables(graph, 0))
    )
    signature = next((s for s in reader.tables(root, 7) if reader.number(s, 4, "u32") == 0), None)
    return File(
        reader,
        content,
        tuple(reader.text(table, 4) for table in graphs),
        tensors,
        _ops(reader, graph, kinds),
        reader.numbers(graph, 1, "i32") or (),
        reader.numbers(graph, 2, "i32") or (),
        _named(reader, signature, 0),
        _named(reader, signature, 1),
        ends,
    )


def _bytes(reader: Reader, view: memoryview, buffer: int) -> memoryview | None:
    """Return a buffer's bytes: in its table, or behind all tables in files beyond 2 GB."""
    start, count = reader.span(buffer, 0)
    if not count:
        start, count = reader.number(buffer, 1, "u64"), reader.number(buffer, 2, "u64")
        if start <= 1:
            return None
    return view[start : start + count] if count else None


def _tensor(
    reader: Reader, number: int, table: int, buffers: Sequence[memoryview | None]
) -> FileTensor:
    name = reader.text(table, 3)
    shape = reader.numbers(table, 0, "i32") or ()
    code = reader.number(table, 1, "i8")
    if not 0 <= code < len(DTYPES) or min(shape, default=0) < 0 or len(shape) > _MOST_AXES:
        raise DamagedError(f"tensor {name!r} is of type {code} and shape {shape}")
    quantization = reader.table(table, 4)
    scales, zeros, axis = np.empty(0, np.float32), np.empty(0, np.int64), 0
    if quantization is not None:
        scales = _vector(reader, quantization, 2, "<f4")
        zeros = _vector(reader, quantization, 3, "<i8")
        axis = reader.number(quantization, 6, "i32")
        if not scales.any():  # 0 is written for none
            scales = scales[:0]
    dtype = DTYPES[code]
    if quantization is not None and reader.number(quantization, 4, "u8") == _BLOCKWISE:
        dtype, scales = f"block-wise {dtype}", scales[:0]
    if scales.size:
        _check_scales(name, shape, scales, zeros, axis)
    data = buffers[reader.number(table, 2, "u32")]
    sparsity = reader.table(table, 6)
    return FileTensor(number, name, dtype, shape, data, scales, zeros, axis, sparsity)


def _check_scales(
    name: str, shape: tuple[int, ...], scales: Array, zeros: Array, axis: int
) -> None:
    known = np.isfinite(scales).all() and (scales > 0).all()
    fits = scales.size == 1 or (0 <= axis < len(shape) and scales.size == shape[axis])
    if (
        not known
        or not fits
        or zeros.size not in (0, 1, scales.size)
        or abs(zeros).max(initial=0) > 1 << 16
    ):
        raise DamagedError(
            f"tensor {name!r} of shape {shape} has {scales.size} scales, {zeros.size} zero points "
            f"along axis {axis}, from {scales.min():g}, which do not describe it"
        )


def _vector(reader: Reader, table: int, number: int, dtype: str) -> Array:
    start, count = reader.span(table, number, np.dtype(dtype).itemsize)
    return np.frombuffer(reader.content, dtype, count, start) if count else np.empty(0, dtype)


def _ops(reader: Reader, graph: int, kinds: Sequence[str]) -> tuple[FileOp, ...]:
    found: list[FileOp] = []
    operands = 0
    for number, table in enumerate(reader.tables(graph, 3)):
        inputs = reader.numbers(table, 1, "i32") or ()
        outputs = reader.numbers(table, 2, "i32") or ()
        operands += len(inputs) + len(outputs)
        if operands > _MOST_OPERANDS:
            raise DamagedError(f"its ops name more than {_MOST_OPERANDS} tensors")
        kind = kinds[reader.number(table, 0, "u32")]
        options, custom = reader.table(table, 4), b""
        if kind.startswith("CUSTOM"):
            custom = bytes(reader.numbers(table, 5, "u8") or ())
        found.append(FileOp(number, kind, inputs, outputs, reader, options, custom))
    return tuple(found)


def _kind(reader: Reader, code: int) -> str:
    """Return the name of a kind of op; of custom ones with their own name."""
    number = max(reader.number(code, 0, "i8"), reader.number(code, 3, "i32"))
    kind = _kinds().get(number, f"OP_{number}")
    return f"CUSTOM {reader.text(code, 1)}".strip() if kind == "CUSTOM" else kind


@cache
def _kinds() -> Mapping[int, str]:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    return {n: name for name, n in vars(BuiltinOperator).items() if not name.startswith("_")}


def _named(reader: Reader, signature: int | None, number: int) -> dict[int, str]:
    if signature is None:
        return {}
    maps = reader.tables(signature, number)
    return {reader.number(item, 1, "u32"): reader.text(item, 0) for item in maps}
