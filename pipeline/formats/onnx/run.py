"""onnxruntime on the host: one CPU thread, and its refusals as sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from device_agents.agent.words import reason
from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Nothing on stderr: what it would say there is in its exceptions.
_SILENT = 4


def run_onnx(
    content: bytes | Path, samples: npt.NDArray[Any], *, optimise: bool = True
) -> npt.NDArray[Any]:
    """Run samples (N, C, H, W) one by one through onnxruntime; return (N, …).

    Raises:
        ConfigError: onnxruntime refuses the file, or fails on it.
    """
    runtime = open_session(content, optimise=optimise)
    name = runtime.get_inputs()[0].name
    return np.concatenate([run_session(runtime, {name: sample[None]})[0] for sample in samples])


def open_session(content: bytes | Path, *, optimise: bool = True) -> onnxruntime.InferenceSession:
    """Load a file, by its path where weights lie beside it. Raises ConfigError if it is refused.

    Without `optimise` nothing is fused: a quantised file is computed on its real values, slowly.
    """
    options = onnxruntime.SessionOptions()
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT
    model = content if isinstance(content, bytes) else str(content)
    try:
        # Its fallback to another provider would try a bad file twice, and print so.
        return onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # its exception classes have no public common base
        raise ConfigError(f"onnxruntime refuses the file: {reason(str(error))}") from error


def run_session(
    runtime: onnxruntime.InferenceSession, feeds: Mapping[str, npt.NDArray[Any]]
) -> list[npt.NDArray[Any]]:
    """Return the outputs. Raises ConfigError when the runtime fails."""
    try:
        outputs: list[npt.NDArray[Any]] = runtime.run(None, dict(feeds))
    except Exception as error:
        raise ConfigError(f"onnxruntime cannot run the file: {reason(str(error))}") from error
    return outputs
