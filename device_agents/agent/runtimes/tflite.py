"""TFLite through LiteRT, tflite-runtime or TensorFlow, whichever is installed.

None of these packages gives the times of single ops to Python, so there is no `profile` here; the
runtime `benchmark_model` gives them.
"""

import importlib
import sys
from typing import Any, Dict, Iterable, List, Optional

from .. import shapes as open_shapes
from . import random_array

PACKAGES = (
    ("ai_edge_litert", ("ai-edge-litert",)),
    ("tflite_runtime", ("tflite-runtime",)),
    ("tensorflow", ("tensorflow", "tensorflow-cpu")),
)


SETTINGS = ("xnnpack",)

_DELEGATE = "DELEGATE"
# What these packages apply by themselves; no other delegate is ever asked for.
_DEFAULT_DELEGATE = "XNNPACK"


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


def without_delegates(package: str) -> Dict[str, Any]:
    """Return the interpreter's arguments that keep XNNPACK away; raises when it knows none."""
    if package == "tensorflow":
        kinds = importlib.import_module("tensorflow").lite.experimental.OpResolverType
    else:
        kinds = importlib.import_module(package + ".interpreter").OpResolverType
    return {"experimental_op_resolver_type": kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES}


def find_replaced(ops: List[Dict[str, Any]]) -> List[int]:
    """Return the positions of the ops that delegate nodes run in the model's stead.

    The interpreter keeps replaced ops in its list and appends the delegate nodes. Which op went
    into which is told by the tensors: from a delegate node's outputs back to its inputs.
    """
    producers = {
        int(tensor): position
        for position, op in enumerate(ops)
        if op["op_name"] != _DELEGATE
        for tensor in op["outputs"]
    }
    found = set()
    for node in ops:
        if node["op_name"] != _DELEGATE:
            continue
        known = {int(tensor) for tensor in node["inputs"]}
        waiting = [int(tensor) for tensor in node["outputs"]]
        while waiting:
            tensor = waiting.pop()
            position = None if tensor in known else producers.get(tensor)
            known.add(tensor)
            if position is not None:
                found.add(position)
                waiting += [int(item) for item in ops[position]["inputs"]]
    return sorted(found)


class Model:
    """A loaded model; see the package docstring for the interface."""

    def __init__(
        self,
        path: str,
        threads: int,
        shapes: Optional[open_shapes.Given] = None,
        xnnpack: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        from . import prepare

        self.package, self.version = prepare("tflite")
        self._xnnpack = xnnpack
        more = {} if xnnpack else without_delegates(self.package)
        self._interpreter = load(self.package)(model_path=path, num_threads=threads, **more)
        self._resize(shapes or {})
        self._interpreter.allocate_tensors()
        self._inputs = self._interpreter.get_input_details()
        self.invoke = self._interpreter.invoke

    def _resize(self, given: open_shapes.Given) -> None:
        """Give every input that the file leaves open its shape; raises Refused for one without."""
        details = self._interpreter.get_input_details()
        dims = [(item["name"], _dims(item)) for item in details]
        for item, shape in zip(details, open_shapes.resolve(dims, given)):
            if shape != [int(n) for n in item["shape"]]:
                self._interpreter.resize_tensor_input(item["index"], shape)

    def inputs(self) -> List[Dict[str, Any]]:
        """Return the inputs' metadata."""
        return [_info(item) for item in self._inputs]

    def outputs(self) -> List[Dict[str, Any]]:
        """Return the outputs' metadata: of a run the shapes that it gave."""
        return [_info(item) for item in self._interpreter.get_output_details()]

    def fill(self, seed: int) -> None:
        """Set random inputs."""
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
        details = self._interpreter.get_output_details()
        return [self._interpreter.get_tensor(item["index"]).tobytes() for item in details]

    def _details(self) -> Optional[List[Dict[str, Any]]]:
        # Private API: in a release without it the figures are unknown, not wrong.
        try:
            return list(self._interpreter._get_ops_details())  # noqa: SLF001
        except Exception:  # noqa: BLE001
            return None

    def partitions(self) -> Optional[int]:
        """Return how many delegate nodes were appended; None when the runtime does not tell."""
        details = self._details()
        return None if details is None else _names(details).count(_DELEGATE)

    def ops(self) -> Dict[str, int]:
        """Return the ops of the file, delegated or not, without the delegate nodes."""
        return _counted(name for name in _names(self._details() or []) if name != _DELEGATE)

    def delegation(self) -> Dict[str, Any]:
        """Return the delegate, its share of the ops, and the ops that it left."""
        details = self._details()
        if details is None:
            return {"delegate": "", "share": None, "left": {}}
        names = _names(details)
        inside = set(find_replaced(details))
        own = [position for position, name in enumerate(names) if name != _DELEGATE]
        left = _counted(names[position] for position in own if position not in inside)
        return {
            "delegate": _DEFAULT_DELEGATE if _DELEGATE in names else "",
            "share": len(inside) / len(own) if own else 0.0,
            "left": left,
        }

    def settings(self) -> Dict[str, str]:
        """Return that XNNPACK was switched off, if it was."""
        return {} if self._xnnpack else {"xnnpack": "off"}


def _names(details: List[Dict[str, Any]]) -> List[str]:
    return [str(op["op_name"]) for op in details]


def _counted(names: Iterable[str]) -> Dict[str, int]:
    counts: Dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _dims(item: Dict[str, Any]) -> open_shapes.Dims:
    shape = [int(n) for n in item["shape"]]
    signature = [int(n) for n in item.get("shape_signature", ())]
    # In the signature -1 is open, and the shape holds a 1 there; old runtimes know none.
    dims = signature if len(signature) == len(shape) else shape
    return [n if n > 0 else "" for n in dims]


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
