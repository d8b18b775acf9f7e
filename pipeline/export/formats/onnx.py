"""ONNX: written natively, passed through onnx-simplifier, run by onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.model_files import inputs_outputs
from pipeline.export.api import ArtifactIO, artifact_io

if TYPE_CHECKING:
    from pathlib import Path

    from models.fold import Weights
    from models.graph import Graph
    from pipeline.compress.quantization import Quantization


class ONNX:
    """Files for onnxruntime; static8 files are QDQ with float32 input and output."""

    name = "onnx"
    suffix = ".onnx"
    layout = "NCHW"

    def encode(
        self, graph: Graph, weights: Weights, quantization: Quantization | None = None
    ) -> bytes:
        """Return a simplified ONNX file (`write_onnx`, then `simplify`)."""
        from pipeline.export.onnx import write_onnx
        from pipeline.export.onnx_simplify import simplify

        return simplify(write_onnx(graph, weights, quantization))

    def describe(self, content: bytes) -> ArtifactIO:
        """Read input and output from the graph's signature."""
        return artifact_io(self.layout, *inputs_outputs(content, self.name))

    def run(self, content: bytes | Path, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run samples (N, C, H, W) through onnxruntime."""
        from pipeline.export.onnx_session import run, session

        runtime = session(content)
        name = runtime.get_inputs()[0].name
        return np.concatenate([run(runtime, {name: sample[None]})[0] for sample in samples])
