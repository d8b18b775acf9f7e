"""TFLite: written natively, run by LiteRT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.number_format import DYNAMIC8, FLOAT16, FLOAT32, STATIC8, STATIC16X8, NumberFormat
from pipeline.formats.api import check_number_format

if TYPE_CHECKING:
    from pathlib import Path

    from models.graph import Graph
    from models.model import Model
    from models.quantization import Quantization
    from pipeline.formats.api import Numbers, ReadOptions, Unsupported
    from pipeline.formats.ends import Array, Arrays, FileEnds


class TFLite:
    """Files for LiteRT and tflite-runtime; static8 files take and give int8."""

    name = "tflite"
    suffix = ".tflite"
    suffixes = (suffix,)
    layout = "NHWC"
    number_formats: tuple[NumberFormat, ...] = (*(FLOAT32, FLOAT16, DYNAMIC8, STATIC8, STATIC16X8),)
    int8_form = "s8s8, one scale for a dense layer"

    def write(self, model: Model) -> bytes:
        """Return a TFLite file (`pipeline.formats.tflite.write.write_tflite`)."""
        from pipeline.formats.tflite.write import write_tflite

        check_number_format(self, model)
        return write_tflite(model)

    def reads(self, source: str) -> bool:  # noqa: ARG002
        """Tell that nothing but a file of its suffix is TFLite."""
        return False

    def read(self, source: str, options: ReadOptions) -> Model | Unsupported:
        """Read any TFLite file (`pipeline.formats.tflite.read.read_tflite`)."""
        from pathlib import Path

        from pipeline.formats.tflite.read import read_tflite

        return read_tflite(Path(source), options.shapes)

    def describe(self, content: bytes) -> FileEnds:
        """Read inputs and outputs from the FlatBuffer."""
        from pipeline.formats.tflite.describe import describe_tflite

        return describe_tflite(content)

    def read_number_format(self, content: bytes) -> NumberFormat:
        """Tell the number formats apart that are written."""
        from pipeline.formats.tflite.describe import read_number_format

        return read_number_format(content)

    def read_numbers(self, content: bytes) -> Numbers:
        """Tell with what numbers a file computes."""
        from pipeline.formats.tflite.describe import read_numbers

        return read_numbers(content)

    def read_quantization(self, content: bytes, graph: Graph) -> Quantization | None:
        """Read the parameters of the tensors that have the names of the network's."""
        from pipeline.formats.tflite.describe import read_quantization

        return read_quantization(content, graph)

    def run(
        self,
        content: bytes | Path,
        inputs: Arrays,
        *,
        as_deployed: bool = False,  # noqa: ARG002  # LiteRT's kernels are exact everywhere
    ) -> dict[str, Array]:
        """Run samples through LiteRT's interpreter."""
        from pipeline.formats.tflite.run import run_tflite

        return run_tflite(content, inputs)
