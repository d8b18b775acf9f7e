"""The same function with fewer ops: normalisation folded into layers, activations fused. No torch.

A user's network keeps its batch normalisation, so that it can still be trained; quantisation and
files want it gone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from models.graph import Graph, Op
from models.ops import AvgPool, Mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.fold import FloatArray
    from models.model import Model
    from models.quantization import Quantization


def prepare_for_codes(model: Model) -> Model:
    """Return the same function as the network whose tensors become codes."""
    return average_whole_maps(fuse_activations(fold_batchnorm(model)))


def find_folded(graph: Graph) -> dict[str, tuple[Op, ...]]:
    """Return layer -> the batch normalisations that `fold_batchnorm` folds into it, in order."""
    found: dict[str, tuple[Op, ...]] = {}

    def merge(op: Op, before: Sequence[Op]) -> Op | None:
        layer = before[0] if before else None
        if op.kind != "batchnorm" or not _takes(layer, op):
            return None
        found[layer.name] = (*found.get(layer.name, ()), op)
        return replace(layer, act=op.act)

    _merge(graph, merge)
    return found


def fold_batchnorm(model: Model) -> Model:
    """Return a model without batch normalisation; itself where there is none.

    One behind a layer that nothing else reads is folded into it, in float64, as in
    `models.fold.fold`; any other, and one behind a layer of codes, becomes a multiplication and an
    addition.
    """
    if all(op.kind != "batchnorm" for op in model.graph.ops):
        return model
    weights, held = dict(model.weights), model.quantization

    def merge(op: Op, before: Sequence[Op]) -> Op | None:
        layer = before[0] if before else None
        if op.kind != "batchnorm" or held is not None or not _takes(layer, op):
            return None
        weights[layer.name] = _scaled(layer, weights[layer.name], *_gain_and_shift(op, model))
        return replace(layer, act=op.act)

    graph, _ = _merge(model.graph, merge)
    ops: list[Op] = []
    for op in graph.ops:
        if op.kind != "batchnorm":
            ops.append(op)
            continue
        shape = (1,) * (len(op.out_shape) - 1) + (-1,)
        for name, value in zip(("gain", "shift"), _gain_and_shift(op, model), strict=True):
            weights[f"{op.name}.{name}"] = (value.astype(np.float32).reshape(shape),)
        ops += _as_arithmetic(op)
        if held is not None and op.name in held.float_ops:
            held = replace(held, float_ops=held.float_ops | {ops[-2].name})
    model = replace(model, quantization=held)
    return _with_ops(model, replace(graph, ops=tuple(ops)), weights)


def fold_constants(model: Model) -> Model:
    """Return a model whose layers hold what is added to each of their channels, or times it.

    A model with codes stays as it is: its scales are of what the layer itself gives.
    """
    if model.quantization is not None:
        return model
    weights = dict(model.weights)

    def merge(op: Op, before: Sequence[Op]) -> Op | None:
        found = _layer_and_constant(op, before, weights)
        if found is None:
            return None
        layer, value = found
        gain, shift = _as_line(op, value, first=op.inputs[0] == layer.name)
        weights[layer.name] = _scaled(layer, weights[layer.name], gain, shift)
        return replace(layer, act=op.act)

    graph, renamed = _merge(model.graph, merge)
    return _with_ops(model, graph, weights) if renamed else model


def _merge(
    graph: Graph, merge: Callable[[Op, Sequence[Op]], Op | None]
) -> tuple[Graph, dict[str, str]]:
    """Let ops become part of ops before them.

    Args:
        graph: whose ops they are.
        merge: is given an op, and those that it reads and nothing else does; it returns one of
            these with the op in it, or None where it stays.

    Returns:
        The graph, and op that is gone -> the one that it went into.
    """
    readers = graph.readers()
    ops: dict[str, Op] = {}
    renamed: dict[str, str] = {}
    for read in graph.ops:
        op = replace(read, inputs=tuple(renamed.get(name, name) for name in read.inputs))
        alone = [
            ops[name]
            for name, known_as in zip(op.inputs, read.inputs, strict=True)
            if name in ops and readers[known_as] == 1
        ]
        into = merge(op, alone)
        if into is None:
            ops[op.name] = op
        else:
            ops[into.name] = into
            renamed[op.name] = into.name
    outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    return Graph(graph.inputs, tuple(ops.values()), outputs), renamed


def _takes(layer: Op | None, op: Op) -> TypeGuard[Op]:
    """Tell whether a layer can hold an op that is linear in each channel of what it gives."""
    return (
        layer is not None
        and layer.has_weights
        and layer.act == "none"
        and op.act in layer.rules.activations
    )


def _layer_and_constant(
    op: Op, before: Sequence[Op], weights: dict[str, tuple[FloatArray, ...]]
) -> tuple[Op, FloatArray] | None:
    """Return the layer that an op reads, and the constant for its channels; None otherwise."""
    layer = before[0] if before else None
    if op.kind not in ("add", "sub", "mul", "div") or len(op.constants) != 1:
        return None
    (constant,) = op.constants
    if not _takes(layer, op) or layer.out_shape != op.out_shape:
        return None
    if op.kind == "div" and op.inputs[1] != constant:
        return None
    value = weights[constant][0].astype(np.float64)
    if value.size not in (1, value.shape[-1]):
        return None
    return layer, np.broadcast_to(value.reshape(-1), layer.out_shape[-1:])


def _as_line(op: Op, value: FloatArray, *, first: bool) -> tuple[FloatArray, FloatArray]:
    """Return g and b of x * g + b for arithmetic with a constant; `first`: x is its first input."""
    one: FloatArray = np.ones_like(value)
    zero: FloatArray = np.zeros_like(value)
    if op.kind == "sub":
        return (one, -value) if first else (-one, value)
    if op.kind == "add":
        return one, value
    gain: FloatArray = value if op.kind == "mul" else np.reciprocal(value)
    return gain, zero


def fuse_activations(model: Model) -> Model:
    """Return a model whose activations are fused into the ops before, where these can be.

    One between codes stays: what it reads has a scale of its own.
    """
    held = model.quantization
    coded: Mapping[str, object] = {} if held is None else held.tensors

    def merge(op: Op, before: Sequence[Op]) -> Op | None:
        if op.kind != "act" or not before or before[0].kind == "act" or before[0].act != "none":
            return None
        if op.inputs[0] in coded or op.act not in before[0].rules.activations:
            return None
        return replace(before[0], act=op.act)

    graph, renamed = _merge(model.graph, merge)
    if not renamed:
        return model
    if held is not None:
        model = replace(model, quantization=_renamed(held, renamed))
    return _with_ops(model, graph, dict(model.weights))


def _renamed(held: Quantization, renamed: Mapping[str, str]) -> Quantization:
    """Return number formats of tensors that have other names."""
    return replace(
        held,
        tensors={renamed.get(name, name): params for name, params in held.tensors.items()},
        float_ops=held.float_ops - renamed.keys(),
        ends={renamed.get(name, name): dtype for name, dtype in held.ends.items()},
    )


def average_whole_maps(model: Model) -> Model:
    """Return a model in which a pool that averages a whole map is a mean.

    Integer kernels give a pool the scale of what it reads, which is coarse for averages; a mean
    has its own.
    """
    ops = tuple(
        replace(op, kind="mean", attributes=Mean()) if _averages_whole_map(op) else op
        for op in model.graph.ops
    )
    if ops == model.graph.ops:
        return model
    graph = replace(model.graph, ops=ops)
    return replace(model, graph=graph)


def _averages_whole_map(op: Op) -> bool:
    pool = op.attributes
    if not isinstance(pool, AvgPool) or op.act != "none" or any(pool.padding):
        return False
    return pool.kernel == op.in_shapes[0][1:3] and op.out_shape[1:3] == (1, 1)


def _with_ops(model: Model, graph: Graph, weights: dict[str, tuple[FloatArray, ...]]) -> Model:
    """Return the model with another graph, and only the weights that it still has."""
    kept = {op.name for op in graph.ops if op.has_weights}
    kept |= {constant.name for constant in graph.constants}
    left = {name: arrays for name, arrays in weights.items() if name in kept}
    return replace(model, graph=graph, weights=left)


def _gain_and_shift(op: Op, model: Model) -> tuple[FloatArray, FloatArray]:
    """Return g and b of x * g + b, float64."""
    parameters = (model.weights[name][0].astype(np.float64) for name in op.inputs[1:])
    scale, shift, mean, variance = parameters
    gain = scale / np.sqrt(variance + op.attributes.epsilon)
    return gain, shift - mean * gain


def _scaled(
    layer: Op, weights: tuple[FloatArray, ...], gain: FloatArray, shift: FloatArray
) -> tuple[FloatArray, ...]:
    weight, bias = weights
    axes = [1] * weight.ndim
    axes[layer.layer.channel_axis] = -1
    scaled = weight.astype(np.float64) * gain.reshape(axes)
    return scaled.astype(np.float32), (bias * gain + shift).astype(np.float32)


def _as_arithmetic(op: Op) -> tuple[Op, Op]:
    gain, shift = f"{op.name}.gain", f"{op.name}.shift"
    shape = op.out_shape
    parameters = (1,) * (len(shape) - 1) + shape[-1:]
    scaled = f"{op.name}.scaled"
    return (
        Op(
            "mul",
            scaled,
            (op.inputs[0], gain),
            (shape, parameters),
            constants=(gain,),
            block=op.block,
        ),
        Op(
            "add",
            op.name,
            (scaled, shift),
            (shape, parameters),
            act=op.act,
            constants=(shift,),
            block=op.block,
        ),
    )
