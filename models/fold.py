"""Weights without batch normalisation: folded from a network, or random for timing alone.

A runtime sees a convolution and its batch normalisation as one convolution. Writers, quantisers
and `models.execute` take weights in that form, by op name, in the layout of `Op.weight_shape`.
This module does not import torch: a search that only times candidates never loads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.errors import VerificationError
from models.activations import FUSED_ACTIVATIONS

if TYPE_CHECKING:
    from models.graph import Graph, Op

FloatArray = npt.NDArray[np.float32]

Weights = Mapping[str, tuple[FloatArray, ...]]
"""Op name -> (weight of shape `Op.weight_shape`, bias of shape (out,)), constant -> (its value,).

All are float32, but for constants of another type.
"""

# A prime: rows of a layer larger than the pool start at ever different places in it.
_POOL = 65_521
_BIAS_STD = 0.1


def fold(graph: Graph, module: Any) -> Weights:
    """Fold batch normalisation into the convolutions, in float64.

    `module` has a submodule under the name of every op of the graph that has weights.

    With gamma, beta, mean and variance of the normalisation, the convolution w·x becomes
    (w·g)·x + beta - mean·g with g = gamma / sqrt(variance + eps).

    Raises:
        VerificationError: a layer with which nothing can be computed: numbers that are not finite,
            or a negative variance; names layer and tensor.
    """
    layers = [op for op in graph.ops if op.has_weights]
    return {op.name: _folded(op, module.get_submodule(op.name)) for op in layers}


def random_weights(graph: Graph, rng: np.random.Generator) -> Weights:
    """Draw weights for a candidate that will be timed and not trained, in a few milliseconds.

    Latency does not depend on the values as long as activations stay ordinary numbers, so the
    layers are slices of one normal pool, scaled after He et al. 2015 (eq. 10) to keep the mean
    square of the activations through the depth: 2 / fan_in where an activation follows,
    1 / fan_in where none does. Biases are small and not zero, so that tests see them.
    """
    pool = rng.standard_normal(_POOL, dtype=np.float32)
    activated = {op.inputs[0] for op in graph.ops if op.act not in FUSED_ACTIVATIONS}
    layers = [op for op in graph.ops if op.has_weights]
    # All layers share one block of memory: numpy gives large ones huge pages, which is ten times
    # quicker than touching a fresh small page every 4 kB.
    free = np.empty(sum(prod(op.weight_shape) + op.out_shape[-1] for op in layers), np.float32)
    weights: dict[str, tuple[FloatArray, ...]] = {}
    for op in layers:
        fan_in = prod(op.weight_shape) // op.out_shape[-1]
        gain = 2.0 if op.act != "none" or op.name in activated else 1.0
        offset = int(rng.integers(_POOL))
        size, channels = prod(op.weight_shape), op.out_shape[-1]
        weight, bias, free = free[:size], free[size : size + channels], free[size + channels :]
        _fill(weight, pool, offset, (gain / fan_in) ** 0.5)
        _fill(bias, pool, offset, _BIAS_STD)
        weights[op.name] = (weight.reshape(op.weight_shape), bias)
    for constant in graph.constants:
        if constant.dtype != "float32":
            weights[constant.name] = (np.zeros(constant.shape, constant.dtype),)
            continue
        value = np.empty(prod(constant.shape), np.float32)
        _fill(value, pool, int(rng.integers(_POOL)), 1.0)
        weights[constant.name] = (value.reshape(constant.shape),)
    return weights


def _fill(flat: FloatArray, pool: FloatArray, offset: int, scale: float) -> None:
    """Write the endless repetition of `pool`, from `offset`, scaled."""
    done = 0
    while done < flat.size:
        part = pool[offset : offset + flat.size - done]
        np.multiply(part, np.float32(scale), out=flat[done : done + part.size])
        done, offset = done + part.size, 0


def _folded(op: Op, layer: Any) -> tuple[FloatArray, FloatArray]:
    """Return (weight, bias) of a layer: a ConvBN, or one with weight and bias of its own."""
    for name, tensor in layer.state_dict().items():
        _check(op, name, _float64(tensor))
    with np.errstate(over="ignore"):
        weight, bias = _combined(op, layer)
    for name, array in (("weight", weight), ("bias", bias)):
        _check(op, f"{name} after folding, as float32,", array)
    return weight, bias


def _check(op: Op, name: str, values: npt.NDArray[Any]) -> None:
    """Refuse values with which nothing can be computed. Raises VerificationError."""
    if name.endswith("running_var") and values.min(initial=0.0) < 0:
        channel = int(values.argmin())
        wrong = f"is {values[channel]:g} in channel {channel}, and no variance is negative"
    elif not np.isfinite(values).all():
        bad = values[~np.isfinite(values)]
        wrong = f"has {bad.size} of {values.size} values that are not finite, the first {bad[0]}"
    else:
        return
    raise VerificationError(
        f"layer {op.name!r} cannot be computed: its {name} {wrong}; take the weights from before "
        "they were damaged, or train again (with a lower learning rate, if training did it)"
    )


def _combined(op: Op, layer: Any) -> tuple[FloatArray, FloatArray]:
    if not hasattr(layer, "bn"):
        return _layout(op, _float64(layer.weight)), _float64(layer.bias).astype(np.float32)
    bn = layer.bn
    gain = _float64(bn.weight) / np.sqrt(_float64(bn.running_var) + bn.eps)
    weight = _float64(layer.conv.weight) * gain[:, None, None, None]
    bias = _float64(bn.bias) - _float64(bn.running_mean) * gain
    return _layout(op, weight), bias.astype(np.float32)


def _float64(tensor: Any) -> npt.NDArray[np.float64]:
    return np.asarray(tensor.detach().cpu().numpy(), np.float64)


def _layout(op: Op, weight: npt.NDArray[np.float64]) -> FloatArray:
    """Bring torch's (out, in / groups, kh, kw) or (out, in) into the layout of the op's weight."""
    return np.ascontiguousarray(weight.transpose(op.layer.from_torch), np.float32)
