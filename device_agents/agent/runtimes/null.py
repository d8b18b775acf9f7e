"""A runtime without networks, for tests and demonstrations: a "model" says how long it takes.

A model is a JSON file: {"edgewright_null": 1, "latency_ms": 5.0, …} with the keys of `_DEFAULTS`.
An invoke keeps the CPU busy for that long on the clock of the device, so on a real one it really
takes that time; outputs are the sums of the inputs' bytes. A text in the shape of an input is the
name of an open dimension. `fail_at`, `crash_at` and `hang_at` say at which invoke, from 0, the
runtime fails, kills its process or never returns. Needs no package, so that the agent can be tried
on any Python.
"""

import json
import random
from pathlib import Path
from typing import Any, Dict, List, Optional

from .. import shapes as open_shapes

PACKAGES = ()

VERSION = "1"
_DEFAULTS: Dict[str, Any] = {
    "latency_ms": 1.0,
    "noise": 0.0,  # standard deviation of an invoke, as a share of the latency
    "first_factor": 1.0,  # the first invoke takes so many times as long, the next ones ever less
    "slow_share": 0.0,  # of the invokes that take `slow_factor` times as long, as on slow cores
    "slow_process_share": 0.0,  # the same of whole processes
    "slow_factor": 1.0,
    "fail_at": None,
    "crash_at": None,
    "hang_at": None,
    "load_error": None,  # what the runtime says when it refuses to load the model
    "inputs": [{"name": "input", "dtype": "float32", "shape": [1, 4]}],
    "outputs": [{"name": "output", "dtype": "float32", "shape": [1, 2]}],
}
_BYTES = {"float32": 4, "float64": 8, "float16": 2, "int8": 1, "uint8": 1, "int32": 4, "int64": 8}
_FOREVER_NS = 1 << 62
_SETTLING = 0.5  # what is left of the first invoke's extra time, per invoke


def install() -> str:
    """Return what pip should install: nothing."""
    return ""


def load(package: str) -> Any:
    """Import nothing."""
    return package


class Model:
    """A loaded model; see the package docstring for the interface."""

    def __init__(self, path: str, threads: int, shapes: Optional[open_shapes.Given] = None) -> None:
        from ..clock import current

        del threads
        self.package, self.version = "null", VERSION
        self._clock = current()
        self._model = _read(path)
        dims = [(item["name"], item["shape"]) for item in self._model["inputs"]]
        found = open_shapes.resolve(dims, shapes or {})
        self._model["inputs"] = [
            dict(item, shape=shape) for item, shape in zip(self._model["inputs"], found)
        ]
        self._rng = random.Random(0)  # noqa: S311  # noise, not secrets
        self._slow = False
        self._invokes = 0
        self._data: List[bytes] = [bytes(_size(item)) for item in self._model["inputs"]]

    def inputs(self) -> List[Dict[str, Any]]:
        """Return the inputs' metadata."""
        return [dict(item, scale=None, zero_point=None) for item in self._model["inputs"]]

    def outputs(self) -> List[Dict[str, Any]]:
        """Return the outputs' metadata."""
        return [dict(item, scale=None, zero_point=None) for item in self._model["outputs"]]

    def fill(self, seed: int) -> None:
        """Seed the noise."""
        self._rng = random.Random(seed)  # noqa: S311
        self._slow = self._rng.random() < self._model["slow_process_share"]

    def set_inputs(self, data: List[bytes]) -> None:
        """Set the inputs from raw bytes."""
        self._data = data

    def invoke(self) -> None:
        """Take the model's time."""
        number, model = self._invokes, self._model
        self._invokes += 1
        if number == model["fail_at"]:
            raise RuntimeError("scripted to fail at invoke %d" % number)
        if number == model["crash_at"]:
            self._clock.die()
        if number == model["hang_at"]:
            self._clock.spend(_FOREVER_NS)
        settling = 1.0 + (model["first_factor"] - 1.0) * _SETTLING**number
        noise = max(0.1, self._rng.gauss(1.0, model["noise"]))
        slow = self._slow or (model["slow_share"] and self._rng.random() < model["slow_share"])
        factor = settling * noise * (model["slow_factor"] if slow else 1.0)
        self._clock.spend(int(model["latency_ms"] * 1e6 * factor))

    def read(self) -> List[bytes]:
        """Return the outputs as raw bytes, all alike: the sum of the inputs' bytes."""
        total = sum(map(sum, self._data)) % 256
        return [bytes([total]) * _size(item) for item in self._model["outputs"]]

    def partitions(self) -> Optional[int]:
        """Return None: there are no delegates."""
        return None

    def ops(self) -> Dict[str, int]:
        """Return nothing: there are no ops."""
        return {}


def _read(path: str) -> Dict[str, Any]:
    with Path(path).open(encoding="utf-8") as file:
        values = json.load(file)
    if not isinstance(values, dict) or values.pop("edgewright_null", None) != 1:
        raise ValueError('no null model: it must be a JSON object with "edgewright_null": 1')
    unknown = sorted(set(values) - set(_DEFAULTS))
    if unknown:
        known = ", ".join(sorted(_DEFAULTS))
        raise ValueError("unknown key %r; known keys are %s" % (unknown[0], known))
    model = dict(_DEFAULTS, **values)
    if not isinstance(model["latency_ms"], (int, float)) or not model["latency_ms"] >= 0.001:
        # An invoke that takes no time would never come to the end of a virtual second.
        raise ValueError("latency_ms = %.100r is not a number from 0.001" % (model["latency_ms"],))
    if model["load_error"]:
        raise ValueError(model["load_error"])
    return model


def _count(item: Dict[str, Any]) -> int:
    count = 1
    for length in item["shape"]:
        count *= length
    return count


def _size(item: Dict[str, Any]) -> int:
    return _count(item) * _BYTES[item["dtype"]]
