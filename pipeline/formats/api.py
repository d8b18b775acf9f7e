"""What a file format does, and how image arrays meet a file's own number format."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from device_agents.model_files import Tensor
    from models.graph import Graph
    from models.model import Model
    from models.number_format import NumberFormat
    from models.quantization import Quantization

FloatArray = npt.NDArray[np.float32]

Numbers = Literal["integers", "halves", "floats"]
"""The coarsest numbers that a file computes with."""


NO_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType({})
"""Of the inputs of a file that leaves nothing open."""


class ExportError(ConfigError):
    """A network that a format cannot express; the sentence names the op. No file is written."""


@dataclass(frozen=True, slots=True)
class UnknownOp:
    """An op of a file that our graph cannot say.

    Attributes:
        kind: as the file's format calls it, such as ``LSTM``.
        place: where it stands: the name of the op or of what it gives, or its number in the file.
        why: the end of a sentence, where the kind alone is known and this op is not.
    """

    kind: str
    place: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Unsupported:
    """What a reader gives of a file that is whole, and that our graph cannot say.

    Such a file stays what it is: it is benched, verified and deployed all the same.

    Attributes:
        file: its path or name.
        ops: those that are not known, in the order of the file; at least one.
    """

    file: str
    ops: tuple[UnknownOp, ...]

    @property
    def sentence(self) -> str:
        """Name every op that is not known, with its place; of a great many the first."""
        named: dict[tuple[str, str], list[str]] = {}
        for op in self.ops[:_NAMED_OPS]:
            named.setdefault((op.kind, op.why), []).append(op.place)
        parts = [
            f"{kind} at {', '.join(map(repr, places))}" + (f" ({why})" if why else "")
            for (kind, why), places in named.items()
        ]
        left = len(self.ops) - _NAMED_OPS
        more = f"; and {left} more" if left > 0 else ""
        return f"{self.file} has ops that are not known here: {'; '.join(parts)}{more}"


_NAMED_OPS = 20


@dataclass(frozen=True, slots=True)
class TensorFormat:
    """One input or output of a file: real = scale * (value - zero_point) where it is integer.

    Attributes:
        name: in the file.
        dtype: numpy's name, such as float32 or int8.
        shape: of one sample, with the batch dimension of 1 that the file has; -1 for a dimension
            that the file leaves open.
        scale: None for real numbers.
        zero_point: None for real numbers.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, slots=True)
class FileEnds:
    """How a file takes images and gives logits, read from the file itself.

    `layout` is NHWC or NCHW, of the file; images of the product are (N, C, H, W) float32.
    """

    layout: str
    input: TensorFormat
    output: TensorFormat

    def pack(self, images: FloatArray) -> npt.NDArray[Any]:
        """Return images (N, C, H, W) float32 as the file's samples, (N, …) contiguous.

        Raises:
            ConfigError: images of another shape than the file takes.
        """
        array = images.transpose(0, 2, 3, 1) if self.layout == "NHWC" else images
        if len(self.input.shape) != array.ndim:
            raise ConfigError(
                f"the file takes an input of shape {self.input.shape}, which is no image"
            )
        pairs = zip(array.shape[1:], self.input.shape[1:], strict=True)
        if any(wanted not in (length, -1) for length, wanted in pairs):
            height, width, channels = self._image_shape()
            raise ConfigError(
                f"images of shape {images.shape} do not fit the file, which takes "
                f"(N, {channels}, {height}, {width})"
            )
        wanted = np.dtype(self.input.dtype)
        if self.input.scale is None or self.input.zero_point is None:
            return np.ascontiguousarray(array, wanted)
        limits = np.iinfo(wanted)
        codes = np.rint(array / np.float32(self.input.scale)) + self.input.zero_point
        return np.ascontiguousarray(np.clip(codes, limits.min, limits.max), wanted)

    def unpack(self, raw: npt.NDArray[Any] | bytes) -> FloatArray:
        """Return the file's outputs, an array or its bytes, as logits (N, classes) float32."""
        array = np.frombuffer(raw, self.output.dtype) if isinstance(raw, bytes) else raw
        told = self.output.shape[-1]
        classes = told if told > 0 else array.shape[-1]
        if not classes or array.size % classes:
            raise ConfigError(
                f"the file gave outputs of shape {array.shape}, where it says {self.output.shape}"
            )
        array = array.reshape(-1, classes)
        if self.output.scale is None or self.output.zero_point is None:
            return array.astype(np.float32)
        shifted = array.astype(np.float32) - self.output.zero_point
        return shifted * np.float32(self.output.scale)

    def _image_shape(self) -> tuple[int, int, int]:
        if self.layout == "NHWC":
            _, height, width, channels = self.input.shape
        else:
            _, channels, height, width = self.input.shape
        return height, width, channels


class Reader(Protocol):
    """Reads files of one format into our graph; a `Format` is one where it has the method."""

    def read(
        self, source: bytes | Path, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES
    ) -> Model | Unsupported:
        """Read a file into our graph, whoever wrote it.

        Args:
            source: the file's content; its path where weights may lie beside it.
            shapes: of inputs whose dimensions the file leaves open, by name; empty if none are.

        Raises:
            ConfigError: it is not of this format, damaged, or leaves a dimension open.
        """


class Format(Protocol):
    """Writes models in one file format and runs the files on the host.

    One folder in `pipeline/formats`, found by listing. Invariants: the same model gives the same
    bytes; one that the format cannot express raises ExportError before anything is written.
    """

    name: str
    suffix: str
    layout: str
    """NHWC or NCHW: of images as its files take them."""

    number_formats: tuple[NumberFormat, ...]
    """Those that it writes."""

    @property
    def int8_form(self) -> str:
        """Names how static8 files hold numbers: another name, another file of the same network."""

    def write(self, model: Model) -> bytes:
        """Return the content of a model's file.

        Raises:
            ExportError: an op that the format cannot express, by name, or a number format that it
                does not write.
            QuantizationError: a tensor without parameters.
        """

    def describe(self, content: bytes) -> FileEnds:
        """Read a file's input and output. Raises ConfigError if it is not of this format."""

    def read_number_format(self, content: bytes) -> NumberFormat:
        """Tell a file's number format, of those that are written, whoever wrote it.

        Raises ConfigError if it is not of this format.
        """

    def read_numbers(self, content: bytes) -> Numbers:
        """Tell with what numbers a file computes, whoever wrote it; any error if it is damaged."""

    def read_quantization(self, content: bytes, graph: Graph) -> Quantization | None:
        """Read the parameters of a network's tensors from a file that `write` wrote.

        Returns None where a tensor is missing: a float32 file, or another program's.
        """

    def run(
        self, content: bytes | Path, samples: npt.NDArray[Any], *, as_deployed: bool = False
    ) -> npt.NDArray[Any]:
        """Run packed samples one by one in the format's runtime, one thread; return (N, …).

        With `as_deployed` the runtime has the settings that a device's has; without, those under
        which kernels of this computer that cut corners are exact.

        Raises:
            ConfigError: the runtime refuses the file. A file that was not written here belongs
                into `pipeline.formats.apart`: a damaged one may end the process.
        """


def check_number_format(format_: Format, model: Model) -> None:
    """Refuse a model in a number format that a file format does not write. Raises ExportError."""
    if model.number_format not in format_.number_formats:
        have = ", ".join(map(str, format_.number_formats))
        raise ExportError(f"{format_.name} files hold {have}, not {model.number_format}")


def to_file_ends(layout: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> FileEnds:
    """Return how a file with these inputs and outputs takes images and gives logits.

    Raises:
        ConfigError: it has another number of inputs than one, no output, or other than numbers.
    """
    if len(inputs) != 1 or not outputs:
        raise ConfigError(
            f"the file has {len(inputs)} inputs and {len(outputs)} outputs; a network of images "
            "has one input and an output"
        )
    return FileEnds(layout, _format(inputs[0]), _format(outputs[0]))


def _format(tensor: Tensor) -> TensorFormat:
    try:
        numeric = np.dtype(tensor.dtype).kind in "fiub"
    except TypeError:
        numeric = False
    if not numeric or not tensor.dims:
        shown = "any shape" if tensor.dims is None else f"shape {tensor.dims}"
        raise ConfigError(
            f"{tensor.name!r} of the file is {tensor.dtype} of {shown}, which is neither an image "
            "nor logits"
        )
    shape = tuple(n if isinstance(n, int) else -1 for n in tensor.dims)
    return TensorFormat(tensor.name, tensor.dtype, shape, tensor.scale, tensor.zero_point)
