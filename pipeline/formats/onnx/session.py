"""onnxruntime on the host: one CPU thread, and its refusals as sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime

from device_agents.agent.words import reason
from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

# Nothing on stderr: what it would say there is in its exceptions.
_SILENT = 4


def session(content: bytes | Path, *, optimise: bool = True) -> onnxruntime.InferenceSession:
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


def run(
    runtime: onnxruntime.InferenceSession, feeds: Mapping[str, npt.NDArray[Any]]
) -> list[npt.NDArray[Any]]:
    """Return the outputs. Raises ConfigError when the runtime fails."""
    try:
        outputs: list[npt.NDArray[Any]] = runtime.run(None, dict(feeds))
    except Exception as error:
        raise ConfigError(f"onnxruntime cannot run the file: {reason(str(error))}") from error
    return outputs
