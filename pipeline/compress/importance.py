"""How much a channel matters: what pruning goes by when it chooses which to cut.

Scores are of weights with batch normalisation folded in, since that is what reaches the next
layer; each layer's are divided by their mean over the group, so that groups can be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError
from models.simplify import fold_batchnorm
from pipeline.compress.taylor import taylor_terms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from models.channels import Channels, Group
    from models.graph import Op
    from models.model import Model
    from pipeline.train.lessons import Lessons

    Array = npt.NDArray[np.float64]

Importance = Literal["l1", "l2", "bn_scale", "taylor"]

_NORMS: Mapping[str, Callable[[Array], Array]] = {
    "l1": lambda rows: np.abs(rows).sum(axis=1),
    "l2": lambda rows: np.sqrt(np.square(rows).sum(axis=1)),
}


def score_channels(
    model: Model, channels: Channels, importance: Importance, lessons: Lessons | None = None
) -> tuple[npt.NDArray[np.float64], ...]:
    """Return a score for each channel of each group, in the order of `Group.ids`; mean 1.

    Those of a group that there is nothing to go by are infinite.

    Args:
        model: its weights.
        channels: of its graph.
        importance: ``l1`` (Li et al. 2017) or ``l2``, the norm of a channel's weights in every
            layer that makes it or takes it in (Fang et al. 2023); ``bn_scale``, the size of its
            scales in batch normalisation (Liu et al. 2017); or ``taylor``, what the loss of the
            truths would change without it (Molchanov et al. 2019).
        lessons: what ``taylor`` takes that loss of.

    Raises:
        ConfigError: there is no batch normalisation or no loss to go by, or weights are not finite.
    """
    if importance == "bn_scale":
        found = _of_scales(model, channels)
    elif importance == "taylor":
        folded = fold_batchnorm(model)
        if lessons is None:
            raise ConfigError(
                "importance taylor goes by samples to learn from; give --data with labels, or "
                "choose l1 or l2"
            )
        found = _of_layers(model, channels, taylor_terms(folded, lessons), _sum)
    else:
        folded = fold_batchnorm(model)
        weights = {op.name: folded.weights[op.name][0] for op in model.graph.ops if op.has_weights}
        found = _of_layers(model, channels, weights, _NORMS[importance])
    return tuple(_of_group(group, found) for group in channels.groups)


def _sum(rows: Array) -> Array:
    total: Array = rows.sum(axis=1)
    return total


_Site = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Channels of a layer's positions, and a score for each position."""


def _of_group(group: Group, sites: list[_Site]) -> npt.NDArray[np.float64]:
    ids = np.array(group.ids)
    order = np.argsort(ids)
    scores = []
    for channels, values in sites:
        here = np.isin(channels, ids)
        if here.any():
            places = order[np.searchsorted(ids[order], channels[here])]
            each = np.bincount(places, values[here], len(ids))
            scores.append(each / (each.mean() or 1.0))
    return np.mean(scores, axis=0) if scores else np.full(len(ids), np.inf)


def _of_layers(
    model: Model,
    channels: Channels,
    values: Mapping[str, npt.NDArray[Any]],
    norm: Callable[[Array], Array],
) -> list[_Site]:
    """Return a score of each channel of each layer, by values in the shape of its weight."""
    sites = []
    for op in model.graph.ops:
        if not op.has_weights:
            continue
        weight = values[op.name].astype(np.float64)
        if not np.isfinite(weight).all():
            raise ConfigError(
                f"layer {op.name!r} has weights that are not finite; no channel can be chosen by "
                "them: take the weights from before they were damaged"
            )
        for tensor, rows in _rows(op, weight):
            if tensor in channels.tensors:
                sites.append((channels.tensors[tensor].ids, norm(rows)))
    return sites


def _rows(op: Op, weight: Array) -> Iterator[tuple[str, Array]]:
    """Yield a layer's weights as a row for each channel that it makes, and that it takes in."""
    made = np.moveaxis(weight, op.layer.channel_axis, 0)
    yield op.name, made.reshape(len(made), -1)
    if op.kind == "depthwise":
        return
    groups = getattr(op.attributes, "groups", 1)
    taken = np.moveaxis(weight.reshape(groups, len(weight) // groups, *weight.shape[1:]), -1, 1)
    yield op.inputs[0], taken.reshape(groups * weight.shape[-1], -1)


def _of_scales(model: Model, channels: Channels) -> list[_Site]:
    sites = []
    for op in model.graph.ops:
        if op.kind == "batchnorm":
            scale = model.weights[op.inputs[1]][0].astype(np.float64)
            sites.append((channels.tensors[op.name].ids, np.abs(scale)))
    if not sites:
        raise ConfigError(
            "importance bn_scale goes by batch normalisation, and the model has none (files have "
            "it folded into their layers); choose l1 or l2"
        )
    return sites
