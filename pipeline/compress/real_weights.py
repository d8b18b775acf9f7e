"""The real weights that a quantised file's codes were made of, from the float model beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import ConfigError
from models.codes import along_channels
from models.simplify import fold_batchnorm, fuse_activations

if TYPE_CHECKING:
    from models.fold import FloatArray
    from models.model import Model

_NEAR_STEPS = 2.0
"""Root mean square, in codes, by which real weights may lie beside their codes: rounding makes 0.3,
correction of biases and clipping some more; weights of another layer lie dozens away."""


def take_weights(model: Model, source: Model) -> Model:
    """Return a quantised model with the real weights of its source, its codes as they are.

    Layers are matched by what they hold: converters rename and reorder them.

    Raises:
        ConfigError: a layer whose codes are near the weights of none of the source's.
    """
    quantization = model.quantization
    if quantization is None:
        return model
    plain = fuse_activations(fold_batchnorm(source))
    left = [op for op in plain.graph.ops if op.has_weights]
    weights = dict(model.weights)
    for op in model.graph.ops:
        if not op.has_weights or not quantization.has_weight_codes(op):
            continue
        codes = quantization.layer(op, *model.weights[op.name])
        steps = along_channels(op, codes.scales)
        fitting = [other for other in left if other.weight_shape == op.weight_shape]
        distance = {
            other.name: _distance(codes.weight * steps, plain.weights[other.name][0], steps)
            for other in fitting
        }
        best = min(distance, key=lambda name: distance[name], default="")
        if not best or distance[best] > _NEAR_STEPS:
            raise ConfigError(
                f"layer {op.name!r} is of another network than the float model that was given: "
                f"none of its layers of shape {op.weight_shape} has weights near these codes"
            )
        left = [other for other in left if other.name != best]
        weights[op.name] = plain.weights[best]
    return replace(model, weights=weights)


def _distance(meant: FloatArray, real: FloatArray, steps: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square((real - meant) / steps))))
