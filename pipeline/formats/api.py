"""What a file format does, and what it says of files that it cannot read or write."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from models.graph import Graph
    from models.model import Model
    from models.number_format import NumberFormat
    from models.quantization import Quantization
    from pipeline.formats.ends import Array, Arrays, FileEnds

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


class Reader(Protocol):
    """Reads what users bring in one format; a `Format` is one where it has these.

    The class of a folder in `pipeline/formats` that has a module `read`, found by listing.
    """

    name: str
    suffixes: tuple[str, ...]
    """Of its files, with their dots; a folder or a name of something may be read too."""

    def reads(self, source: str) -> bool:
        """Tell whether a text, which names no file of a known suffix, is of this format.

        Such as a folder with a SavedModel in it, or ``file.py:callable``.
        """

    def read(self, source: str, options: ReadOptions) -> Model | Unsupported:
        """Read a model into our graph, whoever wrote it.

        Args:
            source: path of the file or folder, or what `reads` takes.
            options: what is said beside it.

        Raises:
            ConfigError: it is not of this format, damaged, or leaves a dimension open.
        """


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a user says beside the model that is to be read.

    Attributes:
        shapes: of inputs whose dimensions the model leaves open, by name; "" for its only input.
        trust: whether code that the file holds may be run (pickles, Lambda layers).
        weights: file of weights for a module that its code builds.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    trust: bool = False
    weights: Path | None = None


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
        """Read a file's inputs and outputs. Raises ConfigError if it is not of this format."""

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
        self, content: bytes | Path, inputs: Arrays, *, as_deployed: bool = False
    ) -> dict[str, Array]:
        """Run samples one by one in the format's runtime, one thread.

        With `as_deployed` the runtime has the settings that a device's has; without, those under
        which kernels of this computer that cut corners are exact.

        Args:
            content: the file's, or its path.
            inputs: of every input by name, N samples in the file's own numbers: (N, *shape), where
                the shape is whole, a batch dimension of 1 included.
            as_deployed: see above.

        Returns:
            Every output by name, (N, *shape), in the file's own numbers.

        Raises:
            ConfigError: the inputs are others than the file's; the runtime refuses the file. A file
                that was not written here belongs into `pipeline.formats.apart`: a damaged one may
                end the process.
        """


def check_number_format(format_: Format, model: Model) -> None:
    """Refuse a model in a number format that a file format does not write. Raises ExportError."""
    if model.number_format not in format_.number_formats:
        have = ", ".join(map(str, format_.number_formats))
        raise ExportError(f"{format_.name} files hold {have}, not {model.number_format}")
