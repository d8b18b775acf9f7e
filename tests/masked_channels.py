"""What a network gives whose layers read zeros where channels would be cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from models import ops

if TYPE_CHECKING:
    from collections.abc import Collection

    from models.channels import Along, Channels
    from models.model import Model

Arrays = dict[str, np.ndarray[Any, Any]]


def masked(model: Model, channels: Channels, gone: Collection[int], inputs: Arrays) -> Arrays:
    """Run a whole model whose layers read zeros where they would read channels that are gone."""

    def zeroed(value: np.ndarray[Any, Any], along: Along) -> np.ndarray[Any, Any]:
        sides = [1] * value.ndim
        sides[along.axis] = -1
        return value * ~np.isin(along.ids, list(gone)).reshape(sides)

    known = {**inputs, **{t.name: model.weights[t.name][0] for t in model.graph.constants}}
    for op in model.graph.ops:
        values = [known[name] for name in op.inputs]
        if op.has_weights and op.inputs[0] in channels.tensors:
            values = [zeroed(values[0], channels.tensors[op.inputs[0]]).astype(np.float32)]
        own = model.weights[op.name] if op.has_weights else ()
        known[op.name] = ops.compute(op, [*values, *own])
    return {name: known[name] for name in model.graph.outputs}
