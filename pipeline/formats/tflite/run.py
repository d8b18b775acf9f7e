"""LiteRT on the host: one thread, and its refusals as sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from device_agents.agent.words import reason
from device_agents.errors import ConfigError
from pipeline.formats.ends import InputsRefused, count_samples, stack, tell_apart
from pipeline.formats.tflite.quiet import without_noise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.formats.ends import Arrays


def run_tflite(content: bytes | Path, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Run samples (N, *shape) of every input one by one through LiteRT; return every output.

    Raises:
        ConfigError: LiteRT refuses the file, or fails on it; it has other inputs.
    """
    key = "model_content" if isinstance(content, bytes) else "model_path"
    model = content if isinstance(content, bytes) else str(content)
    try:
        with without_noise():
            interpreter = Interpreter(**{key: model}, num_threads=1)
            sources, results = interpreter.get_input_details(), interpreter.get_output_details()
            names = tell_apart([source["name"] for source in sources])
            count = count_samples(inputs, names)
            for source, name in zip(sources, names, strict=True):
                shape = inputs[name].shape[1:]
                if tuple(source["shape"]) != shape:
                    interpreter.resize_tensor_input(source["index"], shape, strict=True)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"LiteRT refuses the file: {reason(str(error))}") from error
    rows: list[list[npt.NDArray[Any]]] = []
    try:
        for at in range(count):
            for source, name in zip(sources, names, strict=True):
                interpreter.set_tensor(source["index"], inputs[name][at, ...])
            interpreter.invoke()
            # Of an output without axes LiteRT gives a number.
            rows.append([np.asarray(interpreter.get_tensor(result["index"])) for result in results])
    except (ValueError, RuntimeError) as error:
        raise InputsRefused(f"LiteRT cannot run the file: {reason(str(error))}") from error
    given = tell_apart([result["name"] for result in results])
    return {name: stack(name, values) for name, *values in zip(given, *rows, strict=True)}


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
        raise InputsRefused(f"LiteRT cannot run the file: {reason(str(error))}") from error
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
