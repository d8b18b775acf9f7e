"""What is known of a file's tensors while it is read: constants, and what is computed of them."""

from __future__ import annotations

from collections import defaultdict
from math import prod
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from device_agents.model_files.flatbuffer import DamagedError
from models.codes import QParams
from pipeline.formats.tflite import constants

if TYPE_CHECKING:
    from pipeline.formats.tflite.file import File, FileOp, FileTensor

Array = npt.NDArray[Any]

_HALF_RANGE = 128
# What constants may take beside the file: many tensors may share the same few bytes of it.
_DECODED_BYTES = 1 << 27
_DECODED_SHARE = 16
_FUSED = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6"}
"""The schema's numbers of fused activations; its others are names that no kernel heeds."""


class UnknownError(ValueError):
    """An op that the graph cannot say; the text is why."""


class Values:
    """The tensors of a file: which are known, what their codes mean, and who reads them.

    Attributes:
        file: what is read.
        sources: known tensor -> the constant of the file that it is a copy of.
        readers: tensor of the file -> the ops that read it.
    """

    def __init__(self, file: File) -> None:
        self.file = file
        self.sources: dict[int, int] = {}
        self.readers: dict[int, list[FileOp]] = defaultdict(list)
        for op in file.ops:
            for number in set(op.inputs) - {-1}:
                self.readers[number].append(op)
        self._made = {number for op in file.ops for number in op.outputs} | set(file.inputs)
        self._outputs = set(file.outputs)
        self._left_bytes = _DECODED_BYTES + _DECODED_SHARE * len(file.content)
        self._values: dict[int, Array] = {}
        self._held: dict[int, Array] = {}

    def tensor(self, number: int) -> FileTensor:
        """Return a tensor of the file."""
        return self.file.tensors[number]

    def only_reader(self, number: int) -> FileOp | None:
        """Return the op that alone reads a tensor, once; None where there is no such one."""
        readers = self.readers[number]
        alone = len(readers) == 1 and number not in self._outputs
        return readers[0] if alone and readers[0].inputs.count(number) == 1 else None

    def input_of(self, op: FileOp, place: int = 0) -> int:
        """Return the tensor that an op reads at a place. Raises UnknownError where none is."""
        number = op.input(place)
        if number is None:
            raise UnknownError(f"reads {len(op.inputs)} tensors, and lacks number {place}")
        return number

    def value(self, number: int) -> Array | None:
        """Return the value of a tensor that is known: real numbers, or whole ones."""
        if number not in self._values and self._is_constant(number):
            tensor = self.tensor(number)
            self._values[number] = constants.real(tensor, self.held(number))
        return self._values.get(number)

    def held(self, number: int) -> Array:
        """Return what a constant of the file holds: codes where it is quantised."""
        if number not in self._held:
            tensor = self.tensor(number)
            if not constants.is_readable(tensor):
                raise UnknownError(f"reads a constant of type {tensor.dtype}")
            self.spend_bytes(tensor.name, constants.decoded_bytes(tensor))
            self._held[number] = constants.codes(self.file.reader, tensor)
        return self._held[number]

    def needed(self, op: FileOp, place: int, what: str) -> Array:
        """Return the value of an input that must be known. Raises UnknownError."""
        number = op.input(place)
        value = None if number is None else self.value(number)
        if value is None:
            raise UnknownError(f"has no constant {what}, which is computed while the file runs")
        return value

    def ints(self, op: FileOp, place: int, what: str) -> tuple[int, ...]:
        """Return an input that must be known whole numbers, one or a list. Raises UnknownError."""
        value = self.needed(op, place, what)
        if value.dtype.kind not in "iub" or value.size > 1 << 16:
            raise UnknownError(f"has a {what} that is no list of whole numbers")
        return tuple(int(n) for n in value.reshape(-1))

    def all_known(self, op: FileOp) -> list[Array] | None:
        """Return the values of all that an op reads; None where one is not known."""
        found = [None if number < 0 else self.value(number) for number in op.inputs]
        known = [value for value in found if value is not None]
        return known if len(known) == len(found) else None

    def know(self, number: int, value: Array, source: int | None = None) -> None:
        """Say that a tensor has this value; `source` is the constant that it is a copy of."""
        self._values[number] = value
        if source is not None:
            self.sources[number] = self.sources.get(source, source)

    def scale(self, number: int) -> QParams | None:
        """Return what the codes of a tensor mean, as int8 or int16; None for plain numbers.

        Raises:
            UnknownError: codes that have several scales, or are of another type.
        """
        tensor = self.tensor(number)
        if not tensor.quantized or (tensor.scales.size > 1 and self._is_constant(number)):
            return None
        if tensor.scales.size > 1 or tensor.dtype == "int4":
            raise UnknownError(f"has {tensor.dtype} activations with {tensor.scales.size} scales")
        zero = int(tensor.zero_points[0]) if tensor.zero_points.size else 0
        if tensor.dtype == "uint8":
            zero -= _HALF_RANGE
        return QParams(
            float(tensor.scales[0]), zero, "int16" if tensor.dtype == "int16" else "int8"
        )

    def activation(self, op: FileOp) -> str:
        """Return the fused activation among an op's options. Raises UnknownError."""
        number = op.option("act")
        if number not in _FUSED:
            raise UnknownError(f"has the fused activation {number}")
        return _FUSED[number]

    def spend_bytes(self, name: str, size_bytes: int) -> None:
        """Count memory that the value of a tensor takes.

        Raises:
            DamagedError: all of them take more than those of any real file.
        """
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise DamagedError(
                f"tensor {name!r} is a constant of {size_bytes} bytes, more "
                f"than a file of {len(self.file.content)} bytes means"
            )

    def _is_constant(self, number: int) -> bool:
        tensor = self.tensor(number)
        return number not in self._made and (tensor.data is not None or not prod(tensor.shape))
