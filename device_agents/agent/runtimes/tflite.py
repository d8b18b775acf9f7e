"""TFLite through LiteRT, tflite-runtime or TensorFlow, whichever is installed."""

import importlib
import sys
from typing import Any, Dict, List, Optional

PACKAGES = (
    ("ai_edge_litert", ("ai-edge-litert",)),
    ("tflite_runtime", ("tflite-runtime",)),
    ("tensorflow", ("tensorflow", "tensorflow-cpu")),
)


def install() -> str:
    """Return what pip should install; ai-edge-litert has no 32-bit wheels."""
    if sys.maxsize > 2**32:
        return "ai-edge-litert"
    return "tflite-runtime 'numpy<2'"


def load(package: str) -> Any:
    """Import the package and return its Interpreter class."""
    import numpy.random  # noqa: F401  # imported here so that a child need not

    if package == "tensorflow":
        return importlib.import_module("tensorflow").lite.Interpreter
    return importlib.import_module(package + ".interpreter").Interpreter


class Model:
    """A loaded model; see the package docstring for the interface."""

    def __init__(self, path: str, threads: int) -> None:
        from . import prepare

        self.package, self.version = prepare("tflite")
        self._interpreter = load(self.package)(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self.invoke = self._interpreter.invoke

    def inputs(self) -> List[Dict[str, Any]]:
        """Return the inputs' metadata."""
        return [_info(item) for item in self._inputs]

    def outputs(self) -> List[Dict[str, Any]]:
        """Return the outputs' metadata."""
        return [_info(item) for item in self._outputs]

    def fill(self, seed: int) -> None:
        """Set random inputs."""
        from ._arrays import random_array

        for position, item in enumerate(self._inputs):
            array = random_array(seed + position, item["dtype"], item["shape"])
            self._interpreter.set_tensor(item["index"], array)

    def set_inputs(self, data: List[bytes]) -> None:
        """Set the inputs from raw bytes."""
        import numpy as np

        for item, raw in zip(self._inputs, data):
            array = np.frombuffer(raw, item["dtype"]).reshape(item["shape"])
            self._interpreter.set_tensor(item["index"], array)

    def read(self) -> List[bytes]:
        """Return the outputs as raw bytes."""
        return [self._interpreter.get_tensor(item["index"]).tobytes() for item in self._outputs]

    def argmax(self) -> int:
        """Return the index of the largest value of the first output."""
        return int(self._interpreter.get_tensor(self._outputs[0]["index"]).argmax())

    def _executed(self) -> Optional[List[str]]:
        # Private API: in a release without it the figures are unknown, not wrong.
        try:
            return [str(op["op_name"]) for op in self._interpreter._get_ops_details()]  # noqa: SLF001
        except Exception:  # noqa: BLE001
            return None

    def partitions(self) -> Optional[int]:
        """Return how many delegate nodes were appended; None when the runtime does not tell."""
        executed = self._executed()
        return None if executed is None else executed.count("DELEGATE")

    def ops(self) -> Dict[str, int]:
        """Return the ops of the file, delegated or not, without the delegate nodes."""
        counts: Dict[str, int] = {}
        for name in self._executed() or []:
            if name != "DELEGATE":
                counts[name] = counts.get(name, 0) + 1
        return counts


def _info(item: Dict[str, Any]) -> Dict[str, Any]:
    import numpy as np

    scale, zero_point = item["quantization"]
    return {
        "name": item["name"],
        "dtype": np.dtype(item["dtype"]).name,
        "shape": [int(n) for n in item["shape"]],
        "scale": float(scale) if scale else None,
        "zero_point": int(zero_point) if scale else None,
    }
