"""Which weights are small enough to become 0: magnitude pruning of single weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError
from models.simplify import fold_batchnorm
from pipeline.compress.op_names import find_ops

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from models.graph import Graph, Op
    from models.model import Model

    Mask = npt.NDArray[np.bool_]
    Floats = npt.NDArray[np.floating[Any]]

Scope = Literal["global", "uniform", "2:4"]

GROUP, KEPT_OF_GROUP = 4, 2
"""Of the pattern 2:4."""


def storable_layers(graph: Graph, keep: Collection[str] = ()) -> tuple[Op, ...]:
    """Return the layers whose weights are worth making cheaper to store, but for those of `keep`.

    That is all but depthwise ones, which hold next to none of a network's weights, and need them
    (Zhu & Gupta 2017, section 4.2).

    Raises:
        ConfigError: no op has a name of `keep`.
    """
    whole = find_ops(graph, keep)
    return tuple(
        op for op in graph.ops if op.has_weights and op.kind != "depthwise" and op.name not in whole
    )


def layers_to_store(model: Model, keep: Collection[str], done: str) -> tuple[Op, ...]:
    """Return the layers whose weights a pass changes; `done` says what it does to them.

    Raises:
        ConfigError: the model holds codes or no such layer, or no op has a name of `keep`.
    """
    if model.quantization is not None:
        raise ConfigError(
            f"the model is {model.number_format} already; weights are {done} before numbers are "
            "made smaller: give the float model that it was made from"
        )
    layers = storable_layers(model.graph, keep)
    if not layers:
        raise ConfigError(
            "the model has no layer whose weights could be "
            f"{done}: there are depthwise ones and those of keep at most"
        )
    return layers


def folded_weights(model: Model, layers: Collection[Op]) -> dict[str, Floats]:
    """Return the weights of layers as files hold them, batch normalisation folded in.

    Raises:
        ConfigError: weights that are not finite.
    """
    folded = fold_batchnorm(model)
    found = {op.name: folded.weights[op.name][0] for op in layers}
    for name, weight in found.items():
        if not np.isfinite(weight).all():
            raise ConfigError(
                f"layer {name!r} has weights that are not finite; none can be chosen by their "
                "size: take the weights from before they were damaged"
            )
    return found


def largest_weights(weights: Mapping[str, Floats], ratio: float, scope: Scope) -> dict[str, Mask]:
    """Return, for each layer, which of its weights stay; of equals, those that come first.

    Args:
        weights: of layers, the axis of what a layer reads last.
        ratio: share of them that goes; 2:4 goes by its pattern instead.
        scope: ``uniform``: this share of each layer; ``global``: of all together, by the score
            w^2 / (the sum of all w^2 of the layer that are no smaller), so that layers can be
            compared (LAMP: Lee et al. 2021, equation 1); ``2:4``: of every four weights that
            follow each other along the last axis, the two that are larger. A layer whose last axis
            is no multiple of four stays whole.

    Returns:
        Masks in the shapes of the weights. Of each layer one weight stays at least.
    """
    if scope == "2:4":
        return {name: _two_of_four(weight) for name, weight in weights.items()}
    if scope == "uniform":
        return {
            name: _largest(np.abs(weight), weight.size - round(ratio * weight.size), least=1)
            for name, weight in weights.items()
        }
    scores = [_lamp(weight) for weight in weights.values()]
    every = np.concatenate([*scores, np.zeros(0)])
    alive = sum(bool(score.any()) for score in scores)
    kept = _largest(every, len(every) - round(ratio * len(every)), least=alive)
    ends = np.cumsum([weight.size for weight in weights.values()])
    return {
        name: kept[end - weight.size : end].reshape(weight.shape)
        for (name, weight), end in zip(weights.items(), ends.tolist(), strict=True)
    }


def _largest(values: Floats, count: int, *, least: int) -> Mask:
    """Return a mask of the largest values, exactly `count` of them but no fewer than `least`."""
    flat = values.reshape(-1)
    gone = len(flat) - min(max(count, least), len(flat))
    if gone in (0, len(flat)):
        return np.full(values.shape, not gone)
    edge = np.partition(flat, gone)[gone]
    kept: Mask = flat > edge
    equal = np.flatnonzero(flat == edge)
    kept[equal[: len(flat) - gone - np.count_nonzero(kept)]] = True
    return kept.reshape(values.shape)


def _lamp(weight: Floats) -> npt.NDArray[np.float64]:
    squares = np.square(weight.reshape(-1).astype(np.float64))
    order = np.argsort(-squares, kind="stable")
    sums = np.cumsum(squares[order])
    scores = np.zeros_like(squares)
    np.divide(squares[order], sums, out=sums, where=sums > 0)
    scores[order] = sums
    return scores


def _two_of_four(weight: Floats) -> Mask:
    if not fits_pattern(weight.shape):
        return np.ones(weight.shape, bool)
    groups = np.abs(weight).reshape(-1, GROUP)
    largest = np.argsort(-groups, axis=1, kind="stable")[:, :KEPT_OF_GROUP]
    kept = np.zeros(groups.shape, bool)
    np.put_along_axis(kept, largest, values=True, axis=1)
    return kept.reshape(weight.shape)


def fits_pattern(shape: tuple[int, ...]) -> bool:
    """Tell whether weights of a shape divide into groups of four along what their layer reads."""
    return not shape[-1] % GROUP
