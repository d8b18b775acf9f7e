"""A network as everything that a file of it holds: ops, weights, number formats, ends.

What passes, writers and the check of their files take, and what passes give. No torch; on disk
one .npz, never a pickle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from models.fold import random_weights
from models.graph import INPUT
from models.number_format import FLOAT32, STATIC8, NumberFormat
from models.quantization import QuantizationError, random_quantization

if TYPE_CHECKING:
    import numpy as np

    from models.fold import Weights
    from models.graph import Graph
    from models.quantization import Quantization


@dataclass(frozen=True, slots=True)
class Input:
    """What a network is fed.

    Attributes:
        name: in files.
        layout: of the samples that its user has, NCHW or NHWC; the graph itself is NHWC.
        mean: of each channel, or one for all: fed is (value - mean) * scale. Empty where values
            are fed as they are.
        scale: as `mean`.
    """

    name: str = INPUT
    layout: str = "NCHW"
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """What a network gives: its name in files, and what each unit stands for if that is known."""

    name: str = "logits"
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A network that can be written to a file; a value, which no pass changes.

    Attributes:
        graph: its ops.
        weights: op name -> (weight, bias), normalisation folded in.
        quantization: number formats of its tensors, where they are not float32 throughout.
        inputs: what goes in, in the order of the graph's inputs.
        outputs: what comes out, in the order of the graph's outputs.
        history: what was done to it, in order, a readable line each.
    """

    graph: Graph
    weights: Weights
    quantization: Quantization | None = None
    inputs: tuple[Input, ...] = (Input(),)
    outputs: tuple[Output, ...] = (Output(),)
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Freeze the mapping."""
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))

    @property
    def number_format(self) -> NumberFormat:
        """Its number format as a whole."""
        return FLOAT32 if self.quantization is None else self.quantization.number_format

    def with_quantization(self, quantization: Quantization, *, done: str) -> Model:
        """Return the same network in these number formats; `done` is the line of its history."""
        return replace(self, quantization=quantization, history=(*self.history, done))


def random_model(
    graph: Graph, rng: np.random.Generator, number_format: NumberFormat = FLOAT32
) -> Model:
    """Return a model to be timed and not used: random weights, assumed scales; milliseconds.

    Raises:
        QuantizationError: a number format that has no assumed scales.
    """
    model = Model(graph, random_weights(graph, rng), history=("random weights",))
    if number_format == FLOAT32:
        return model
    if number_format == STATIC8:
        return model.with_quantization(random_quantization(graph), done="assumed scales, static8")
    raise QuantizationError(
        f"no scales can be assumed for {number_format}; have {FLOAT32}, {STATIC8}"
    )
