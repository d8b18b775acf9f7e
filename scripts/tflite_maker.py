"""TFLite files of any ops, made with the official schema's classes and no code of ours.

Golden models and tests are made with it: what writes them shares nothing with what reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Array = np.ndarray[Any, Any]


@dataclass
class TFLiteFile:
    """Collects tensors and ops; `content` is the file."""

    model: Any = field(default_factory=schema.ModelT)
    graph: Any = field(default_factory=schema.SubGraphT)
    codes: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with the empty buffer that tensors without data refer to."""
        self.model.version, self.model.buffers = 3, [schema.BufferT()]
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs = [], []

    def tensor(  # noqa: PLR0913  # what a tensor may have, by name
        self,
        name: str,
        shape: Sequence[int] = (),
        dtype: str = "float32",
        *,
        data: Array | bytes | None = None,
        scale: float | Sequence[float] | Array | None = None,
        zero_point: int = 0,
        axis: int = 0,
        signature: Sequence[int] | None = None,
        sparsity: Any = None,
    ) -> int:
        """Add a tensor; one with `data` is a constant, one with a `scale` is quantised.

        `signature` is its shape with -1 for what is open, `sparsity` a `SparsityParametersT`.
        """
        item = schema.TensorT()
        item.name, item.shape = name, np.array(shape, np.int32)
        item.type = getattr(schema.TensorType, dtype.upper())
        if signature is not None:
            item.shapeSignature = np.array(signature, np.int32)
        item.sparsity = sparsity
        if data is not None:
            buffer = schema.BufferT()
            raw = data if isinstance(data, bytes) else data.tobytes()
            buffer.data = np.frombuffer(raw, np.uint8)
            item.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if scale is not None:
            scales = np.atleast_1d(np.array(scale, np.float32))
            item.quantization = schema.QuantizationParametersT()
            item.quantization.scale = scales
            item.quantization.zeroPoint = np.full(len(scales), zero_point, np.int64)
            item.quantization.quantizedDimension = axis
        self.graph.tensors.append(item)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, value: Any, dtype: str = "") -> int:
        """Add a constant of plain numbers."""
        data = np.asarray(value) if not dtype else np.asarray(value, dtype)
        return self.tensor(name, data.shape, str(data.dtype), data=data)

    def op(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: tuple[str, Mapping[str, Any]] | None = None,
        *,
        version: int = 1,
        custom: bytes = b"",
    ) -> None:
        """Add an op; options are the name of their table and fields in the schema's words.

        Those of a custom op are bytes.
        """
        if (kind, version) not in self.codes:
            self.codes.append((kind, version))
        item = schema.OperatorT()
        item.opcodeIndex = self.codes.index((kind, version))
        item.inputs, item.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        if options is not None:
            name, fields = options
            table = getattr(schema, f"{name}T")()
            for key, value in fields.items():
                if not hasattr(table, key):
                    raise AttributeError(f"{name} has no {key}")
                setattr(table, key, value)
            item.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            item.builtinOptions = table
        if custom:
            item.customOptions = np.frombuffer(custom, np.uint8)
        self.graph.operators.append(item)

    def content(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """Return the file with these tensors as its inputs and outputs."""
        self.graph.inputs = np.array(inputs, np.int32)
        self.graph.outputs = np.array(outputs, np.int32)
        self.model.subgraphs = [self.graph, *(self.model.subgraphs or [])[1:]]
        self.model.operatorCodes = []
        for kind, version in self.codes:
            code = schema.OperatorCodeT()
            custom = kind.startswith("CUSTOM ")
            number = getattr(schema.BuiltinOperator, "CUSTOM" if custom else kind)
            code.builtinCode, code.version = number, version
            code.deprecatedBuiltinCode = min(number, 127)
            if custom:
                code.customCode = kind.removeprefix("CUSTOM ")
            self.model.operatorCodes.append(code)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())
