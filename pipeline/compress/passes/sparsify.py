"""Single weights made 0 where they are smallest: for storage.

Unstructured pruning (Han et al. 2015): a packed file holds zeros in next to nothing. The network
computes with them as with any number, and no runtime here is faster for it; see docs/sparsity.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import ConfigError
from models.graph_module import GraphModule
from models.model import Model
from pipeline.compress.magnitude import (
    Scope,
    fits_pattern,
    folded_weights,
    largest_weights,
    layers_to_store,
)
from pipeline.compress.thinning import Thinning
from pipeline.compress.training import TrainingOptions, train, words_of
from pipeline.train.balance import balance_gradients

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.graph import Op
    from pipeline.compress.api import Needs, Use
    from pipeline.compress.magnitude import Mask


@dataclass(frozen=True, slots=True)
class SparsifyOptions(TrainingOptions):
    """Options of `Sparsify`.

    Attributes:
        ratio: share of the weights that become 0, of those that can; 0 to below 1. 2:4 is a half.
        scope: ``global`` takes the least important of all layers, ``uniform`` this share of each,
            ``2:4`` two of every four along what a layer reads.
        keep: layers whose weights all stay: names, or patterns such as ``blocks.1.*``.
        epochs: of training meanwhile; 0 for none.
        batch_size: samples of a step of it.
        learning_rate: the highest of it.
        distillation: weight of imitating the model as it came beside the truths.
        device: where it is trained: ``cpu``, ``cuda``, ``mps`` or ``auto``.
    """

    ratio: float = 0.5
    scope: Scope = "global"
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse to take everything, and a share that the pattern does not have."""
        if not 0 <= self.ratio < 1:
            raise ConfigError(
                f"sparsify, ratio: {self.ratio:g} is not at least 0 and below 1; it is the share "
                "of weights that become 0"
            )
        if self.scope == "2:4" and self.ratio != 0.5:
            raise ConfigError(
                f"sparsify, ratio: {self.ratio:g} with scope 2:4, which takes two of every four "
                "weights; leave ratio out"
            )


class Sparsify:
    """Makes the smallest weights 0."""

    name = "sparsify"
    version = 1
    takes = Model
    quantizes = False
    Options = SparsifyOptions

    def __init__(self, options: SparsifyOptions = SparsifyOptions()) -> None:
        self.options = options
        self.uses: frozenset[Use] = options.uses

    def apply(self, what: Model, needs: Needs) -> Model:
        """Return the model with more of its weights 0; trained meanwhile if there are epochs.

        Raises:
            ConfigError: the model holds codes or weights that are not finite, has no layer to take
                weights of, or no op has a name of `keep`; there is nothing to learn from, or the
                training diverged.
        """
        options = self.options
        layers = layers_to_store(what, options.keep, "sparsified")
        weights = folded_weights(what, layers)
        if not options.epochs:
            made = with_zeros(what, largest_weights(weights, options.ratio, options.scope))
            return replace(made, history=(*what.history, self._done(what, made, layers)))
        module = GraphModule(what)
        balance_gradients(module)
        thinning = Thinning(module, layers, options.ratio, options.scope)
        found = train(module, options, needs, name=self.name, after_step=thinning)
        made = module.model()
        done = self._done(what, made, layers) + words_of(options, found)
        return replace(made, history=(*what.history, done))

    def _done(self, before: Model, after: Model, layers: tuple[Op, ...]) -> str:
        options = self.options
        total = sum(before.weights[op.name][0].size for op in layers)
        first, last = (count_zeros(model, layers) for model in (before, after))
        how = "2:4" if options.scope == "2:4" else f"{options.scope}, ratio {options.ratio:g}"
        whole = [op.name for op in layers if not fits_pattern(op.weight_shape)]
        odd = (
            f"; {len(whole)} layers stay whole, since they read no multiple of 4 values"
            if options.scope == "2:4" and whole
            else ""
        )
        there = f"of {total} weights in {len(layers)} layers"
        if last == first:
            nothing = "sparsified no more" if options.epochs else "sparsified nothing"
            return f"{nothing}: {how}, {first} {there} are 0{odd}"
        return f"sparsified by magnitude, {how}: {last} {there} are 0 ({last / total:.1%}){odd}"


def with_zeros(model: Model, kept: Mapping[str, Mask]) -> Model:
    """Return a model whose weights are 0 where a mask of their layer is not set."""
    weights = dict(model.weights)
    for name, mask in kept.items():
        weight, bias = weights[name]
        weights[name] = (np.where(mask, weight, np.float32(0)), bias)
    return replace(model, weights=weights)


def count_zeros(model: Model, layers: tuple[Op, ...]) -> int:
    """Return how many weights of layers are 0."""
    return sum(
        model.weights[op.name][0].size - int(np.count_nonzero(model.weights[op.name][0]))
        for op in layers
    )
