"""Small TFLite files, made op by op with the generated schema: what no writer of ours writes."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


class TfliteFile:
    """Collects tensors and ops of one subgraph; `content` is the file."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.description = b"made by a test"
        self.model.operatorCodes = []
        self.model.buffers = [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        shape: tuple[int, ...],
        dtype: str = "float32",
        *,
        data: Any = None,
        scales: tuple[float, ...] = (),
        zero_points: tuple[int, ...] = (),
        axis: int = 0,
    ) -> int:
        """Add a tensor, with `data` a constant; return its place."""
        made = schema.TensorT()
        made.shape = np.array(shape, np.int32)
        made.type = getattr(schema.TensorType, dtype.upper())
        made.name = f"t{len(self.graph.tensors)}".encode()
        made.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            made.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if scales:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = np.array(scales, np.float32)
            zeros = zero_points or (0,) * len(scales)
            made.quantization.zeroPoint = np.array(zeros, np.int64)
            made.quantization.quantizedDimension = axis
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def op(
        self,
        kind: str,
        inputs: list[int],
        outputs: list[int],
        options: str = "",
        *,
        version: int = 1,
        **fields: Any,
    ) -> None:
        """Add an op; `options` names the table of its options, `fields` are what it holds."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        made = schema.OperatorT()
        made.opcodeIndex = len(self.model.operatorCodes)
        self.model.operatorCodes.append(code)
        made.inputs, made.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        if options:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            made.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in fields.items():
                assert hasattr(made.builtinOptions, name), name
                setattr(made.builtinOptions, name, value)
        self.graph.operators.append(made)

    def content(self, inputs: list[int], outputs: list[int]) -> bytes:
        """Return the file with these tensors as its inputs and outputs."""
        self.graph.inputs = np.array(inputs, np.int32)
        self.graph.outputs = np.array(outputs, np.int32)
        builder = flatbuffers.Builder(4096)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())
