"""Which tensors and weights of a network are codes, and which stay real numbers: plain values.

See docs/decisions/0028-what-stays-real-in-an-int8-network.md.

Convention for hard-sigmoid gates: both formats compute relu6(x + 3) in the convolution and scale
by 1/6 afterwards, so the parameters stored for that convolution's tensor are those of
relu6(x + 3), see `hardsigmoid_sources`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.codes import (
    LayerCodes,
    QParams,
    QuantizationError,
    WeightCodes,
    quantize_layer,
    quantize_weight,
)
from models.number_format import STATIC8, NumberFormat
from models.ops import FLOAT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.graph import Graph, Op

_ENDS = (FLOAT, "int8", "uint8", "int16")


@dataclass(frozen=True, slots=True)
class Quantization:
    """Number formats of a graph's activations and weights.

    Of a static format, an op computes with codes where it can: where its output and all that it
    reads have parameters, and it is none of `float_ops` (`is_integer`). Any other op computes
    with real numbers. It reads what an op like it made as it was made, and the meaning of codes
    elsewhere; where its own output has parameters, ops with codes read it quantised by these.

    Of a dynamic format, and one of weights only, no activation has parameters: the weights of
    layers are codes, but for those of `float_ops`.

    Attributes:
        tensors: parameters of activations and constants, by name (`Graph.tensors`); a tensor
            that is not there stays real.
        dense_per_output: whether dense layers have a scale per output, as convolutions do, or
            one for the layer, as TFLite files need (`pipeline.formats.tflite.write`).
        number_format: of the whole.
        weights: op -> codes that a file came with, kept as they are: `LayerCodes` where the bias
            is codes too. Weights that are not there are quantised from the model's real ones.
        float_ops: ops that stay real although all their tensors may have parameters.
        ends: input or output of the graph -> the type that its user gives or takes it in
            (float32, int8, uint8, int16); where it is not there, the file format's own choice.
    """

    tensors: Mapping[str, QParams]
    dense_per_output: bool = True
    number_format: NumberFormat = STATIC8
    weights: Mapping[str, WeightCodes] = field(default_factory=dict)
    float_ops: frozenset[str] = frozenset()
    ends: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Freeze the mappings; refuse ends of other types."""
        for name in ("tensors", "weights", "ends"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        object.__setattr__(self, "float_ops", frozenset(self.float_ops))
        for name, dtype in self.ends.items():
            if dtype not in _ENDS:
                raise QuantizationError(f"end {name!r} is {dtype!r}; have {', '.join(_ENDS)}")

    def __getitem__(self, tensor: str) -> QParams:
        """Return the parameters of a tensor; QuantizationError names one that has none."""
        try:
            return self.tensors[tensor]
        except KeyError:
            raise QuantizationError(
                f"tensor {tensor!r} has no quantisation parameters; calibrate this same network"
            ) from None

    def is_integer(self, op: Op) -> bool:
        """Tell whether an op computes with codes."""
        names = float_tensors(op)
        known = bool(names) and all(name in self.tensors for name in names)
        return known and op.name not in self.float_ops

    def has_weight_codes(self, op: Op) -> bool:
        """Tell whether an op is a layer whose weight a file holds as codes."""
        if not op.has_weights or self.number_format.weights != "int8":
            return False
        if self.number_format.is_static:
            return self.is_integer(op)
        return op.name not in self.float_ops

    def made_as_codes(self, graph: Graph) -> frozenset[str]:
        """Return the inputs and outputs of ops that are codes where they are made.

        Constants are neither: each op reads their codes or their real value, as it computes.
        """
        given = (tensor.name for tensor in graph.inputs)
        inputs = frozenset(name for name in given if self.ends.get(name) != FLOAT)
        ops = frozenset(op.name for op in graph.ops if self.is_integer(op))
        return (inputs | ops) & self.tensors.keys()

    def layer(
        self, op: Op, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
    ) -> LayerCodes:
        """Return the codes of a layer that computes with codes.

        Those that it came with, else those of its real weights for the parameters of its input
        and output.
        """
        held = self.weights.get(op.name)
        if isinstance(held, LayerCodes):
            return held
        source, result = self[op.inputs[0]], self[op.name]
        return quantize_layer(
            op,
            weight,
            bias,
            in_scale=source.scale,
            out_scale=result.scale,
            per_output=self.dense_per_output or not op.layer.one_scale,
            wide=source.dtype == "int16",
        )

    def weight(self, op: Op, weight: npt.NDArray[np.float32]) -> WeightCodes:
        """Return the codes of the weight of a layer whose activations are real, as `layer`."""
        per_output = self.dense_per_output or not op.layer.one_scale
        held = self.weights.get(op.name)
        return quantize_weight(op, weight, per_output=per_output) if held is None else held

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `arrays` has the numbers of `weights`."""
        return {
            "number_format": str(self.number_format),
            "tensors": {name: params.to_json() for name, params in self.tensors.items()},
            "dense_per_output": self.dense_per_output,
            # Left out where they are empty, so that digests are what they were without them.
            **({"weights": list(self.weights)} if self.weights else {}),
            **({"float_ops": sorted(self.float_ops)} if self.float_ops else {}),
            **({"ends": dict(self.ends)} if self.ends else {}),
        }

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the numbers of `weights` under their place: names of ops may be anything."""
        return {
            f"codes.{place}.{number}": array
            for place, codes in enumerate(self.weights.values())
            for number, array in enumerate(codes.arrays)
        }

    @classmethod
    def from_json(
        cls, data: Mapping[str, Any], arrays: dict[str, npt.NDArray[Any]] | None = None
    ) -> Quantization:
        """Read what `to_json` wrote (also after a trip through JSON text).

        Takes what belongs to it out of `arrays`. Raises QuantizationError if it is something else.
        """
        held = {} if arrays is None else arrays
        try:
            return cls(
                {name: QParams.from_json(params) for name, params in data["tensors"].items()},
                bool(data["dense_per_output"]),
                NumberFormat.parse(data["number_format"]),
                {name: _taken(held, n) for n, name in enumerate(data.get("weights", ()))},
                frozenset(map(str, data.get("float_ops", ()))),
                {name: str(dtype) for name, dtype in data.get("ends", {}).items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise QuantizationError(f"not quantisation parameters: {error}") from error


def _taken(arrays: dict[str, npt.NDArray[Any]], place: int) -> WeightCodes:
    """Take the codes of one layer out of a file's arrays. Raises KeyError or ValueError."""
    weight, scales = arrays.pop(f"codes.{place}.0"), arrays.pop(f"codes.{place}.1")
    bias = arrays.pop(f"codes.{place}.2", None)
    if weight.dtype != np.int8 or scales.dtype != np.float32:
        raise ValueError(f"weights {weight.dtype} with scales {scales.dtype} are no codes")
    if bias is None:
        return WeightCodes(weight, scales)
    if bias.dtype not in (np.int32, np.int64):
        raise ValueError(f"biases {bias.dtype} are no codes")
    return LayerCodes(weight, scales, bias)


def float_tensors(op: Op) -> tuple[str, ...]:
    """Return what an op reads and gives that is float32, and may be codes."""
    named = zip((*op.inputs, op.name), (*op.in_dtypes, op.out_dtype), strict=True)
    return tuple(name for name, dtype in named if dtype == FLOAT)


def hardsigmoid_sources(graph: Graph, quantization: Quantization | None) -> frozenset[str]:
    """Return the layers that compute relu6(x + 3) for a hard-sigmoid (the module's convention).

    They are those without an activation that nothing else reads; in a quantised network layer
    and hard-sigmoid both compute with codes. Any other hard-sigmoid is an op like all.
    """
    hard = [op for op in graph.ops if op.act == "hardsigmoid"]
    if not hard:
        return frozenset()
    readers, layers = graph.readers(), {op.name: op for op in graph.ops if op.has_weights}
    found = set()
    for op in hard:
        layer = layers.get(op.inputs[0])
        if layer is None or layer.act != "none" or readers[layer.name] != 1:
            continue
        if quantization is None or all(map(quantization.is_integer, (layer, op))):
            found.add(layer.name)
    return frozenset(found)
