"""A network as everything that a file of it holds: ops, weights, number formats, ends.

What passes, writers and the check of their files take, and what passes give. No torch; on disk
one .npz, never a pickle.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from models import weights_file
from models.fold import random_weights
from models.graph import INPUT, GraphError
from models.graph_json import graph_from_json, graph_to_json
from models.number_format import FLOAT32, NumberFormat
from models.quantization import Quantization
from models.scales import random_quantization

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

    from models.fold import Weights
    from models.graph import Graph

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Input:
    """What a network is fed.

    Attributes:
        name: in files.
        layout: of the samples that its user has, NCHW or NHWC (NCL or NLC of sequences); the
            graph itself has channels last. Empty for the graph's own.
        mean: of each channel, or one for all: fed is (value - mean) * scale. Empty where values
            are fed as they are.
        scale: as `mean`.
        colours: the order of the channels of a picture: RGB, BGR or grey; empty if that is not
            known.
    """

    name: str = INPUT
    layout: str = "NCHW"
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    colours: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """What a network gives.

    Attributes:
        name: in files.
        labels: what each unit stands for, if that is known.
        layout: in which its user gets it, as of `Input`; empty for the graph's own.
    """

    name: str = "logits"
    labels: tuple[str, ...] = ()
    layout: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A network that can be written to a file; a value, which no pass changes.

    Attributes:
        graph: its ops.
        weights: op name -> (weight, bias), normalisation folded in; constant -> (its value,).
        quantization: number formats of its tensors, where they are not float32 throughout.
        inputs: what goes in, in the order of the graph's inputs; their names there if left out.
        outputs: what comes out, in the order of the graph's outputs; if left out, ``logits`` or,
            where there are several, their names there.
        history: what was done to it, in order, a readable line each.
    """

    graph: Graph
    weights: Weights
    quantization: Quantization | None = None
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Freeze the mapping; name the ends that are not named, refuse others than the graph's."""
        graph = self.graph
        if not self.inputs:
            inputs = tuple(Input(tensor.name) for tensor in graph.inputs)
            object.__setattr__(self, "inputs", inputs)
        if not self.outputs:
            several = len(graph.outputs) > 1
            outputs = tuple(Output(name) if several else Output() for name in graph.outputs)
            object.__setattr__(self, "outputs", outputs)
        for what, ends, there in (
            ("inputs", self.inputs, graph.inputs),
            ("outputs", self.outputs, graph.outputs),
        ):
            if len(ends) != len(there):
                raise GraphError(f"{len(ends)} {what} are named; the network has {len(there)}")
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))

    @property
    def number_format(self) -> NumberFormat:
        """Its number format as a whole."""
        return FLOAT32 if self.quantization is None else self.quantization.number_format

    def with_quantization(self, quantization: Quantization, *, done: str) -> Model:
        """Return the same network in these number formats; `done` is the line of its history."""
        return replace(self, quantization=quantization, history=(*self.history, done))

    def digest(self) -> str:
        """Return a 16-digit hash of all but the history: of what its files can depend on."""
        return weights_file.digest(json.dumps(self._header(), sort_keys=True), self._arrays())

    def save(self, path: Path | str) -> None:
        """Write the model to one .npz; a reader never sees half a file.

        Raises:
            ConfigError: if the file cannot be written.
        """
        header = {
            "version": _VERSION,
            **self._header(),
            "history": self.history,
            "digest": self.digest(),
        }
        weights_file.write(path, "model", header, self._arrays())

    @classmethod
    def load(cls, path: Path | str) -> Model:
        """Read what `save` wrote.

        Raises:
            ConfigError: if there is no such file, it is not a model, or it is damaged.
        """
        return weights_file.read(path, "model", cls._made)

    def _header(self) -> dict[str, Any]:
        return {
            "graph": graph_to_json(self.graph),
            "weights": list(self.weights),
            "quantization": None if self.quantization is None else self.quantization.to_json(),
            "inputs": [_without_default(asdict(end), "colours") for end in self.inputs],
            "outputs": [_without_default(asdict(end), "layout") for end in self.outputs],
        }

    def _arrays(self) -> weights_file.Arrays:
        """Return the arrays under their place: names of ops may be anything."""
        codes = {} if self.quantization is None else self.quantization.arrays()
        return codes | {
            f"{place}.{number}": array
            for place, arrays in enumerate(self.weights.values())
            for number, array in enumerate(arrays)
        }

    @classmethod
    def _made(cls, header: dict[str, Any], arrays: weights_file.Arrays) -> Model:
        graph, stored = graph_from_json(header["graph"]), header["quantization"]
        weights = {
            name: tuple(_taken(arrays, place)) for place, name in enumerate(header["weights"])
        }
        quantization = None if stored is None else Quantization.from_json(stored, arrays)
        if arrays or len(weights) != len(header["weights"]):
            raise ValueError("arrays that no op has")
        return cls(
            graph=graph,
            weights=weights,
            quantization=quantization,
            inputs=tuple(_end(Input, end) for end in header["inputs"]),
            outputs=tuple(_end(Output, end) for end in header["outputs"]),
            history=tuple(map(str, header["history"])),
        )


def _without_default(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Leave out what digests of before did not know, where it says nothing."""
    return {key: value for key, value in values.items() if key != name or value}


def _taken(arrays: weights_file.Arrays, place: int) -> Iterator[Any]:
    """Take the arrays of one name out of those of a file; KeyError if there is none."""
    yield arrays.pop(f"{place}.0")
    number = 1
    while f"{place}.{number}" in arrays:
        yield arrays.pop(f"{place}.{number}")
        number += 1


_End = TypeVar("_End", Input, Output)


def _end(cls: type[_End], data: dict[str, Any]) -> _End:
    """Read what `asdict` gave of an input or output."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return cls(**values)


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
    assumed = random_quantization(graph, number_format)
    return model.with_quantization(assumed, done=f"assumed scales, {number_format}")
