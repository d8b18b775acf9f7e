"""LiteRT on the host: one thread, and its refusals as sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from device_agents.agent.words import reason
from device_agents.errors import ConfigError
from pipeline.formats.tflite.quiet import without_noise

if TYPE_CHECKING:
    from pathlib import Path


def run_tflite(content: bytes | Path, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Run samples (N, H, W, C) one by one through LiteRT's interpreter; return (N, …).

    Raises:
        ConfigError: LiteRT refuses the file, or fails on it.
    """
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
