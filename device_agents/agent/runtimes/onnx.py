"""ONNX models through onnxruntime on the CPU, sequential execution."""

import importlib
from pathlib import Path
from typing import Any, Dict, List, Optional

from .. import shapes as open_shapes
from . import random_array

PACKAGES = (("onnxruntime", ("onnxruntime", "onnxruntime-gpu")),)

SETTINGS = ("optimised",)

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


def install() -> str:
    """Return what pip should install."""
    return "onnxruntime"


def load(package: str) -> Any:
    """Import the package and return it."""
    import numpy.random  # noqa: F401  # imported here so that a child need not

    return importlib.import_module(package)


def _session(path: str, threads: int, profile_prefix: str, *, optimised: bool = True) -> Any:
    from . import prepare

    runtime = load(prepare("onnx")[0])
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile_prefix:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def profile(
    path: str,
    threads: int,
    shapes: open_shapes.Given,
    *,
    invokes: int,
    folder: str,
    data: List[bytes],
) -> List[Dict[str, Any]]:
    """Return the times of every op in execution order, from the runtime's own profile."""
    session = _session(path, threads, str(Path(folder) / "onnx"))
    inputs = _inputs(session, shapes)
    feeds = _feeds(inputs, data) if data else _random_feeds(inputs, 0)
    for _ in range(invokes):
        session.run(None, feeds)
    return read_profile(Path(session.end_profiling()))


def read_profile(path: Path) -> List[Dict[str, Any]]:
    """Return the rows of a profile's file; raises ValueError for one that cannot be read."""
    from .. import bounded_json

    if path.stat().st_size > bounded_json.LIMIT_CHARS:
        raise ValueError("the profile has %d bytes; ask for fewer invokes" % path.stat().st_size)
    events = bounded_json.loads(path.read_text(encoding="utf-8"))
    try:
        return op_rows(events)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("the profile is not onnxruntime's: %r" % error) from None


def op_rows(events: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return one row per node of a profile: its microseconds become nanoseconds."""
    rows: Dict[str, Dict[str, Any]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        told = event["args"]
        row = rows.setdefault(
            str(told.get("node_index", name)),
            {
                "name": name[: -len("_kernel_time")],
                "kind": str(told.get("op_name", "")),
                "where": str(told.get("provider", "")).replace("ExecutionProvider", ""),
                "samples_ns": [],
            },
        )
        row["samples_ns"].append(int(event["dur"]) * 1000)
    return list(rows.values())


class Model:
    """A loaded model; see the package docstring for the interface."""

    def __init__(
        self,
        path: str,
        threads: int,
        shapes: Optional[open_shapes.Given] = None,
        optimised: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        from . import prepare

        self.package, self.version = prepare("onnx")
        self._session = _session(path, threads, "", optimised=optimised)
        self._inputs = _inputs(self._session, shapes or {})
        self._names = [item.name for item in self._session.get_outputs()]
        self._feeds: Dict[str, Any] = {}
        self._results: List[Any] = []

    def inputs(self) -> List[Dict[str, Any]]:
        """Return the inputs' metadata, with the shapes that are run."""
        return self._inputs

    def outputs(self) -> List[Dict[str, Any]]:
        """Return the outputs' metadata: of a run the shapes that it gave."""
        told = [
            _info(item, [n if isinstance(n, int) and n > 0 else -1 for n in item.shape])
            for item in self._session.get_outputs()
        ]
        for info, result in zip(told, self._results):
            info["shape"] = list(result.shape)
        return told

    def fill(self, seed: int) -> None:
        """Set random inputs."""
        self._feeds = _random_feeds(self._inputs, seed)

    def set_inputs(self, data: List[bytes]) -> None:
        """Set the inputs from raw bytes."""
        self._feeds = _feeds(self._inputs, data)

    def invoke(self) -> None:
        """Run the network once."""
        self._results = self._session.run(self._names, self._feeds)

    def read(self) -> List[bytes]:
        """Return the outputs as raw bytes."""
        return [result.tobytes() for result in self._results]

    def partitions(self) -> Optional[int]:
        """Return None: the CPU provider runs everything, there are no delegates."""
        return None

    def ops(self) -> Dict[str, int]:
        """Return nothing: onnxruntime tells its ops only in a profile."""
        return {}


def _random_feeds(inputs: List[Dict[str, Any]], seed: int) -> Dict[str, Any]:
    return {
        item["name"]: random_array(seed + position, item["dtype"], item["shape"])
        for position, item in enumerate(inputs)
    }


def _feeds(inputs: List[Dict[str, Any]], data: List[bytes]) -> Dict[str, Any]:
    import numpy as np

    return {
        item["name"]: np.frombuffer(raw, item["dtype"]).reshape(item["shape"])
        for item, raw in zip(inputs, data)
    }


def _inputs(session: Any, given: open_shapes.Given) -> List[Dict[str, Any]]:
    """Return the inputs' metadata; raises Refused for a shape that stays open."""
    items = session.get_inputs()
    dims = [(item.name, _dims(item.shape, item.name in given or "" in given)) for item in items]
    shapes = open_shapes.resolve(dims, given)
    return [_info(item, shape) for item, shape in zip(items, shapes)]


def _dims(shape: List[Any], asked: bool) -> open_shapes.Dims:  # noqa: FBT001
    # The runtime tells an input of unknown rank as it does a scalar: as no dimensions.
    if not shape and asked:
        return None
    return [n if isinstance(n, str) or (n and n > 0) else "" for n in shape]


def _info(item: Any, shape: List[int]) -> Dict[str, Any]:
    if item.type not in _DTYPES:
        raise ValueError("input or output %r has the unsupported type %s" % (item.name, item.type))
    dtype = _DTYPES[item.type]
    return {"name": item.name, "dtype": dtype, "shape": shape, "scale": None, "zero_point": None}
