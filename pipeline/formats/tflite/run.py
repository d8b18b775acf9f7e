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
    from collections.abc import Mapping, Sequence
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


def run_named(
    content: bytes, samples: Sequence[Mapping[str, npt.NDArray[Any]]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Run samples of named inputs one by one; return real outputs by name, (N, …).

    Real numbers are quantised and outputs dequantised where the file's ends are integers. Names are
    those of the file's first signature.

    Raises:
        ConfigError: LiteRT refuses the file, or fails on it.
    """
    try:
        with without_noise():
            interpreter = Interpreter(model_content=content, num_threads=1)
            signature = interpreter.get_signature_runner(
                next(iter(interpreter.get_signature_list()))
            )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"LiteRT refuses the file: {reason(str(error))}") from error
    ends = signature.get_input_details(), signature.get_output_details()
    found: list[dict[str, npt.NDArray[np.float32]]] = []
    try:
        for sample in samples:
            given = {name: _codes(value, ends[0][name]) for name, value in sample.items()}
            with without_noise():
                outputs = signature(**given)
            found.append({name: _real(value, ends[1][name]) for name, value in outputs.items()})
    except (KeyError, ValueError, RuntimeError) as error:
        raise ConfigError(f"LiteRT cannot run the file: {reason(str(error))}") from error
    return {name: np.stack([outputs[name] for outputs in found]) for name in found[0]}


def _codes(values: npt.NDArray[Any], end: Mapping[str, Any]) -> npt.NDArray[Any]:
    scale, zero_point = end["quantization"]
    if not scale:
        return values
    limits = np.iinfo(end["dtype"])
    codes = np.rint(values / np.float32(scale)) + zero_point
    clipped: npt.NDArray[Any] = np.clip(codes, limits.min, limits.max).astype(end["dtype"])
    return clipped


def _real(values: npt.NDArray[Any], end: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    scale, zero_point = end["quantization"]
    real = values.astype(np.float32)
    return (real - zero_point) * np.float32(scale) if scale else real


def _invoke(interpreter: Any, source: Any, sample: npt.NDArray[Any]) -> npt.NDArray[Any]:
    interpreter.set_tensor(source["index"], sample)
    interpreter.invoke()
    output: npt.NDArray[Any] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return output
