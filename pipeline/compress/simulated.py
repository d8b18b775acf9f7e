"""A quantised network in real numbers, op by op: what its rounding does to every tensor.

Codes are simulated: a value is rounded to the nearest number that a code stands for, and the
product of two such numbers is taken in float32. That is a few parts in a million from the integer
arithmetic (`models.integer`), which is slower, and lets one layer be rounded and the others not.
"""

from __future__ import annotations

from collections import ChainMap
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.ops import FLOAT
from models.quantization import hardsigmoid_sources
from models.straight_through import round_to_codes
from models.torch_forms import run_op
from models.torch_forms.axes import channels_first, channels_last

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from models.graph import Graph, Op
    from models.model import Model
    from models.quantization import Quantization

_HELD_BYTES = 256 << 20
"""Of the values of all tensors that are held at once, at most, unless one sample has more."""

_WORK = 2 * 10**11
"""Multiplications that a ranking of layers may take: about a minute of one core."""

_WORK_PER_VALUE = 20
"""What it costs to make one value besides, in multiplications."""

_SAMPLES = (4, 48)

Tensors = dict[str, torch.Tensor]
Layer = list[torch.Tensor]


class Simulated:
    """A model of a static format, with its layers' weights in real numbers and rounded.

    Attributes:
        model: with the weights that are not rounded.
        quantization: which of its ops compute with codes.
        results: by which it is compared; `find_results` unless others are wanted.
        last_read: op -> the tensors that no op after it reads, results left out.
    """

    def __init__(
        self, model: Model, quantization: Quantization, results: Sequence[str] = ()
    ) -> None:
        self.model, self.quantization = model, quantization
        graph = model.graph
        self.coded = quantization.made_as_codes(graph)
        self.integer = {op.name for op in graph.ops if quantization.is_integer(op)}
        self.gates = hardsigmoid_sources(graph, quantization)
        self.constants = {
            tensor.name: channels_first(_tensor(model.weights[tensor.name][0]))
            for tensor in graph.constants
        }
        self.results = tuple(results) or find_results(graph)
        self.last_read = _last_read(graph, self.results)
        self.real: dict[str, Layer] = {}
        self.rounded: dict[str, Layer] = {}
        for op in graph.ops:
            if op.has_weights:
                self.real[op.name] = [_tensor(array) for array in model.weights[op.name]]
                if op.name in self.integer:
                    self.rounded[op.name] = self._rounded_layer(op)

    def batches(
        self, inputs: Mapping[str, npt.NDArray[Any]]
    ) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Cut samples into batches of which all tensors can be held."""
        graph = self.model.graph
        each = 4 * sum(prod(op.out_shape) for op in graph.ops)
        step = max(_HELD_BYTES // each, 1) if graph.keeps_batch else 1
        count = len(next(iter(inputs.values())))
        for start in range(0, count, step):
            yield {name: values[start : start + step] for name, values in inputs.items()}

    def run_real(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        """Return every tensor of a batch with nothing rounded."""
        tensors = self._given(inputs)
        with torch.no_grad():
            for op in self.model.graph.ops:
                tensors[op.name] = self.compute(op, tensors, self.real)
        return tensors

    def run_rounded(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        """Return every tensor of a batch as it is made where all are rounded."""
        tensors = self._given(inputs)
        with torch.no_grad():
            for name in inputs:
                if name in self.coded:
                    tensors[name] = self.round_to_codes(name, tensors[name])
            for op in self.model.graph.ops:
                if op.name in self.integer:
                    result = self.compute(op, tensors, self.rounded, read=self._as_codes)
                    tensors[op.name] = self.round_to_codes(op.name, result)
                else:
                    tensors[op.name] = self.compute(op, tensors, self.real)
        return tensors

    def run_after(self, changed: str, value: torch.Tensor, tensors: Tensors) -> Tensors:
        """Return the results of a batch where one tensor has another value, nothing else rounded.

        `tensors` are those of `run_real`, and stay as they are.
        """
        new, moved = {changed: value}, {changed}
        with torch.no_grad():
            for op in self.model.graph.ops:
                if op.name != changed and not moved.isdisjoint(op.inputs):
                    new[op.name] = self.compute(op, ChainMap(new, tensors), self.real)
                    moved.add(op.name)
                for name in self.last_read.get(op.name, ()):
                    new.pop(name, None)
        return {name: new.get(name, tensors[name]) for name in self.results}

    def round_alone(self, name: str, tensors: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a tensor made with its op alone rounded: its weights only, and its output too.

        `tensors` are those of `run_real`. Of an input, and of what is read as codes only by ops
        after it, nothing but the output is rounded. An op whose codes have the scale of those that
        it reads rounds what it computes of such codes: nothing, if it only moves them.
        """
        made = tensors[name]
        if name not in self.integer:
            return made, self.round_to_codes(name, made)
        op = self.model.graph[name]
        with torch.no_grad():
            if self._has_scale_of_inputs(op):
                computed = self.compute(op, tensors, self.rounded, read=self.round_to_codes)
                return made, made + self.round_to_codes(name, computed) - computed
            own = {read for read in op.inputs if read in op.constants}
            made = self.compute(
                op,
                tensors,
                self.rounded,
                read=lambda read, x: self.round_to_codes(read, x) if read in own else x,
            )
        return made, self.round_to_codes(name, made)

    def _has_scale_of_inputs(self, op: Op) -> bool:
        if not (op.keeps_scale or op.rules.shares_scale):
            return False
        read = op.inputs if op.rules.shares_scale else op.inputs[:1]
        own = self.quantization[op.name]
        return all(self.quantization[name] == own for name in read)

    def compute(
        self,
        op: Op,
        tensors: Mapping[str, torch.Tensor],
        layers: Mapping[str, Layer],
        read: Callable[[str, torch.Tensor], torch.Tensor] = lambda _, x: x,
    ) -> torch.Tensor:
        """Return what an op gives of real values, before any rounding of it."""
        values = [
            read(name, tensors[name]) if dtype == FLOAT else tensors[name]
            for name, dtype in zip(op.inputs, op.in_dtypes, strict=True)
        ]
        return run_op(op, values, layers.get(op.name, []))

    def round_to_codes(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Return the numbers that the codes of a tensor stand for."""
        if name not in self.quantization.tensors or not x.is_floating_point():
            return x
        if name in self.gates:  # its codes are those of relu6(x + 3)
            return round_to_codes(torch.clamp(x + 3, 0, 6), self.quantization[name]) - 3
        return round_to_codes(x, self.quantization[name])

    def _given(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        return self.constants | {
            name: channels_first(_tensor(values)) for name, values in inputs.items()
        }

    def _as_codes(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x if name in self.coded else self.round_to_codes(name, x)

    def _rounded_layer(self, op: Op) -> Layer:
        weight, bias = self.model.weights[op.name]
        # Codes of a gate's bias are those of relu6(x + 3).
        shift = np.float32(3 if op.name in self.gates else 0)
        codes = self.quantization.layer(op, weight, bias + shift)
        bias = codes.real_bias(self.quantization[op.inputs[0]].scale) - shift
        return [_tensor(codes.dequantize(op)), _tensor(bias)]


def affordable_samples(graph: Graph) -> int:
    """Return on how many samples layers are ranked: 48, fewer of a large network, 4 at least.

    Each layer runs what comes after it once more, so that the work grows with their square.
    """
    work = sum(op.rules.macs(op) + _WORK_PER_VALUE * prod(op.out_shape) for op in graph.ops)
    return int(min(max(_WORK // (work * len(graph.ops)), _SAMPLES[0]), _SAMPLES[1]))


def _last_read(graph: Graph, results: Collection[str]) -> dict[str, list[str]]:
    last = {name: op.name for op in graph.ops for name in op.inputs if name not in results}
    found: dict[str, list[str]] = {}
    for name, reader in last.items():
        found.setdefault(reader, []).append(name)
    return found


def find_results(graph: Graph) -> tuple[str, ...]:
    """Return the tensors by which networks are compared: outputs before what squashes them.

    A softmax, a sigmoid or a choice of the largest hides errors of sure samples, and makes much
    of those of near ties.
    """
    made = {op.name: op for op in graph.ops}
    found: dict[str, None] = {}
    for name in graph.outputs:
        op = made[name]
        while op.inputs[0] in made and _squashes(op):
            op = made[op.inputs[0]]
        if op.out_dtype == FLOAT:
            found[op.name] = None
    return tuple(found)


def _squashes(op: Op) -> bool:
    if op.in_dtypes[0] != FLOAT:
        return False
    return bool(op.rules.fixed_scale.get(op.act)) or op.keeps_scale or op.out_dtype != FLOAT


def as_array(x: torch.Tensor) -> npt.NDArray[Any]:
    """Return a tensor as the graph lays it out."""
    return np.asarray(channels_last(x).numpy())


def _tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.require(array, None, ["C", "W"]))
