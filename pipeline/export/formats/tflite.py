"""TFLite: written natively, run by LiteRT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError
from pipeline.export.api import ArtifactIO, TensorFormat

if TYPE_CHECKING:
    from models.fold import Weights
    from models.graph import Graph
    from pipeline.compress.quantization import Quantization


class TFLite:
    """Files for LiteRT and tflite-runtime; static8 files take and give int8."""

    name = "tflite"
    suffix = ".tflite"

    def encode(
        self, graph: Graph, weights: Weights, quantization: Quantization | None = None
    ) -> bytes:
        """Return a TFLite file (`pipeline.export.tflite.write_tflite`)."""
        from pipeline.export.tflite import write_tflite

        return write_tflite(graph, weights, quantization)

    def describe(self, content: bytes) -> ArtifactIO:
        """Read input and output from the FlatBuffer."""
        from ai_edge_litert import schema_py_generated as schema

        if content[4:8] != b"TFL3":
            raise ConfigError("not a TFLite file: the mark TFL3 is missing")
        model = schema.Model.GetRootAs(content)
        graph = model.Subgraphs(0)
        ends = (graph.Tensors(graph.Inputs(0)), graph.Tensors(graph.Outputs(0)))
        dtypes = {
            code: word.lower()
            for word, code in vars(schema.TensorType).items()
            if isinstance(code, int)
        }
        return ArtifactIO("NHWC", *(_format(tensor, dtypes) for tensor in ends))

    def run(self, content: bytes, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run samples (N, H, W, C) through LiteRT's interpreter."""
        from ai_edge_litert.interpreter import Interpreter

        try:
            interpreter = Interpreter(model_content=content, num_threads=1)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"LiteRT refuses the file: {error}") from error
        source = interpreter.get_input_details()[0]["index"]
        result = interpreter.get_output_details()[0]["index"]
        outputs = []
        for sample in samples:
            interpreter.set_tensor(source, sample[None])
            interpreter.invoke()
            outputs.append(interpreter.get_tensor(result))
        return np.concatenate(outputs)


def _format(tensor: Any, dtypes: dict[int, str]) -> TensorFormat:
    name, shape = tensor.Name().decode(), tuple(int(n) for n in tensor.ShapeAsNumpy())
    params = tensor.Quantization()
    if params is None or not params.ScaleLength():
        return TensorFormat(name, dtypes[tensor.Type()], shape)
    scale, zero_point = float(params.Scale(0)), int(params.ZeroPoint(0))
    return TensorFormat(name, dtypes[tensor.Type()], shape, scale, zero_point)
