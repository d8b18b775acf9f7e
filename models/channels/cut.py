"""A model without some of its channels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError
from models.channels.rules import Kept, rule_of
from models.graph import Graph, GraphBuilder

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from models.channels.follow import Channels
    from models.fold import FloatArray
    from models.graph import Op
    from models.model import Model

    Mask = npt.NDArray[np.bool_]


def cut(model: Model, channels: Channels, gone: Collection[int], *, done: str) -> Model:
    """Return a model without some channels.

    It gives what the model would give if layers read zeros where they read these channels.

    Args:
        model: in real numbers.
        channels: of its graph.
        gone: ids of groups' channels; of each group, some must stay.
        done: the line of its history.

    Raises:
        ConfigError: a group would vanish, or the model holds codes.
    """
    if model.quantization is not None:
        raise ConfigError(
            f"the model is {model.number_format} already; channels are cut before numbers are made "
            "smaller: give the float model that it was made from"
        )
    removed = np.array(sorted(gone), np.int64)
    for group in channels.groups:
        if np.isin(group.ids, removed).all():
            raise ConfigError(
                f"all {group.width} channels of layer {group.name!r} would be cut; leave one"
            )
    kept = {
        name: Kept(along.axis, ~np.isin(along.ids, removed))
        for name, along in channels.tensors.items()
    }
    cutting = _Cutting(model, kept)
    for op in model.graph.ops:
        cutting.add(op)
    graph = Graph(model.graph.inputs, tuple(cutting.builder.ops), model.graph.outputs)
    weights = cutting.weights
    return replace(model, graph=graph, weights=weights, history=(*model.history, done))


class _Cutting:
    """A model that is put together again, op by op."""

    def __init__(self, model: Model, kept: Mapping[str, Kept]) -> None:
        self.builder = GraphBuilder()
        self.weights: dict[str, tuple[FloatArray, ...]] = {}
        self._model = model
        self._kept = kept
        self._parts: dict[tuple[Any, ...], str] = {}
        for tensor in model.graph.inputs:
            self.builder.input(tensor.name, tensor.shape, tensor.dtype)

    def add(self, op: Op) -> None:
        """Add what is left of an op, its weights and constants."""
        rule, made = rule_of(op), self._kept[op.name]
        names = [
            self._constant(op, place, made if rule.parameters else None)
            if name in op.constants
            else name
            for place, name in enumerate(op.inputs)
        ]
        read = self._read(op)
        attributes = rule.attributes(op, read, made)
        self.builder.op(
            op.kind, op.name, names, attributes, act=op.act, role=op.role, block=op.block
        )
        if not op.has_weights:
            return
        weight, bias = self._model.weights[op.name]
        last = len(op.out_shape) - 1
        takes = read.along(len(op.in_shapes[0]) - 1, op.in_shapes[0][-1])
        gives = made.along(last, op.out_shape[-1])
        part = rule.weight(op, weight, takes, gives)
        self.weights[op.name] = (np.ascontiguousarray(part), bias[gives])

    def _read(self, op: Op) -> Kept:
        name, shape = op.inputs[0], op.in_shapes[0]
        if name in op.constants:
            axis = max(len(shape) - 1, 0)
            return Kept(axis, np.ones(shape[axis] if shape else 0, bool))
        return self._kept[name]

    def _constant(self, op: Op, place: int, made: Kept | None) -> str:
        """Add the part of a constant that is left; return its name, its own if it has no other."""
        name, shape = op.inputs[place], op.in_shapes[place]
        (value,) = self._model.weights[name]
        axis, mask = 0, np.ones(0, bool)
        if made is not None and not made.mask.all():
            # Parameters stand at the last axes, as shapes that are broadcast do.
            at = made.axis - len(op.out_shape) + len(shape)
            if at >= 0 and shape[at] == len(made.mask):
                axis, mask = at, made.mask
                value = np.compress(mask, value, at)
        key = (name, axis, mask.tobytes())
        if key not in self._parts:
            new = name if name not in self.weights else f"{name}.{op.name}"
            self._parts[key] = self.builder.constant(new, value.shape, str(value.dtype))
            self.weights[new] = (value,)
        return self._parts[key]
