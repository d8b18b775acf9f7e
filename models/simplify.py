"""The same function with fewer ops: normalisation folded into layers, activations fused. No torch.

A user's network keeps its batch normalisation, so that it can still be trained; quantisation and
files want it gone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from models.graph import Graph, Op
from models.ops import AvgPool, Mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.fold import FloatArray
    from models.model import Model
    from models.quantization import Quantization


def fold_batchnorm(model: Model) -> Model:
    """Return a model without batch normalisation; itself where there is none.

    One behind a layer that nothing else reads is folded into it, in float64, as in
    `models.fold.fold`; any other becomes a multiplication and an addition.
    """
    if all(op.kind != "batchnorm" for op in model.graph.ops):
        return model
    graph, weights = model.graph, dict(model.weights)
    readers = graph.readers()
    ops: dict[str, Op] = {}
    renamed: dict[str, str] = {}
    for read in graph.ops:
        op = replace(read, inputs=tuple(renamed.get(name, name) for name in read.inputs))
        if op.kind != "batchnorm":
            ops[op.name] = op
            continue
        gain, shift = _gain_and_shift(op, model)
        layer = ops.get(op.inputs[0])
        if (
            layer is not None
            and layer.has_weights
            and layer.act == "none"
            and readers[read.inputs[0]] == 1
            and op.act in layer.rules.activations
        ):
            weights[layer.name] = _scaled(layer, weights[layer.name], gain, shift)
            ops[layer.name] = replace(layer, act=op.act)
            renamed[op.name] = layer.name
            continue
        ops |= {made.name: made for made in _as_arithmetic(op)}
        shape = (1,) * (len(op.out_shape) - 1) + gain.shape
        weights[f"{op.name}.gain"] = (gain.astype(np.float32).reshape(shape),)
        weights[f"{op.name}.shift"] = (shift.astype(np.float32).reshape(shape),)
    outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    return _with_ops(model, Graph(graph.inputs, tuple(ops.values()), outputs), weights)


def fold_constants(model: Model) -> Model:
    """Return a model whose layers hold what is added to each of their channels, or times it.

    A model with codes stays as it is: its scales are of what the layer itself gives.
    """
    if model.quantization is not None:
        return model
    graph, weights = model.graph, dict(model.weights)
    readers = graph.readers()
    ops: dict[str, Op] = {}
    renamed: dict[str, str] = {}
    for read in graph.ops:
        op = replace(read, inputs=tuple(renamed.get(name, name) for name in read.inputs))
        found = _layer_and_constant(op, ops, weights)
        if found is None or readers[read.inputs[op.inputs.index(found[0].name)]] != 1:
            ops[op.name] = op
            continue
        layer, value = found
        gain, shift = _as_line(op, value, first=op.inputs[0] == layer.name)
        weights[layer.name] = _scaled(layer, weights[layer.name], gain, shift)
        ops[layer.name] = replace(layer, act=op.act)
        renamed[op.name] = layer.name
    if not renamed:
        return model
    outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    return _with_ops(model, Graph(graph.inputs, tuple(ops.values()), outputs), weights)


def _layer_and_constant(
    op: Op, ops: dict[str, Op], weights: dict[str, tuple[FloatArray, ...]]
) -> tuple[Op, FloatArray] | None:
    """Return the layer that an op reads, and the constant for its channels; None otherwise."""
    if op.kind not in ("add", "sub", "mul", "div") or len(op.constants) != 1:
        return None
    (constant,) = op.constants
    layer = next((ops[name] for name in op.inputs if name in ops), None)
    if (
        layer is None
        or not layer.has_weights
        or layer.act != "none"
        or layer.out_shape != op.out_shape
        or op.act not in layer.rules.activations
        or (op.kind == "div" and op.inputs[1] != constant)
    ):
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
    graph, held = model.graph, model.quantization
    coded: Mapping[str, object] = {} if held is None else held.tensors
    readers = graph.readers()
    ops: dict[str, Op] = {}
    renamed: dict[str, str] = {}
    for read in graph.ops:
        op = replace(read, inputs=tuple(renamed.get(name, name) for name in read.inputs))
        before = ops.get(op.inputs[0])
        if (
            op.kind == "act"
            and read.inputs[0] not in coded
            and before is not None
            and before.kind != "act"
            and before.act == "none"
            and op.act in before.rules.activations
            and readers[read.inputs[0]] == 1
        ):
            ops[before.name] = replace(before, act=op.act)
            renamed[op.name] = before.name
        else:
            ops[op.name] = op
    if not renamed:
        return model
    outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    if held is not None:
        model = replace(model, quantization=_renamed(held, renamed))
    return _with_ops(model, Graph(graph.inputs, tuple(ops.values()), outputs), dict(model.weights))


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
