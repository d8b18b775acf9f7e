"""Weights that share a few values, layer by layer: for storage.

Weight sharing (Han et al. 2016): a packed file holds the values of a layer once and a code of a
few bits for each weight. The network computes with float32 numbers as before, and no runtime here
is faster for it; see docs/weight-sharing.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from device_agents.plain_values import bounds
from models.graph_module import GraphModule
from models.model import Model
from models.simplify import fold_batchnorm
from pipeline.coding.distributions import entropy
from pipeline.compress.clusters import Start, share
from pipeline.compress.magnitude import folded_weights, layers_to_store
from pipeline.compress.op_names import shorten
from pipeline.compress.tables import share_values
from pipeline.compress.training import TrainingOptions, train, words_of
from pipeline.compress.zeros import Zeros

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.graph import Graph
    from pipeline.compress.api import Needs, Use
    from pipeline.compress.clusters import Shared


@dataclass(frozen=True, slots=True)
class ShareOptions(TrainingOptions):
    """Options of `Share`.

    Attributes:
        bits: of the code of a weight: a layer has 2^bits values at most, 0 among them.
        init: where k-means begins: ``linear``, values evenly spaced, or ``density``, with as many
            weights each.
        keep: layers whose weights all stay as they are: names, or patterns such as ``blocks.1.*``.
        epochs: of training the values of all layers; 0 for none.
        batch_size: samples of a step of it.
        learning_rate: the highest of it.
        distillation: weight of imitating the model as it came beside the truths.
        device: where it is trained: ``cpu``, ``cuda``, ``mps`` or ``auto``.
    """

    bits: int = field(default=5, metadata=bounds(low=1, high=8))
    init: Start = "linear"
    keep: tuple[str, ...] = ()
    learning_rate: float = field(default=0.002, metadata=bounds(above=0, high=100))


class Share:
    """Gives the weights of each layer a few values, found by k-means; what is 0 stays 0."""

    name = "share"
    version = 1
    takes = Model
    quantizes = False
    Options = ShareOptions

    def __init__(self, options: ShareOptions = ShareOptions()) -> None:
        self.options = options
        self.uses: frozenset[Use] = options.uses

    def apply(self, what: Model, needs: Needs) -> Model:
        """Return the model with few values in each layer; batch normalisation is folded first.

        With epochs the values are trained afterwards, each by the sum of its weights' gradients.

        Raises:
            ConfigError: the model holds codes or weights that are not finite, has no layer whose
                weights could share values, or no op has a name of `keep`; there is nothing to learn
                from, or the training diverged.
        """
        options = self.options
        layers = layers_to_store(what, options.keep, "shared")
        folded = fold_batchnorm(what)
        weights = folded_weights(what, layers)
        shared = {
            name: share(weight, 1 << options.bits, options.init) for name, weight in weights.items()
        }
        made = {
            name: (shared[name].numbers, arrays[1]) if name in shared else arrays
            for name, arrays in folded.weights.items()
        }
        found, trained = replace(folded, weights=made), ""
        if options.epochs:
            module = GraphModule(found)
            zeros = Zeros(module)
            tables = share_values(module, shared)

            def hold(share: float) -> None:
                tables(share)
                zeros.restore(share)  # of layers that keep weights of their own

            fitted = train(module, options, needs, name=self.name, after_step=hold)
            found, trained = module.model(), words_of(options, fitted)
        same = found.digest() == what.digest()
        done = self._done(found.graph, shared, changed=not same) + trained
        return replace(found, history=(*what.history, done))

    def _done(self, graph: Graph, shared: Mapping[str, Shared], *, changed: bool) -> str:
        bits = {name: entropy(one.counts) for name, one in shared.items()}
        sizes = {name: one.places.size for name, one in shared.items()}
        total = sum(sizes.values())
        least, most = min(bits, key=bits.__getitem__), max(bits, key=bits.__getitem__)
        mean = sum(bits[name] * sizes[name] for name in bits) / total
        what = f"{total} weights of {len(shared)} layers as codes of {self.options.bits} bits"
        low, high = shorten(graph, (least, most))
        said = (
            f"their entropy is {mean:.2f} bits a weight, from {bits[least]:.2f} in {low} "
            f"to {bits[most]:.2f} in {high}"
        )
        if not changed:
            return f"shared nothing: {what} are what they were; {said}"
        return f"shared by k-means, {self.options.init}: {what}; {said}"
