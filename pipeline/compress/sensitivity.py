"""Which layers lose what int8 costs a network, and what to leave in float32 for it.

Each layer is rounded alone, everything else in real numbers: what that does to the outputs is
what the layer costs. Costs of layers add up nearly, as powers of noise, since rounding errors of
different layers have little to do with each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from models.codes import QuantizationError
from models.islands import find_float_ops
from models.ops import KINDS
from models.quantization import float_tensors
from models.side_by_side import map_side_by_side, one_thread_each
from pipeline.compress.noise import Noise, decibels
from pipeline.compress.simulated import Simulated, as_array

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy.typing as npt

    from models.graph import Graph
    from models.model import Model
    from models.quantization import Quantization
    from pipeline.compress.simulated import Tensors

    Inputs = Mapping[str, npt.NDArray[Any]]

ENOUGH_DB = 6.0
"""Half of the error is gone: what a suggestion aims for."""

_WORTH_DB = 0.3
"""What is suggested gains this for each op of it, at least."""

_TRIED = 10
"""Layers, at most, that are tried for a suggestion."""

_MATTERS = 0.05
"""Share of the loss from which on a layer gets advice of its own."""


@dataclass(frozen=True, slots=True)
class LayerLoss:
    """What rounding one tensor, and the layer that makes it, costs.

    Attributes:
        name: of the op, or of the input of the network.
        kind: of the op; ``input``.
        low: least value seen.
        high: largest.
        scale: of its codes.
        dtype: of its codes.
        sqnr_db: of this tensor in the quantised network against the float one.
        alone_db: SQNR of the network's worst result with this layer alone rounded.
        share: of the noise that all layers make alone, 0..1.
        weight_share: of this layer's own noise, what its weights make, 0..1.
    """

    name: str
    kind: str
    low: float
    high: float
    scale: float
    dtype: str
    sqnr_db: float
    alone_db: float
    share: float
    weight_share: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What a network's number format costs it, layer by layer.

    Attributes:
        samples: on how many it was found.
        sqnr_db: of the quantised network's worst result (`find_results`) against the float one.
        layers: the costliest first.
        suggested: ops to leave in float32.
        suggested_db: `sqnr_db` with these in float32.
    """

    samples: int
    sqnr_db: float
    layers: tuple[LayerLoss, ...]
    suggested: tuple[str, ...]
    suggested_db: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """What layers cost, before anything is suggested; fields as those of `Sensitivity`."""

    samples: int
    sqnr_db: float
    layers: tuple[LayerLoss, ...]


def measure_layers(
    model: Model, inputs: Inputs, tell: Callable[[str], None] = lambda _: None
) -> Sensitivity:
    """Find what each layer of a quantised network costs its outputs, and what to do about it.

    Args:
        model: as of `rank_layers`.
        inputs: the same.
        tell: is told how far it is.

    Raises:
        QuantizationError: as `rank_layers`.
    """
    found = rank_layers(model, inputs, tell)
    with one_thread_each():
        suggested, found_db = _suggest(model, inputs, found.layers, found.sqnr_db, tell)
    return Sensitivity(found.samples, found.sqnr_db, found.layers, suggested, found_db)


def rank_layers(
    model: Model, inputs: Inputs, tell: Callable[[str], None] = lambda _: None
) -> Ranking:
    """Find what each layer of a quantised network costs its outputs, the costliest first.

    Args:
        model: of a static format, with its weights in real numbers.
        inputs: by their names in the graph, N samples in place of the batch dimension of 1; a few
            dozen are enough.
        tell: is told how far it is.

    Raises:
        QuantizationError: a network of which nothing is rounded, or without outputs of real
            numbers.
    """
    if model.quantization is None or not model.number_format.is_static:
        raise QuantizationError(
            f"a {model.number_format} network has no activations as codes, of which layers could "
            "be told apart; give one in static8 or static16x8"
        )
    graph, machine = model.graph, Simulated(model, model.quantization)
    names = rounded_tensors(graph, model.quantization)
    if not names or not machine.results:
        raise QuantizationError("nothing of this network is codes; there is no loss to tell apart")
    alone = {name: {output: Noise() for output in machine.results} for name in names}
    whole = {name: Noise() for name in {*names, *machine.results}}
    own = {name: (Noise(), Noise()) for name in names}
    ranges: dict[str, tuple[float, float]] = {}
    count = 0
    for batch in machine.batches(inputs):
        with one_thread_each():
            real, rounded = machine.run_real(batch), machine.run_rounded(batch)
        count += len(next(iter(batch.values())))
        for name, noise in whole.items():
            noise.add(as_array(real[name]), as_array(rounded[name]))

        def spoil(name: str, real: Tensors = real) -> None:
            _observe(name, real, ranges)
            by_weights, value = machine.round_alone(name, real)
            for noise, changed in zip(own[name], (by_weights, value), strict=True):
                noise.add(as_array(real[name]), as_array(changed))
            same = torch.equal(value, real[name])
            after = real if same else machine.run_after(name, value, real)
            for output in machine.results:
                alone[name][output].add(as_array(real[output]), as_array(after[output]))

        for place, _ in enumerate(map_side_by_side(spoil, names)):
            tell(f"layer {place + 1} of {len(names)}, {count} samples")
    worst = {name: max(noise.ratio for noise in alone[name].values()) for name in names}
    total = sum(ratio for ratio in worst.values() if math.isfinite(ratio)) or 1.0
    layers = []
    for name in sorted(names, key=lambda name: -worst[name]):
        of_weights, of_all = own[name]
        params = model.quantization[name]
        low, high = ranges[name]
        layers.append(
            LayerLoss(
                name,
                _kind(graph, name),
                low,
                high,
                params.scale,
                params.dtype,
                sqnr_db=decibels(whole[name].ratio),
                alone_db=decibels(worst[name]),
                share=min(worst[name] / total, 1.0),
                weight_share=min(of_weights.noise / of_all.noise, 1.0) if of_all.noise else 0.0,
            )
        )
    sqnr_db = decibels(max(whole[output].ratio for output in machine.results))
    return Ranking(count, sqnr_db, tuple(layers))


def rounded_tensors(graph: Graph, quantization: Quantization) -> list[str]:
    """Return the inputs and ops whose values are codes where they are made or read."""
    inputs = [tensor.name for tensor in graph.inputs if tensor.name in quantization.tensors]
    return inputs + [op.name for op in graph.ops if op.name in quantization.tensors]


def float_groups(graph: Graph, layers: Sequence[LayerLoss]) -> list[frozenset[str]]:
    """Return, for each layer, the costliest first, the ops that must be real for its loss to go.

    Of rounded weights that is the op; of a rounded output, those that read it too: it stays real
    where all of them compute with real numbers.
    """
    groups = []
    for layer in layers:
        names = set() if layer.kind == "input" else {layer.name}
        if layer.weight_share < 0.5:
            names |= _readers(graph, layer.name)
        groups.append(frozenset(names))
    return groups


def leave_real(model: Model, names: Collection[str]) -> Model:
    """Return a quantised model with more of its ops real; what no op has codes of is real too."""
    quantization = model.quantization
    if quantization is None:
        return model
    floats = find_float_ops(model.graph, quantization.float_ops.union(names))
    integer = [op for op in model.graph.ops if quantization.is_integer(op)]
    coded = {name for op in integer if op.name not in floats for name in float_tensors(op)}
    tensors = {name: params for name, params in quantization.tensors.items() if name in coded}
    return replace(model, quantization=replace(quantization, tensors=tensors, float_ops=floats))


def simulate_sqnr(model: Model, inputs: Inputs) -> float:
    """Return the SQNR, in decibels, of a quantised model's worst result against the float one."""
    if model.quantization is None:
        return math.inf
    machine = Simulated(model, model.quantization)
    found = {name: Noise() for name in machine.results}
    for batch in machine.batches(inputs):
        real, rounded = machine.run_real(batch), machine.run_rounded(batch)
        for name, noise in found.items():
            noise.add(as_array(real[name]), as_array(rounded[name]))
    return decibels(max(noise.ratio for noise in found.values()))


def advise(layer: LayerLoss) -> str:
    """Say what may be done about a layer's loss; empty for one that hardly has any."""
    if layer.share < _MATTERS:
        return ""
    if layer.weight_share >= 0.5:
        return "its weights: leave it in float32"
    if layer.kind in KINDS and KINDS[layer.kind].keeps_scale:
        return "its scale is that of what it reads: quantise the float model anew (pass ptq)"
    steps = (layer.high - layer.low) / layer.scale if layer.scale else 0.0
    if steps > 300 and layer.dtype == "int8":
        return "its range is cut: calibrate on more images (ptq, images)"
    return "its output: leave it and what reads it in float32, or 16 bits (--scheme static16x8)"


def _suggest(
    model: Model,
    inputs: Inputs,
    layers: Sequence[LayerLoss],
    sqnr_db: float,
    tell: Callable[[str], None],
) -> tuple[tuple[str, ...], float]:
    """Return what to leave real, and the SQNR with that: tried, the costliest layers first."""
    chosen: frozenset[str] = frozenset()
    best_db = sqnr_db
    for place, group in enumerate(float_groups(model.graph, layers)[:_TRIED]):
        if best_db >= sqnr_db + ENOUGH_DB or group <= chosen:
            continue
        tell(f"trying what to leave in float32, {place + 1} of {_TRIED}")
        found_db = simulate_sqnr(leave_real(model, chosen | group), inputs)
        if found_db >= best_db + _WORTH_DB * len(group - chosen):
            chosen, best_db = chosen | group, found_db
    in_order = tuple(op.name for op in model.graph.ops if op.name in chosen)
    return in_order, best_db


def _readers(graph: Graph, name: str) -> set[str]:
    """Return the ops that compute with a tensor's values, through those that only move them."""
    found: set[str] = set()
    moved = {name}
    for op in graph.ops:
        if not moved.isdisjoint(op.inputs):
            found.add(op.name)
            if op.keeps_scale or op.rules.shares_scale:
                moved.add(op.name)
    return found


def _observe(name: str, tensors: Tensors, ranges: dict[str, tuple[float, float]]) -> None:
    low, high = (float(value) for value in tensors[name].aminmax())
    least, most = ranges.get(name, (low, high))
    ranges[name] = min(low, least), max(high, most)


def _kind(graph: Graph, name: str) -> str:
    if any(tensor.name == name for tensor in graph.inputs):
        return "input"
    op = graph[name]
    return op.act if op.kind == "act" else op.kind
