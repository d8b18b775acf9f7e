"""ONNX: written natively, passed through onnx-simplifier, run by onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.number_format import FLOAT32, STATIC8, NumberFormat
from pipeline.formats.api import check_number_format

if TYPE_CHECKING:
    from pathlib import Path

    from models.graph import Graph
    from models.model import Model
    from models.quantization import Quantization
    from pipeline.formats.api import Numbers, ReadOptions, Unsupported
    from pipeline.formats.ends import Array, Arrays, FileEnds


class ONNX:
    """Files for onnxruntime; static8 files are QDQ with float32 input and output.

    `weight_type` is that of `pipeline.formats.onnx.write.write_onnx`: uint8 is right everywhere.
    """

    name = "onnx"
    suffix = ".onnx"
    suffixes = (".onnx",)
    layout = "NCHW"
    number_formats: tuple[NumberFormat, ...] = (FLOAT32, STATIC8)

    def __init__(self, weight_type: str = "uint8") -> None:
        self.weight_type = weight_type

    @property
    def int8_form(self) -> str:
        """Name the types of activations and weights."""
        return f"uint8 * {self.weight_type}"

    def write(self, model: Model) -> bytes:
        """Return an ONNX file: as `simplify` leaves it, or as `write_onnx` wrote it if that fails.

        What a simplifier cannot do, or does wrong, is no reason not to have the file, which is
        right without it.
        """
        from device_agents.errors import VerificationError
        from pipeline.formats.onnx.simplify import simplify
        from pipeline.formats.onnx.write import write_onnx

        check_number_format(self, model)
        written = write_onnx(model, weight_type=self.weight_type)
        try:
            return simplify(written)
        except VerificationError:
            return written

    def reads(self, source: str) -> bool:
        """Tell whether a text that names no file is of this format: none is."""
        del source
        return False

    def read(self, source: str, options: ReadOptions) -> Model | Unsupported:
        """Read a file, whoever wrote it, into our graph."""
        from pathlib import Path

        from pipeline.formats.onnx.read import read_onnx

        return read_onnx(Path(source), options.shapes)

    def describe(self, content: bytes) -> FileEnds:
        """Read inputs and outputs from the graph's signature."""
        from pipeline.formats.onnx.describe import describe_onnx

        return describe_onnx(content)

    def read_number_format(self, content: bytes) -> NumberFormat:
        """Tell float32 and static8 files."""
        from pipeline.formats.onnx.describe import read_number_format

        return read_number_format(content)

    def read_numbers(self, content: bytes) -> Numbers:
        """Tell with what numbers a file computes."""
        from pipeline.formats.onnx.describe import read_numbers

        return read_numbers(content)

    def read_quantization(self, content: bytes, graph: Graph) -> Quantization | None:
        """Read the parameters of the tensors that are quantised under the network's names."""
        from pipeline.formats.onnx.describe import read_quantization

        return read_quantization(content, graph)

    def saturates_here(self, content: bytes | Path) -> bool:
        """Tell whether onnxruntime's usual kernels for a file's weights are wrong on this computer.

        Raises:
            ConfigError: it is not of this format.
        """
        from pipeline.formats.onnx.signed_weights import saturates_here

        return saturates_here(content)

    def run(
        self, content: bytes | Path, inputs: Arrays, *, as_deployed: bool = False
    ) -> dict[str, Array]:
        """Run samples through onnxruntime."""
        from pipeline.formats.onnx.run import run_onnx

        return run_onnx(content, inputs, optimise=as_deployed or not self.saturates_here(content))
