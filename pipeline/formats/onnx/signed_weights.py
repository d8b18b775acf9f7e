"""Does onnxruntime compute signed weights right on this computer?

On x86 without VNNI its kernels add two products of an unsigned and a signed code in int16, which
saturates (vpmaddubsw).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from device_agents import golden
from device_agents.api import Inference, TensorValue
from pipeline.formats.onnx.describe import parse_graph
from pipeline.formats.onnx.run import open_session, run_session

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import GraphProto


def saturates_here(content: bytes | Path) -> bool:
    """Tell whether onnxruntime's usual kernels for a file's weights are wrong on this computer.

    Raises:
        ConfigError: it is no ONNX file.
    """
    return has_signed_weights(parse_graph(content)) and not exact_here()


def has_signed_weights(graph: GraphProto) -> bool:
    """Tell whether a file's graph has weights in signed codes."""
    return any(
        item.data_type == TensorProto.INT8 and len(item.dims) > 1 for item in graph.initializer
    )


@cache
def exact_here() -> bool:
    """Tell whether this computer's kernels are exact on the golden model of devices."""
    path, inputs = golden.model("onnx")
    runtime = open_session(path.read_bytes())
    feeds = {
        item.name: np.frombuffer(value.data, value.dtype).reshape(value.shape[1:])
        for item, value in zip(runtime.get_inputs(), inputs, strict=True)
    }
    outputs = tuple(
        TensorValue(array.dtype.name, (1, *array.shape), array.tobytes())
        for array in run_session(runtime, feeds)
    )
    found = golden.judge("onnx", "onnxruntime", Inference(outputs, (), (), 0))
    return found.right and not found.saturates
