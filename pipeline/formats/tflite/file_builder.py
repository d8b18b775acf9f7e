"""A TFLite file as tensors and operators, through the official schema functions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from pipeline.formats.tflite.flatbuffer import Builder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3

_STORED_ONCE_FROM = 1 << 14
"""Bytes from which an array that is several tensors is stored once."""

Fields = tuple[tuple[str, int | float], ...]
"""Fields of an options table, in the schema's CamelCase."""

Options = tuple[str, Fields]
"""Name of an options table without "Options", and its fields."""

_TYPES = {
    np.dtype(name): getattr(schema.TensorType, name.upper())
    for name in ("float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What was said of a tensor of the file; `quantization` is 0 where it holds plain numbers."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    quantization: int


class FileBuilder:
    """Collects one subgraph; call `tensor` and `operator` in execution order, then `finish`."""

    def __init__(self) -> None:
        self._builder = Builder()
        self._tables: dict[object, int] = {}
        self._tensors: list[int] = []
        self.tensors: list[TensorSpec] = []
        self._operators: list[int] = []
        # Buffer 0 is empty by convention: tensors without data refer to it.
        self._buffers = [self._table("Buffer")]
        self._large: dict[object, tuple[npt.NDArray[Any], int]] = {}
        self._codes: dict[tuple[int, int], int] = {}

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        *,
        data: npt.NDArray[Any] | None = None,
        quantization: int = 0,
    ) -> int:
        """Add a tensor, constant if it has `data`; return its index."""
        self.tensors.append(TensorSpec(np.dtype(dtype), tuple(shape), quantization))
        buffer = 0 if data is None else self._buffer(data)
        self._tensors.append(
            self._table(
                "Tensor",
                Shape=self._builder.ints(shape),
                Type=type_code(dtype),
                Buffer=buffer,
                Name=self._builder.string(name),
                Quantization=quantization,
            )
        )
        return len(self.tensors) - 1

    def _buffer(self, data: npt.NDArray[Any]) -> int:
        """Return the buffer of an array: a large one that several tensors are is stored once.

        Arrays that are merely equal are stored each: files of our own networks stay what they were.
        """
        place = (data.__array_interface__["data"][0], data.shape, data.strides)
        if data.nbytes >= _STORED_ONCE_FROM and place in self._large:
            return self._large[place][1]
        self._buffers.append(self._table("Buffer", Data=self._builder.array(data)))
        # Held, so that no other array comes to lie at its place.
        self._large[place] = (data, len(self._buffers) - 1)
        return len(self._buffers) - 1

    def quantization(
        self, scales: npt.NDArray[np.float32], zero_point: int = 0, *, axis: int = 0
    ) -> int:
        """Add quantisation parameters, per channel of `axis` if there are several scales."""
        payload = scales.astype("<f4").tobytes()
        key = ("quantization", payload, zero_point, axis)
        if key not in self._tables:
            count = len(scales)
            zeros = np.full(count, zero_point, "<i8").tobytes()
            self._tables[key] = self._table(
                "QuantizationParameters",
                Scale=self._builder.shared("f", payload, count),
                ZeroPoint=self._builder.shared("q", zeros, count, 8),
                QuantizedDimension=axis,
            )
        return self._tables[key]

    def operator(
        self,
        code: int,
        version: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Options | None = None,
    ) -> None:
        """Add an operator by its BuiltinOperator code."""
        fields: dict[str, int] = {
            "OpcodeIndex": self._codes.setdefault((code, version), len(self._codes)),
            "Inputs": self._builder.ints(inputs),
            "Outputs": self._builder.ints(outputs),
        }
        if options is not None:
            name = f"{options[0]}Options"
            if options not in self._tables:
                self._tables[options] = self._table(name, **dict(options[1]))
            fields["BuiltinOptionsType"] = getattr(schema.BuiltinOptions, name)
            fields["BuiltinOptions"] = self._tables[options]
        self._operators.append(self._table("Operator", **fields))

    def finish(
        self, inputs: Mapping[str, int], outputs: Mapping[str, int], *, description: str
    ) -> bytes:
        """Return the file; `inputs` and `outputs` name tensors for the signature."""
        file = self._builder
        subgraph = self._table(
            "SubGraph",
            Tensors=file.references(self._tensors),
            Inputs=file.ints(list(inputs.values())),
            Outputs=file.ints(list(outputs.values())),
            Operators=file.references(self._operators),
            Name=file.string("main"),
        )
        signature = self._table(
            "SignatureDef",
            Inputs=self._tensor_map(inputs),
            Outputs=self._tensor_map(outputs),
            SignatureKey=file.string("serving_default"),
            SubgraphIndex=0,
        )
        model = self._table(
            "Model",
            Version=SCHEMA_VERSION,
            OperatorCodes=file.references(self._operator_codes()),
            Subgraphs=file.references([subgraph]),
            Description=file.string(description),
            Buffers=file.references(self._buffers),
            SignatureDefs=file.references([signature]),
        )
        return file.finish(model, FILE_IDENTIFIER)

    def _operator_codes(self) -> list[int]:
        """Readers take the larger of a code and its old one-byte field."""
        return [
            self._table(
                "OperatorCode",
                DeprecatedBuiltinCode=min(code, 127),
                Version=version,
                BuiltinCode=code,
            )
            for code, version in self._codes
        ]

    def _tensor_map(self, tensors: Mapping[str, int]) -> int:
        maps = [
            self._table("TensorMap", Name=self._builder.string(name), TensorIndex=index)
            for name, index in tensors.items()
        ]
        return self._builder.references(maps)

    def _table(self, name: str, **fields: float) -> int:
        _function(name, "Start")(self._builder)
        for field, value in fields.items():
            _function(name, "Add" + field)(self._builder, value)
        offset: int = _function(name, "End")(self._builder)
        return offset


@cache
def _function(table: str, verb: str) -> Callable[..., Any]:
    """Return a function of the generated schema, such as TensorAddShape."""
    function: Callable[..., Any] = getattr(schema, table + verb)
    return function


def type_code(dtype: npt.DTypeLike) -> int:
    """Return the schema's number of a type."""
    code: int = _TYPES[np.dtype(dtype)]
    return code
