"""What a TFLite file holds, whether or not a `Graph` can say it: subgraphs of ops and tensors.

The file is walked whole by the reader that believes nothing first (`device_agents.model_files`),
so that the generated one, which is fast, cannot be led astray.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from device_agents.errors import ConfigError
from device_agents.model_files import inputs_outputs

if TYPE_CHECKING:
    import numpy.typing as npt

_DAMAGED = (AttributeError, IndexError, TypeError, ValueError, struct.error)
_FIRST_TYPES = (np.float32, np.float16, np.int32, np.uint8, np.int64, None, np.bool_, np.int16)
_TYPES = dict(enumerate(_FIRST_TYPES)) | {9: np.int8, 10: np.float64}
_BITS = {"int4": 4, "uint4": 4, "int2": 2, "float16": 16, "bfloat16": 16, "float32": 32}


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A tensor of a file.

    Attributes:
        dtype: as TFLite names it, in small letters: float32, int8, resource.
        shape: as it is stored, an open dimension 1.
        signature: the shape with -1 for what is open; equals `shape` where nothing is.
        data: the bytes of a constant; None for one that is computed or fed.
        scales: of the quantisation, empty where there is none.
        axis: that the scales run along, where there are several.
        blockwise: whether scales are of blocks, or of a kind that is not known.
        sparse: whether the constant is stored without its zeros.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    data: npt.NDArray[np.uint8] | None
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int = 0
    blockwise: bool = False
    sparse: bool = False

    @property
    def elements(self) -> int:
        """Elements of the whole tensor."""
        return math.prod(self.shape)

    @property
    def values(self) -> npt.NDArray[Any] | None:
        """The constant as an array of `shape`; None where it is none, or no plain numbers."""
        kind = _TYPES.get(getattr(schema.TensorType, self.dtype.upper()))
        if self.data is None or kind is None or self.sparse:
            return None
        if self.data.nbytes != self.elements * np.dtype(kind).itemsize:
            return None
        return self.data.view(kind).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class FileOp:
    """An op of a file: `kind` is TFLite's name, `custom` that of a custom op.

    `inputs` are places of tensors, -1 for an optional one that is left out; `options` is the
    object of the generated schema, or None, and of a custom op its own bytes.
    """

    kind: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any
    custom: str = ""


@dataclass(frozen=True, slots=True)
class Subgraph:
    """Ops in execution order, and the tensors that they name by place."""

    name: str
    tensors: tuple[FileTensor, ...]
    ops: tuple[FileOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """A file: the first subgraph is what is run.

    `metadata` maps names to contents; `signatures` are the names that each signature gives its
    inputs and outputs, by place of the tensor.
    """

    version: int
    description: str
    subgraphs: tuple[Subgraph, ...]
    metadata: dict[str, bytes]
    signatures: tuple[str, ...]

    @property
    def main(self) -> Subgraph:
        """The subgraph that is run."""
        return self.subgraphs[0]


def read_contents(content: bytes) -> Contents:
    """Read a file.

    Raises:
        ConfigError: it is no TFLite file, or damaged.
    """
    inputs_outputs(content, "tflite")
    try:
        file = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
        codes = [_code(code) for code in file.operatorCodes or ()]
        buffers = [_buffer(buffer, content) for buffer in file.buffers or ()]
        return Contents(
            version=file.version,
            description=_text(file.description),
            subgraphs=tuple(_subgraph(graph, codes, buffers) for graph in file.subgraphs),
            metadata={
                _text(item.name): _bytes(buffers[item.buffer]) for item in file.metadata or ()
            },
            signatures=tuple(_text(item.signatureKey) for item in file.signatureDefs or ()),
        )
    except _DAMAGED as error:
        raise ConfigError(
            f"the file is a TFLite model that is damaged ({type(error).__name__}: "
            f"{str(error)[:200]}); copy or download it again"
        ) from error


@cache
def op_names() -> dict[int, str]:
    """Return TFLite's names of ops by number."""
    return _names(schema.BuiltinOperator)


@cache
def _dtype_names() -> dict[int, str]:
    return {number: name.lower() for number, name in _names(schema.TensorType).items()}


def bits(dtype: str) -> int:
    """Return the bits that an element of a type takes in a file."""
    if dtype in _BITS:
        return _BITS[dtype]
    kind = _TYPES.get(getattr(schema.TensorType, dtype.upper()))
    return 0 if kind is None else 8 * np.dtype(kind).itemsize


def _names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if not name.startswith("_")}


def _code(code: Any) -> tuple[str, str, int]:
    # Old files have the number in a field of one byte, new ones in both.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    kind = op_names().get(number, f"OP_{number}")
    return kind, _text(code.customCode) if kind == "CUSTOM" else "", code.version


def _buffer(buffer: Any, content: bytes) -> npt.NDArray[np.uint8] | None:
    if buffer.data is not None:
        return np.asarray(buffer.data)
    if buffer.offset > 1 and buffer.size:  # of files beyond 2 GB, behind the tables
        return np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
    return None


def _subgraph(
    graph: Any, codes: list[tuple[str, str, int]], buffers: list[npt.NDArray[np.uint8] | None]
) -> Subgraph:
    return Subgraph(
        name=_text(graph.name),
        tensors=tuple(_tensor(tensor, buffers) for tensor in graph.tensors or ()),
        ops=tuple(_op(op, codes) for op in graph.operators or ()),
        inputs=_ints(graph.inputs),
        outputs=_ints(graph.outputs),
    )


def _op(op: Any, codes: list[tuple[str, str, int]]) -> FileOp:
    kind, custom, version = codes[op.opcodeIndex]
    options = op.builtinOptions if op.builtinOptions is not None else op.builtinOptions2
    if kind == "CUSTOM":
        options = _bytes(op.customOptions)
    return FileOp(kind, version, _ints(op.inputs), _ints(op.outputs), options, custom)


def _tensor(tensor: Any, buffers: list[npt.NDArray[np.uint8] | None]) -> FileTensor:
    shape, signature = _ints(tensor.shape), _ints(tensor.shapeSignature)
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis, blockwise, found = 0, False, tensor.quantization
    if found is not None:
        blockwise = bool(found.detailsType)
        axis = found.quantizedDimension
        if found.scale is not None:
            scales = tuple(map(float, found.scale))
            zero_points = _ints(found.zeroPoint) or (0,) * len(scales)
    return FileTensor(
        name=_text(tensor.name),
        dtype=_dtype_names()[tensor.type],
        shape=shape,
        signature=signature if len(signature) == len(shape) else shape,
        data=buffers[tensor.buffer] if tensor.buffer else None,  # the first is nobody's
        scales=scales,
        zero_points=zero_points,
        axis=axis,
        blockwise=blockwise,
        sparse=tensor.sparsity is not None,
    )


def _ints(values: Any) -> tuple[int, ...]:
    return () if values is None else tuple(map(int, values))


def _text(text: bytes | None) -> str:
    return "" if text is None else text.decode("utf-8", "replace")


def _bytes(data: npt.NDArray[np.uint8] | None) -> bytes:
    return b"" if data is None else data.tobytes()
