"""One op on its way into a TFLite file: what its emitter reads, makes and gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.formats.api import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from models.codes import QParams
    from models.graph import Op
    from models.ops import Shape
    from pipeline.formats.tflite.file_builder import Options
    from pipeline.formats.tflite.write import Writer


class Step:
    """An op and the tensors of the file that it becomes operators between.

    Attributes:
        writer: of the file.
        op: the graph's.
        integer: whether it computes with codes; the rest computes with real numbers, and its
            inputs and output are converted where they are codes.
    """

    def __init__(self, writer: Writer, op: Op, *, integer: bool) -> None:
        self.writer, self.op, self.integer = writer, op, integer

    def inputs(self) -> list[int]:
        """Return the file's tensors of what the op reads, constants among them."""
        return [self.input(place) for place in range(len(self.op.inputs))]

    def input(self, place: int) -> int:
        """Return the file's tensor of one input."""
        return self.writer.read(self.op, place, codes=self.integer)

    def params(self, name: str) -> QParams | None:
        """Return the parameters of a tensor of the graph; None for an op of real numbers."""
        return self.writer.params(name) if self.integer else None

    def value(self, place: int) -> npt.NDArray[Any] | None:
        """Return the value of an input that is a constant; None of any other."""
        name = self.op.inputs[place]
        return self.writer.constant_value(self.op, place) if name in self.op.constants else None

    def reads_nonnegative(self) -> bool:
        """Tell whether the op's first input surely has no value below 0."""
        params = self.params(self.op.inputs[0])
        if params is not None:
            return params.zero_point == params.limits[0]
        return self.op.inputs[0] in self.writer.nonnegative

    def temporary(
        self,
        suffix: str,
        shape: Shape,
        *,
        like: int | None = None,
        params: QParams | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> int:
        """Add a tensor between the op's operators: of codes, or of `dtype`, or as `like` is."""
        name, file = f"{self.op.name}.{suffix}", self.writer.file
        if like is not None:
            known = file.tensors[like]
            return file.tensor(name, shape, known.dtype, quantization=known.quantization)
        if params is not None:
            return self.writer.coded(name, shape, params)
        return file.tensor(name, shape, dtype)

    def emit(
        self,
        code: int,
        inputs: Sequence[int],
        output: int,
        options: Options | None = None,
        *,
        version: int = 0,
    ) -> int:
        """Add an operator; `version` is the lowest that knows its options. Returns `output`."""
        self.writer.emit(code, inputs, output, options, version=version)
        return output

    def apply(
        self,
        code: int,
        inputs: Sequence[int],
        suffix: str,
        shape: Shape,
        options: Options | None = None,
        *,
        version: int = 0,
    ) -> int:
        """Add an operator that gives a new tensor like its first input; return the tensor."""
        output = self.temporary(suffix, shape, like=inputs[0])
        return self.emit(code, inputs, output, options, version=version)

    def finish(
        self,
        code: int,
        inputs: Sequence[int],
        options: Options | None = None,
        *,
        version: int = 0,
    ) -> None:
        """Add the operator that gives the op's output."""
        self.emit(code, inputs, self.output(), options, version=version)

    def output(self) -> int:
        """Add the tensor that the op gives, as it computes it; call it once."""
        return self.writer.make(self.op, codes=self.integer)

    def ints(self, values: Sequence[int], shape: Shape | None = None) -> int:
        """Add whole numbers, once for a file; return their tensor."""
        return self.writer.int_constant(tuple(map(int, values)), shape)

    def number(self, value: float) -> int:
        """Add one real number, once for a file; return its tensor."""
        return self.writer.constant(f"constant.{value:.9g}", np.array(value, np.float32))

    def refuse(self, why: str) -> ExportError:
        """Return the refusal of this op: `why` ends a sentence that names it."""
        return ExportError(
            f"op {self.op.name!r} ({self.op.kind}) {why}, which TFLite cannot express"
        )
