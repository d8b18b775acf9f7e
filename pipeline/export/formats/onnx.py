"""ONNX: written natively, passed through onnx-simplifier, run by onnxruntime."""

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


class ONNX:
    """Files for onnxruntime; static8 files are QDQ with float32 input and output."""

    name = "onnx"
    suffix = ".onnx"

    def encode(
        self, graph: Graph, weights: Weights, quantization: Quantization | None = None
    ) -> bytes:
        """Return a simplified ONNX file (`write_onnx`, then `simplify`)."""
        from pipeline.export.onnx import write_onnx
        from pipeline.export.onnx_simplify import simplify

        return simplify(write_onnx(graph, weights, quantization))

    def describe(self, content: bytes) -> ArtifactIO:
        """Read input and output from the graph's signature."""
        import onnx

        try:
            graph = onnx.load_model_from_string(content).graph
        except Exception as error:  # protobuf's exceptions differ between its implementations
            raise ConfigError(f"not an ONNX file: {str(error)[:300]}") from error
        if not graph.input or not graph.output:
            raise ConfigError("not an ONNX file with an input and an output")
        return ArtifactIO("NCHW", _format(graph.input[0]), _format(graph.output[0]))

    def run(self, content: bytes, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run samples (N, C, H, W) through onnxruntime."""
        from pipeline.export.onnx_simplify import session

        runtime = session(content)
        name = runtime.get_inputs()[0].name
        return np.concatenate([runtime.run(None, {name: sample[None]})[0] for sample in samples])


def _format(value: Any) -> TensorFormat:
    import onnx

    kind = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return TensorFormat(value.name, dtype.name, tuple(d.dim_value or 1 for d in kind.shape.dim))
