"""Runtimes that compute wrongly without a word, as some in the field do: for a device's Python.

Each borrows the real one of this environment and spoils what comes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scripts.tflite_maker import TFLiteFile
from tests.lab import wrapped_python
from tests.wheelhouse import installed

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

_ZEROING = """
import importlib.util

import ai_edge_litert
from ai_edge_litert import schema_py_generated as schema

_spec = importlib.util.spec_from_file_location(
    "ai_edge_litert.real_interpreter", ai_edge_litert.__path__[1] + "/interpreter.py"
)
_real = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_real)
OpResolverType = _real.OpResolverType


class Interpreter(_real.Interpreter):
    def __init__(self, **options):
        super().__init__(**options)
        model = schema.Model.GetRootAs(open(options["model_path"], "rb").read())
        graph, self._zeros = model.Subgraphs(0), set()
        for place in range(graph.OperatorsLength()):
            op = graph.Operators(place)
            if model.OperatorCodes(op.OpcodeIndex()).BuiltinCode() != 9:  # FULLY_CONNECTED
                continue
            told = graph.Tensors(op.Inputs(1)).Quantization()
            if told is not None and told.ScaleLength() > 1:
                self._zeros.add(op.Outputs(0))

    def get_tensor(self, index):
        found = super().get_tensor(index)
        return found * 0 if index in self._zeros else found
"""
_SATURATING = """
import sys

_here = sys.path.pop(sys.path.index({folder!r}))
del sys.modules["onnxruntime"]
import onnxruntime

_real = onnxruntime.InferenceSession


class InferenceSession(_real):
    def __init__(self, path, options, **more):
        super().__init__(path, options, **more)
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._spoilt = options.graph_optimization_level != level

    def run(self, *args):
        found = super().run(*args)
        if not self._spoilt:
            return found
        return [value + {error} * abs(value).max() for value in found]


onnxruntime.InferenceSession = InferenceSession
"""


def zeroing_litert(folder: Path) -> str:
    """Return a Python whose LiteRT computes zeros for int8 dense layers with a scale per output.

    As tflite-runtime 2.7 to 2.9.1 does.
    """
    package = folder / "wrong" / "ai_edge_litert"
    package.mkdir(parents=True)
    # Its other modules are the real ones.
    (package / "__init__.py").write_text(f"__path__.append({str(installed('ai_edge_litert'))!r})\n")
    (package / "interpreter.py").write_text(_ZEROING)
    return _python(folder, package.parent)


def saturating_onnxruntime(folder: Path, error: float) -> str:
    """Return a Python whose onnxruntime is off by `error` of the output, but for plain kernels.

    As it may be on x86 without VNNI.
    """
    package = folder / "wrong" / "onnxruntime"
    package.mkdir(parents=True)
    code = _SATURATING.format(folder=str(package.parent), error=error)
    (package / "__init__.py").write_text(code)
    return _python(folder, package.parent)


def _python(folder: Path, packages: Path) -> str:
    return str(wrapped_python(folder / "python", f'export PYTHONPATH="{packages}"'))


def int8_dense(path: Path, *, scale_per_output: bool, inputs: int = 24, outputs: int = 10) -> Path:
    """Write an int8 TFLite file of one dense layer, as other tools than ours write it."""
    rng, file = np.random.default_rng(3), TFLiteFile()
    scales: npt.NDArray[np.float32] = rng.uniform(0.005, 0.02, outputs).astype(np.float32)
    if not scale_per_output:
        scales = scales[:1]
    codes = rng.integers(-127, 127, (outputs, inputs), np.int8, endpoint=True)
    bias = rng.integers(-500, 500, outputs, np.int32)
    x = file.tensor("x", (1, inputs), "int8", scale=0.1)
    weight = file.tensor("w", codes.shape, "int8", data=codes, scale=scales)
    unit = np.float32(0.1) * scales
    offset = file.tensor("b", bias.shape, "int32", data=bias, scale=unit)
    y = file.tensor("y", (1, outputs), "int8", scale=0.5)
    options = ("FullyConnectedOptions", {})
    file.op("FULLY_CONNECTED", [x, weight, offset], [y], options, version=4)
    path.write_bytes(file.content([x], [y]))
    return path
