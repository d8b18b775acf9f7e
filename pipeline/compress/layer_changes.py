"""What is changed of single layers: weights that are 0, weights of fewer bits, fewer channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from device_agents.errors import ConfigError
from models.codes import WeightCodes
from pipeline.compress.layer_codes import WeightRules, round_to_nearest, scales_of_weight
from pipeline.compress.magnitude import folded_weights, largest_weights
from pipeline.compress.passes.prune import PruneOptions, rank

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from models.graph import Op
    from models.model import Model

Of = Literal["sparsity", "bits", "width"]

LEVELS: Mapping[Of, tuple[float, ...]] = {
    "sparsity": (0.3, 0.5, 0.7, 0.8, 0.9, 0.95),
    "bits": (8, 7, 6, 5, 4, 3, 2),
    "width": (0.75, 0.5, 0.25),
}
"""From the mildest on: share of a layer's weights that are 0, bits of its weights, share of its
channels that stays."""


@dataclass(frozen=True, slots=True)
class Change:
    """A layer at a level: `made` is its weight, or the network without some channels."""

    layer: str
    kind: str
    of: Of
    level: float
    parameters: int
    made: npt.NDArray[np.float32] | Model


def plan(model: Model, of: Sequence[Of]) -> tuple[list[Change], tuple[str, ...]]:
    """Return what is changed, of a model without batch normalisation, and what cannot be.

    Raises:
        ConfigError: nothing can be changed.
    """
    changes: list[Change] = []
    left_out = []
    for one in of:
        try:
            found = list(_narrowed(model) if one == "width" else _with_weights(model, one))
        except ConfigError as error:
            left_out.append(f"{one}: {error}")
            continue
        changes += found
        if not found:
            left_out.append(f"{one}: the model has no layer with weights")
    if not changes:
        raise ConfigError("; ".join(left_out))
    return changes, tuple(left_out)


def _with_weights(model: Model, of: Of) -> Iterator[Change]:
    """Yield each layer with weights that are sparser, or of fewer bits."""
    layers = [op for op in model.graph.ops if op.has_weights]
    for name, weight in folded_weights(model, layers).items():
        op = model.graph[name]
        for level in LEVELS[of]:
            if of == "sparsity":
                kept = largest_weights({name: weight}, level, "uniform")[name]
                changed = np.where(kept, weight, 0)
            else:
                changed = round_weight(op, weight, int(level))
            one = changed.astype(np.float32)
            yield Change(name, op.kind, of, level, weight.size, one)


def round_weight(op: Op, weight: npt.NDArray[Any], bits: int) -> npt.NDArray[np.float32]:
    """Return the numbers that a weight's codes of so many bits stand for, as `ptq` makes them."""
    rules = WeightRules(bits=bits)
    scales = scales_of_weight(op, weight, rules).astype(np.float32)
    scales[scales == 0] = 1  # a channel of zeros has any
    return WeightCodes(round_to_nearest(op, weight, scales, rules.largest), scales).dequantize(op)


def _narrowed(model: Model) -> Iterator[Change]:
    """Yield networks with fewer channels of one group, the most important ones (L2)."""
    ranked = rank(model, PruneOptions())
    groups = ranked.channels.groups
    whole = [group.width for group in groups]
    for place, group in enumerate(groups):
        names = dict.fromkeys((*group.layers, *group.readers))
        parameters = sum(model.weights[name][0].size for name in names if name in model.weights)
        seen = {group.width}
        for level in LEVELS["width"]:
            width = max(round(level * group.width), 1)
            if not ranked.free[place] or width in seen:
                continue
            seen.add(width)
            widths = [*whole[:place], width, *whole[place + 1 :]]
            made = ranked.cut_to(widths, done="narrowed")
            kind = f"{len(group.layers)} layers" if len(group.layers) > 1 else "1 layer"
            yield Change(group.name, kind, "width", level, parameters, made)
