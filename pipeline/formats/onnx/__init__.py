"""ONNX: written natively, passed through onnx-simplifier, run by onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError
from device_agents.model_files import inputs_outputs
from models.number_format import FLOAT32, STATIC8, NumberFormat
from pipeline.formats.api import ArtifactIO, artifact_io, check_number_format

if TYPE_CHECKING:
    from pathlib import Path

    from models.graph import Graph
    from models.model import Model
    from models.quantization import Quantization


class ONNX:
    """Files for onnxruntime; static8 files are QDQ with float32 input and output.

    `weight_type` is that of `pipeline.formats.onnx.write.write_onnx`: uint8 is right everywhere.
    """

    name = "onnx"
    suffix = ".onnx"
    layout = "NCHW"
    number_formats: tuple[NumberFormat, ...] = (FLOAT32, STATIC8)

    def __init__(self, weight_type: str = "uint8") -> None:
        self.weight_type = weight_type

    @property
    def int8_form(self) -> str:
        """Name the types of activations and weights."""
        return f"uint8 * {self.weight_type}"

    def write(self, model: Model) -> bytes:
        """Return a simplified ONNX file (`write_onnx`, then `simplify`)."""
        from pipeline.formats.onnx.simplify import simplify
        from pipeline.formats.onnx.write import write_onnx

        check_number_format(self, model)
        return simplify(write_onnx(model, weight_type=self.weight_type))

    def describe(self, content: bytes) -> ArtifactIO:
        """Read input and output from the graph's signature."""
        return artifact_io(self.layout, *inputs_outputs(content, self.name))

    def read_quantization(self, content: bytes, graph: Graph) -> Quantization | None:
        """Read the parameters of the tensors that are quantised under the network's names."""
        from onnx import numpy_helper

        from models.graph import INPUT
        from models.quantization import QParams, Quantization

        file = _graph(content)
        stored = {item.name: item for item in file.initializer}
        quantized = {node.name: node for node in file.node if node.op_type == "QuantizeLinear"}
        params = {}
        for name in (INPUT, *(op.name for op in graph.ops)):
            node = quantized.get(f"{name}.code")
            if node is None or len(node.input) < 3 or not set(node.input[1:]) <= stored.keys():
                return None
            scale, zero = (numpy_helper.to_array(stored[source]) for source in node.input[1:3])
            if scale.size != 1 or zero.size != 1 or zero.dtype != np.uint8:
                return None
            params[name] = QParams(float(scale.item()), int(zero.item()) - 128)
        return Quantization(params)

    def saturates_here(self, content: bytes | Path) -> bool:
        """Tell whether onnxruntime's usual kernels for a file's weights are wrong on this computer.

        Raises:
            ConfigError: it is not of this format.
        """
        from pipeline.formats.onnx.kernels import exact_here, signed_weights

        return signed_weights(_graph(content)) and not exact_here()

    def run(
        self, content: bytes | Path, samples: npt.NDArray[Any], *, as_deployed: bool = False
    ) -> npt.NDArray[Any]:
        """Run samples (N, C, H, W) through onnxruntime."""
        from pipeline.formats.onnx.session import run, session

        runtime = session(content, optimise=as_deployed or not self.saturates_here(content))
        name = runtime.get_inputs()[0].name
        return np.concatenate([run(runtime, {name: sample[None]})[0] for sample in samples])


def _graph(content: bytes | Path) -> Any:
    import onnx

    try:
        if isinstance(content, bytes):
            return onnx.load_model_from_string(content).graph
        return onnx.load_model(content, load_external_data=False).graph
    except Exception as error:  # protobuf's exceptions differ between its implementations
        raise ConfigError(f"not an ONNX file: {str(error)[:300]}") from error
