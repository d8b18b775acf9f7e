"""onnxruntime on the host: one CPU thread, and its refusals as sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime

from device_agents.agent.words import reason
from device_agents.errors import ConfigError
from pipeline.formats.ends import InputsRefused, count_samples, stack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from pipeline.formats.ends import Arrays

# Nothing on stderr: what it would say there is in its exceptions.
_SILENT = 4


def run_onnx(
    content: bytes | Path, inputs: Arrays, *, optimise: bool = True
) -> dict[str, npt.NDArray[Any]]:
    """Run samples (N, *shape) of every input one by one through onnxruntime; return every output.

    Raises:
        ConfigError: onnxruntime refuses the file, or fails on it; it has other inputs.
    """
    runtime = open_session(content, optimise=optimise)
    count = count_samples(inputs, [item.name for item in runtime.get_inputs()])
    rows = [
        run_session(runtime, {name: values[at, ...] for name, values in inputs.items()})
        for at in range(count)
    ]
    names = [item.name for item in runtime.get_outputs()]
    return {name: stack(name, values) for name, *values in zip(names, *rows, strict=True)}


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
        raise InputsRefused(f"onnxruntime cannot run the file: {reason(str(error))}") from error
    return outputs
