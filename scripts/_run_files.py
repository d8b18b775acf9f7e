"""Runs model files in the interpreter that runs this: Python 3.7 or newer, numpy and a runtime.

Given a folder, runs every FILE.tflite and FILE.onnx of it that this interpreter has a runtime for
on FILE.in.npy, and writes what comes out into a second folder as FILE.npy, or FILE.error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Found = tuple[str, Callable[[Path, Any], Any]]


def tflite() -> Found | None:
    """Return (name and version, a function that runs a file), or None without a runtime."""
    try:
        import tflite_runtime as package
        from tflite_runtime.interpreter import Interpreter
    except ImportError:
        try:
            import ai_edge_litert as package
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            return None

    def run(path: Path, samples: Any) -> Any:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
        source = interpreter.get_input_details()[0]["index"]
        result = interpreter.get_output_details()[0]["index"]
        outputs = []
        for sample in samples:
            interpreter.set_tensor(source, sample[None])
            interpreter.invoke()
            outputs.append(interpreter.get_tensor(result))
        return np.concatenate(outputs)

    return f"{package.__name__} {package.__version__}", run


def onnx() -> Found | None:
    """Return the same for onnxruntime, with the settings that devices use."""
    try:
        import onnxruntime
    except ImportError:
        return None

    def run(path: Path, samples: Any) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
        return np.concatenate([session.run(None, {name: sample[None]})[0] for sample in samples])

    return f"onnxruntime {onnxruntime.__version__}", run


def main() -> None:
    """Print the runtimes' names by suffix as JSON, then run what has not been run yet."""
    source, target = map(Path, sys.argv[1:3])
    found = {".tflite": tflite(), ".onnx": onnx()}
    there = {suffix: item for suffix, item in found.items() if item is not None}
    print(json.dumps({suffix: name for suffix, (name, _) in there.items()}), flush=True)
    for suffix, (_, run) in there.items():
        for path in sorted(source.glob("*" + suffix)):
            done, error = (target / (path.name + end) for end in (".npy", ".error"))
            if done.is_file() or error.is_file():
                continue
            error.write_text("the runtime crashed")
            try:
                np.save(str(done), run(path, np.load(str(path) + ".in.npy")))
                error.unlink()
            except Exception as said:  # noqa: BLE001  # whatever a runtime raises is its answer
                error.write_text(str(said)[:200])


if __name__ == "__main__":
    main()
