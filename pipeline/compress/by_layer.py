"""Codes of layers that depend on what they read: found in order of execution.

Each layer reads what the quantised layers before it make, so that it takes up their errors too:
learnt rounding (`adaround`), and the sequential correction of biases by samples (Nagel et al. 2019,
"Data-Free Quantization", section 4.2), b - (E[W_q x_q + b] - E[W x + b]) of each output channel.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.codes import LayerCodes, WeightCodes
from models.ops import FLOAT
from models.side_by_side import map_side_by_side, one_thread_each
from models.torch_forms import run_op
from models.torch_forms.axes import channels_first
from pipeline.compress.adaround import LEARNT, Seen, count_positions, learn_rounding, see
from pipeline.compress.layer_codes import choose_scales, code_bias, round_to_nearest
from pipeline.compress.simulated import Simulated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

    from models.graph import Graph, Op
    from models.model import Model
    from models.quantization import Quantization
    from pipeline.compress.layer_codes import WeightRules
    from pipeline.compress.simulated import Layer

_HELD_BYTES = 768 << 20
"""Of tensors that are yet to be read, of all samples, at most, unless a few samples have more."""

_FEWEST = 8
_BATCH = 32

Parts = list[torch.Tensor]
"""A tensor of all samples, in batches."""


def settle_layers(
    model: Model, inputs: Mapping[str, npt.NDArray[Any]], rules: WeightRules
) -> tuple[dict[str, LayerCodes], int]:
    """Find the codes of every layer that computes with codes.

    Args:
        model: calibrated, with its weights in real numbers.
        inputs: samples by their names in the graph, N in place of the batch dimension of 1.
        rules: how weights become codes.

    Returns:
        Layer -> its codes, and on how many samples they were found: as many as memory has room
        for, evenly spread; 0 where samples do not matter.

    Raises:
        QuantizationError: weights that do not fit the calibrated scales.
    """
    quantization = model.quantization
    if quantization is None:
        return {}, 0
    machine = Simulated(model, quantization)
    walk = _Walk(machine, quantization, rules)
    if not rules.see_samples:
        return {name: walk.plain(model.graph[name]) for name in machine.rounded}, 0
    have = len(next(iter(inputs.values())))
    count = min(have, max(_HELD_BYTES // _peak_bytes(model.graph, machine), _FEWEST))
    rows = np.linspace(0, have - 1, count).astype(np.int64)
    with one_thread_each():
        found = walk.through({name: values[rows] for name, values in inputs.items()})
    return found, count


class _Walk:
    """Goes through a network op by op, with its tensors in real numbers and as they are made."""

    def __init__(self, machine: Simulated, quantization: Quantization, rules: WeightRules) -> None:
        self.machine, self.quantization, self.rules = machine, quantization, rules
        self.graph: Graph = machine.model.graph
        self.real: dict[str, Parts] = {}
        self.made: dict[str, Parts] = {}
        self.parts = 0

    def through(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, LayerCodes]:
        """Return the codes of layers."""
        machine, found = self.machine, {}
        left = self.graph.readers()
        count = len(next(iter(inputs.values())))
        step = _BATCH if self.graph.keeps_batch else 1
        self.parts = -(-count // step)
        for name, values in inputs.items():
            parts = [
                channels_first(torch.from_numpy(np.array(values[at : at + step])))
                for at in range(0, count, step)
            ]
            self._hold(name, [(part, part) for part in parts])
        for op in self.graph.ops:
            if op.name in machine.rounded:
                found[op.name] = self._settle(op)
            self._hold(op.name, self._over_parts(partial(self._run, op)))
            for name in op.inputs:
                left[name] -= 1
                if not left[name]:
                    self.real.pop(name, None)
                    self.made.pop(name, None)
        return found

    def plain(self, op: Op) -> LayerCodes:
        """Return the codes of a layer by its weights alone."""
        weight, bias = self._weights(op)
        source = self.quantization[op.inputs[0]]
        scales = choose_scales(op, weight, bias, self.rules, (source, self.quantization[op.name]))
        codes = round_to_nearest(op, weight, scales, self.rules.largest)
        return LayerCodes(codes, scales, code_bias(bias, scales, source))

    def _settle(self, op: Op) -> LayerCodes:
        """Return the codes of a layer, by which it is computed from there on."""
        codes = self.plain(op)
        if self.rules.rounding == "adaround" and op.kind in LEARNT:
            codes = replace(codes, weight=self._learnt(op, codes))
        _, bias = self._weights(op)
        weight = torch.from_numpy(codes.dequantize(op))
        if self.rules.bias_correction:
            plain_bias = self.machine.real[op.name][1]
            bias = bias - self._mean_error(op, [weight, plain_bias])
        source = self.quantization[op.inputs[0]]
        codes = replace(codes, bias=code_bias(bias, codes.scales, source))
        meant = codes.real_bias(source.scale) - self._shift(op)
        self.machine.rounded[op.name] = [weight, torch.from_numpy(meant)]
        return codes

    def _weights(self, op: Op) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return a layer's weight and bias in real numbers, as its codes are to mean them."""
        weight, bias = self.machine.model.weights[op.name]
        return weight, bias + self._shift(op)

    def _shift(self, op: Op) -> np.float32:
        return np.float32(3 if op.name in self.machine.gates else 0)  # relu6(x + 3)

    def _learnt(self, op: Op, codes: WeightCodes) -> npt.NDArray[np.int8]:
        layer = self.machine.real[op.name]
        each = -(-count_positions(op) // self.parts)
        seeds = zlib.crc32(op.name.encode())  # the same whatever else is in the network

        def draw(part: int) -> Seen:
            draws = torch.Generator().manual_seed(seeds + part)
            x, real = (self._read(op, part, real=real)[0] for real in (False, True))
            return see(op, x, real, layer, each, draws)

        with torch.no_grad():
            drawn = list(self._over_parts(draw))
        seen = Seen(
            torch.cat([one.patches for one in drawn]), torch.cat([one.targets for one in drawn])
        )
        draws = torch.Generator().manual_seed(seeds)
        scales = torch.from_numpy(np.array(codes.scales))
        learnt = learn_rounding(
            op, layer, scales, self.rules.largest, seen, self.rules.iterations, draws
        )
        return np.ascontiguousarray(learnt.numpy(), np.int8)

    def _mean_error(self, op: Op, layer: Layer) -> npt.NDArray[np.float32]:
        """Return the mean error of each output channel before the activation."""
        bare, real_layer = replace(op, act="none"), self.machine.real[op.name]

        def error(part: int) -> tuple[npt.NDArray[np.float64], int]:
            with torch.no_grad():
                made = run_op(bare, self._read(op, part, real=False), layer)
                real = run_op(bare, self._read(op, part, real=True), real_layer)
            axis = 1 if made.ndim == 4 else made.ndim - 1
            wrong = (made.double() - real.double()).movedim(axis, 0).flatten(1)
            return wrong.sum(1).numpy(), wrong.shape[1]

        sums = list(self._over_parts(error))
        total: npt.NDArray[np.float64] = sum(found for found, _ in sums) / sum(n for _, n in sums)
        return total.astype(np.float32)

    def _run(self, op: Op, part: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what an op gives of a batch, in real numbers and as it is made."""
        with torch.no_grad():
            real = run_op(op, self._read(op, part, real=True), self.machine.real.get(op.name, []))
            layers = self.machine.rounded if op.name in self.machine.integer else self.machine.real
            made = run_op(op, self._read(op, part, real=False), layers.get(op.name, []))
        return real, made

    def _read(self, op: Op, part: int, *, real: bool) -> list[torch.Tensor]:
        """Return a batch of what an op reads: of an op with codes, what codes mean."""
        machine, values = self.machine, []
        as_codes = op.name in machine.integer and not real
        for name, dtype in zip(op.inputs, op.in_dtypes, strict=True):
            if name in machine.constants:
                x = machine.constants[name]
            else:
                x = self.real[name][part] if real else self._meant(name, self.made[name][part])
            if as_codes and dtype == FLOAT and name not in machine.coded:
                x = machine.round_to_codes(name, x)
            values.append(x)
        return values

    def _hold(self, name: str, parts: Any) -> None:
        pairs = list(parts)
        self.real[name] = [real for real, _ in pairs]
        self.made[name] = [self._stored(name, made) for _, made in pairs]

    def _stored(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor as it is held: as codes, a quarter of the bytes, where it has such."""
        if name not in self.machine.coded or not x.is_floating_point():
            return x
        if name in self.machine.gates:
            return self.machine.round_to_codes(name, x)
        params = self.quantization[name]
        codes = torch.clamp(torch.round(x / params.scale) + params.zero_point, *params.limits)
        return codes.to(getattr(torch, params.dtype))

    def _meant(self, name: str, held: torch.Tensor) -> torch.Tensor:
        if name not in self.machine.coded or name in self.machine.gates:
            return held
        params = self.quantization[name]
        return (held.float() - params.zero_point) * params.scale if held.dtype in _CODES else held

    def _over_parts(self, work: Callable[[int], Any]) -> Iterator[Any]:
        return map_side_by_side(work, range(self.parts))


_CODES = (torch.int8, torch.int16)


def _peak_bytes(graph: Graph, machine: Simulated) -> int:
    """Return the bytes of what is held of one sample where most is: real, and codes beside."""
    left = graph.readers()
    sizes = {tensor.name: prod(tensor.shape) for tensor in graph.inputs}
    peak = 0
    for op in graph.ops:
        sizes[op.name] = prod(op.out_shape)
        peak = max(peak, sum(n * (5 if name in machine.coded else 8) for name, n in sizes.items()))
        for name in op.inputs:
            left[name] -= 1
            if not left[name]:
                sizes.pop(name, None)
    return peak
