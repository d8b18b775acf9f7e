"""Any network as a module that computes as its codes will: quantisation-aware training.

Weights and activations are rounded to codes in every forward pass, and gradients pass straight
through (`models.straight_through`), so that a network learns to live with the rounding (Jacob et
al. 2018, section 3). The arithmetic is that of the codes themselves: weights by
`Quantization.layer`, activations by their parameters, and what stays real stays real.

Batch normalisation has frozen statistics and is folded into the layers before anything is rounded:
what is rounded in training are the very weights that files hold. Statistics that move while rounded
weights are trained are what networks collapse of
(docs/decisions/0032-batch-normalisation-in-quantisation-aware-training.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

from models.codes import LayerCodes, QParams
from models.graph_module import GraphModule
from models.ops import FLOAT
from models.quantization import hardsigmoid_sources
from models.scales import free_scales, rescale
from models.simplify import find_folded, prepare_for_codes
from models.straight_through import fake_quantize, pass_straight
from models.torch_forms import run_op
from models.torch_forms.axes import channels_first

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from models.fold import FloatArray
    from models.graph import Graph, Op
    from models.model import Model
    from models.quantization import Quantization

Scales = Literal["fixed", "learnt"]

_GATE_SHIFT = 3
"""What a hard-sigmoid's layer adds to its bias: it computes relu6(x + 3)."""

_REACH = 4.0
"""A learnt scale stays within this factor of where it began."""


class FakeQuantized(GraphModule):
    """Runs and trains a model as it will be with codes.

    Parameters are those of `GraphModule` and, where they are learnt, one `scales` for all
    activations; batch normalisation keeps its statistics in training mode too. In evaluation mode
    it computes what `quantized` is, but for the last bits of float32.

    Args:
        model: of real numbers throughout; it is not changed.
        quantization: of a static format, of what `prepare_for_codes` makes of the model. A layer
            whose codes it holds keeps their scales and how far they reach, as of fewer bits.
        scales: ``fixed`` keeps those of activations; ``learnt`` trains them too, but for those of
            constants and those that kernels fix.
        trained: as of `GraphModule`.

    Raises:
        GraphError: as `GraphModule`.
    """

    def __init__(
        self,
        model: Model,
        quantization: Quantization,
        *,
        scales: Scales = "fixed",
        trained: Collection[str] = (),
    ) -> None:
        super().__init__(model, trained=trained)
        self._graph = prepare_for_codes(model).graph
        self._norms = find_folded(model.graph)
        self._lines = _find_lines(model.graph, self._norms)
        self._quantization = self._live = quantization
        self._integer = {op.name for op in self._graph.ops if quantization.is_integer(op)}
        self._coded = quantization.made_as_codes(self._graph)
        self._gates = hardsigmoid_sources(self._graph, quantization)
        self._scale_of: dict[str, int] = {}
        self.scales: nn.Parameter | None = None
        if scales == "learnt":
            self._learn_scales()

    @property
    def graph(self) -> Graph:
        """What it computes: the network with its normalisation folded."""
        return self._graph

    def train(self, mode: bool = True) -> FakeQuantized:  # noqa: FBT001, FBT002  # torch's own
        """Set the mode; in evaluation mode scales are such as kernels take."""
        super().train(mode)
        self._live = self._with_learnt_scales()
        if not mode:
            weights = prepare_for_codes(self.model()).weights
            self._live = rescale(self._graph, self._live, weights)
        return self

    def quantized(self) -> Model:
        """Return the model with its weights as they are now, and with its number formats.

        Raises:
            QuantizationError: the weights do not fit the scales.
        """
        model = prepare_for_codes(self.model())
        found = rescale(self._graph, self._with_learnt_scales(), model.weights)
        codes = {
            name: self._codes(self._graph[name], model.weights[name], found)
            for name in found.weights
            if name in self._integer
        }
        return replace(model, quantization=replace(found, weights={**found.weights, **codes}))

    def _compute_once(
        self, inputs: Mapping[str, torch.Tensor], names: Collection[str]
    ) -> dict[str, torch.Tensor]:
        if self.training:
            self._live = self._with_learnt_scales()
        # Eight bits of bfloat16 are fewer than codes have.
        with torch.autocast(next(iter(inputs.values())).device.type, enabled=False):
            return self._compute_codes(inputs, names)

    def _compute_codes(
        self, inputs: Mapping[str, torch.Tensor], names: Collection[str]
    ) -> dict[str, torch.Tensor]:
        tensors = {
            name: self._rounded(name, x) if name in self._coded else x for name, x in inputs.items()
        }
        for constant in self._graph.constants:
            tensors[constant.name] = channels_first(self._constant(constant.name))
        for op in self._graph.ops:
            integer = op.name in self._integer
            read = [
                self._rounded(name, tensors[name])
                if integer and dtype == FLOAT and name not in self._coded
                else tensors[name]
                for name, dtype in zip(op.inputs, op.in_dtypes, strict=True)
            ]
            made = run_op(op, read, self._layer(op) if op.has_weights else ())
            tensors[op.name] = self._rounded(op.name, made) if integer else made
        return {name: tensors[name] for name in names}

    def _rounded(self, name: str, x: torch.Tensor) -> torch.Tensor:
        params = self._live.tensors.get(name)
        if params is None or not x.is_floating_point():
            return x
        place = self._scale_of.get(name)
        learnt = self.scales is not None and place is not None and self.training
        scale = self.scales[place] if learnt and self.scales is not None else None
        if name in self._gates:  # its codes are those of relu6(x + 3)
            return fake_quantize(torch.clamp(x + 3, 0, 6), params, scale) - 3
        return fake_quantize(x, params, scale)

    def _layer(self, op: Op) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a layer's weight and bias, with normalisation folded in and rounded."""
        weight, bias = (self._held(place) for place in self._places[op.name])
        for norm in self._norms.get(op.name, ()):
            gain, shift = self._gain_and_shift(norm)
            axes = [1] * weight.ndim
            axes[op.layer.channel_axis] = -1
            weight, bias = weight * gain.reshape(axes), bias * gain + shift
        if op.name not in self._integer:
            return weight, bias
        real = (weight.detach().cpu().numpy(), bias.detach().cpu().numpy())
        codes = self._codes(op, real, self._live)
        added = np.float32(_GATE_SHIFT if op.name in self._gates else 0)
        rounded = codes.dequantize(op), codes.real_bias(self._live[op.inputs[0]].scale) - added
        return (
            pass_straight(weight, torch.from_numpy(rounded[0]).to(weight.device)),
            pass_straight(bias, torch.from_numpy(rounded[1]).to(bias.device)),
        )

    def _codes(
        self, op: Op, real: tuple[FloatArray, ...], quantization: Quantization
    ) -> LayerCodes:
        weight, bias = real
        if op.name in self._gates:
            bias = bias + np.float32(_GATE_SHIFT)
        held = quantization.weights.get(op.name)
        if isinstance(held, LayerCodes):
            return held.recode(op, weight, bias, quantization[op.inputs[0]].scale)
        return quantization.layer(op, weight, bias)

    def _constant(self, name: str) -> torch.Tensor:
        if name not in self._lines:
            return self._held(self._places[name][0])
        norm, place = self._lines[name]
        return self._gain_and_shift(norm)[place].reshape(self._graph.shape(name))

    def _gain_and_shift(self, norm: Op) -> tuple[torch.Tensor, torch.Tensor]:
        scale, shift, mean, variance = (self._held(self._places[x][0]) for x in norm.inputs[1:])
        gain = scale / torch.sqrt(variance + norm.attributes.epsilon)
        return gain, shift - mean * gain

    def _learn_scales(self) -> None:
        found = free_scales(self._graph, self._quantization)
        stands = list(dict.fromkeys(found.values()))
        self._scale_of = {name: stands.index(one) for name, one in found.items()}
        first = [self._quantization[name].scale for name in stands]
        self.scales = nn.Parameter(torch.tensor(first, dtype=torch.float32))

    def _with_learnt_scales(self) -> Quantization:
        if self.scales is None:
            return self._quantization
        now = self.scales.detach().tolist()
        tensors = dict(self._quantization.tensors)
        for name, place in self._scale_of.items():
            held = tensors[name]
            low, high = held.scale / _REACH, held.scale * _REACH
            scale = min(max(now[place], low), high)
            tensors[name] = QParams(scale, held.zero_point, held.dtype)
        return replace(self._quantization, tensors=tensors)


def _find_lines(
    graph: Graph, folded: Mapping[str, tuple[Op, ...]]
) -> dict[str, tuple[Op, Literal[0, 1]]]:
    """Return constant -> the normalisation that no layer takes in, of whose two it is which."""
    within = {norm.name for norms in folded.values() for norm in norms}
    found: dict[str, tuple[Op, Literal[0, 1]]] = {}
    for op in graph.ops:
        if op.kind == "batchnorm" and op.name not in within:
            found[f"{op.name}.gain"], found[f"{op.name}.shift"] = (op, 0), (op, 1)
    return found
