"""TFLite: written natively, run by LiteRT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.agent.words import reason
from device_agents.errors import ConfigError
from device_agents.model_files import inputs_outputs
from models.number_format import FLOAT32, STATIC8, NumberFormat
from pipeline.formats.api import ArtifactIO, artifact_io, check_number_format
from pipeline.formats.quiet import without_noise

if TYPE_CHECKING:
    from pathlib import Path

    from models.graph import Graph
    from models.model import Model
    from models.quantization import Quantization


class TFLite:
    """Files for LiteRT and tflite-runtime; static8 files take and give int8."""

    name = "tflite"
    suffix = ".tflite"
    layout = "NHWC"
    number_formats: tuple[NumberFormat, ...] = (FLOAT32, STATIC8)
    int8_form = "s8s8, one scale for a dense layer"

    def write(self, model: Model) -> bytes:
        """Return a TFLite file (`pipeline.formats.tflite.write.write_tflite`)."""
        from pipeline.formats.tflite.write import write_tflite

        check_number_format(self, model)
        return write_tflite(model)

    def describe(self, content: bytes) -> ArtifactIO:
        """Read input and output from the FlatBuffer."""
        return artifact_io(self.layout, *inputs_outputs(content, self.name))

    def read_quantization(self, content: bytes, graph: Graph) -> Quantization | None:
        """Read the parameters of the tensors that have the names of the network's."""
        from ai_edge_litert import schema_py_generated as schema

        from models.graph import INPUT
        from models.quantization import QParams, Quantization

        file = schema.Model.GetRootAs(content).Subgraphs(0)
        if file.TensorsLength() > len(content):
            return None
        tensors = [file.Tensors(index) for index in range(file.TensorsLength())]
        found = {tensor.Name(): tensor.Quantization() for tensor in tensors}
        params = {}
        for name in (INPUT, *(op.name for op in graph.ops)):
            scales = found.get(name.encode())
            if scales is None or scales.ScaleLength() != 1 or scales.ZeroPointLength() != 1:
                return None
            params[name] = QParams(float(scales.Scale(0)), int(scales.ZeroPoint(0)))
        dense = [found.get(f"{op.name}.weight".encode()) for op in graph.ops if op.kind == "dense"]
        per_output = any(scales is not None and scales.ScaleLength() > 1 for scales in dense)
        return Quantization(params, dense_per_output=per_output)

    def run(
        self,
        content: bytes | Path,
        samples: npt.NDArray[Any],
        *,
        as_deployed: bool = False,  # noqa: ARG002  # LiteRT's kernels are exact everywhere
    ) -> npt.NDArray[Any]:
        """Run samples (N, H, W, C) through LiteRT's interpreter."""
        from ai_edge_litert.interpreter import Interpreter

        key = "model_content" if isinstance(content, bytes) else "model_path"
        model = content if isinstance(content, bytes) else str(content)
        try:
            with without_noise():
                interpreter = Interpreter(**{key: model}, num_threads=1)
                source = interpreter.get_input_details()[0]
                one = (1, *samples.shape[1:])
                if tuple(source["shape"]) != one:
                    interpreter.resize_tensor_input(source["index"], one, strict=True)
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"LiteRT refuses the file: {reason(str(error))}") from error
        try:
            return np.concatenate([_invoke(interpreter, source, item[None]) for item in samples])
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"LiteRT cannot run the file: {reason(str(error))}") from error


def _invoke(interpreter: Any, source: Any, sample: npt.NDArray[Any]) -> npt.NDArray[Any]:
    interpreter.set_tensor(source["index"], sample)
    interpreter.invoke()
    output: npt.NDArray[Any] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return output
