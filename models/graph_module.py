"""Any network as a module of torch, to be run and trained.

It computes by the same forms as `models.execute`, with gradients. A graph keeps its batch
normalisation until a pass folds it, so that it is trained here as its user trained it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from models.graph import GraphError
from models.torch_forms import ACTIVATIONS, run_op
from models.torch_forms.axes import channels_first, channels_last
from models.torch_forms.layers import batch_norm

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from models.fold import Weights
    from models.graph import Graph, Op
    from models.model import Model

_TRAINED = {"batchnorm": (1, 2), "layernorm": (1, 2), "prelu": (1,), "gather": (0,)}
"""Kind -> which of its inputs training changes where they are constants: a normalisation's scale
and shift, slopes, tables that are looked up in."""


class GraphModule(nn.Module):
    """Runs and trains a model.

    Parameters are the weights and biases of layers, scales and shifts of normalisations, slopes and
    tables; all other constants are buffers. The statistics of batch normalisation move in training
    mode, as in torch.

    Args:
        model: of real numbers throughout; it is not changed.
        momentum: share of the batch in moved statistics, as of `nn.BatchNorm2d`.
        trained: constants that are parameters, too, such as embeddings of positions: which of its
            constants its source trained a graph does not say.

    Raises:
        GraphError: the model is quantized, or has no such constant.
    """

    def __init__(
        self, model: Model, *, momentum: float = 0.1, trained: Collection[str] = ()
    ) -> None:
        super().__init__()
        if model.quantization is not None:
            raise GraphError(
                f"a model in {model.number_format} is not trained; train its float32 model, and "
                "quantise that"
            )
        self._model, self._momentum = model, momentum
        if unknown := set(trained) - {tensor.name for tensor in model.graph.constants}:
            raise GraphError(f"the network has no constant {min(unknown)!r}")
        parameters = _trained_constants(model) | set(trained)
        self._places: dict[str, list[str]] = {}
        for number, (name, arrays) in enumerate(model.weights.items()):
            parts = ("weight", "bias") if len(arrays) == 2 else ("value",)
            self._places[name] = [f"{number}:{name.replace('.', '/')}:{part}" for part in parts]
            for place, array in zip(self._places[name], arrays, strict=True):
                tensor = torch.from_numpy(np.array(array))
                if len(arrays) == 2 or name in parameters:
                    self.register_parameter(place, nn.Parameter(tensor))
                else:
                    self.register_buffer(place, tensor)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Run the network.

        Args:
            inputs: in the order of the model's inputs, in the layout that their user has, N
                samples each. Where the graph does not keep the batch, samples are run one by one;
                then batch normalisation sees batches of one in training mode.

        Returns:
            The output, or a tuple of several, in the layout that their user has.
        """
        graph, ends = self.graph, self._model
        if len(inputs) != len(graph.inputs):
            names = ", ".join(tensor.name for tensor in graph.inputs)
            raise TypeError(f"{len(inputs)} inputs are given; the network takes {names}")
        given = {
            tensor.name: _from_user(end.layout, x)
            for tensor, end, x in zip(graph.inputs, ends.inputs, inputs, strict=True)
        }
        found = self._compute(given, graph.outputs)
        outputs = [
            _to_user(end.layout, found[name])
            for name, end in zip(graph.outputs, ends.outputs, strict=True)
        ]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def run(
        self, inputs: Mapping[str, torch.Tensor], names: Collection[str] = ()
    ) -> dict[str, torch.Tensor]:
        """Run the network with gradients as `models.execute.execute_all` runs it without.

        Args:
            inputs: by their names in the graph, in the graph's own layout but for N samples in
                place of the batch dimension of 1.
            names: of the tensors that are wanted, outputs or any other; the outputs if left out.

        Returns:
            The tensors by name, in the graph's own layout but for N samples.
        """
        given = {name: channels_first(x) for name, x in inputs.items()}
        found = self._compute(given, names or self.graph.outputs)
        return {name: channels_last(x) for name, x in found.items()}

    @property
    def graph(self) -> Graph:
        """What it computes."""
        return self._model.graph

    def layer_weights(self) -> dict[str, nn.Parameter]:
        """Return the weight of each layer by the name of its op, in the graph's layout.

        They are the parameters themselves: write into them under `torch.no_grad()`.
        """
        return {
            op.name: getattr(self, self._places[op.name][0])
            for op in self._model.graph.ops
            if op.has_weights
        }

    def model(self) -> Model:
        """Return the model with the weights as they are now."""
        weights: Weights = {
            name: tuple(self._held(place).detach().cpu().numpy().copy() for place in places)
            for name, places in self._places.items()
        }
        return replace(self._model, weights=weights)

    def _compute(
        self, inputs: Mapping[str, torch.Tensor], names: Collection[str]
    ) -> dict[str, torch.Tensor]:
        """Return tensors by name, all of them as forms have them."""
        graph = self.graph
        as_it_says = all(inputs[given.name].shape[:1] == given.shape[:1] for given in graph.inputs)
        if graph.keeps_batch or as_it_says:
            return self._compute_once(inputs, names)
        count = max(map(len, inputs.values()))
        each = [
            self._compute_once({name: x[i : i + 1] for name, x in inputs.items()}, names)
            for i in range(count)
        ]
        return {name: torch.cat([one[name] for one in each]) for name in names}

    def _compute_once(
        self, inputs: Mapping[str, torch.Tensor], names: Collection[str]
    ) -> dict[str, torch.Tensor]:
        graph = self.graph
        tensors = dict(inputs)
        for constant in graph.constants:
            tensors[constant.name] = channels_first(self._held(self._places[constant.name][0]))
        for op in graph.ops:
            own = [self._held(p) for p in self._places[op.name]] if op.has_weights else []
            tensors[op.name] = self._run_op(op, [tensors[name] for name in op.inputs], own)
        return {name: tensors[name] for name in names}

    def _run_op(self, op: Op, inputs: list[torch.Tensor], own: list[torch.Tensor]) -> torch.Tensor:
        if op.kind == "batchnorm" and self.training:
            x, *parameters = inputs
            return ACTIVATIONS[op.act](batch_norm(op, x, *parameters, momentum=self._momentum))
        return run_op(op, inputs, own)

    def _held(self, place: str) -> torch.Tensor:
        tensor: torch.Tensor = getattr(self, place)
        return tensor


def _trained_constants(model: Model) -> set[str]:
    return {
        op.inputs[place]
        for op in model.graph.ops
        for place in _TRAINED.get(op.kind, ())
        if op.inputs[place] in op.constants
        and model.weights[op.inputs[place]][0].dtype == np.float32
    }


def _from_user(layout: str, x: torch.Tensor) -> torch.Tensor:
    """Return an input as forms take it."""
    if x.ndim == 4:
        return x if layout == "NCHW" else channels_first(x)
    return x.transpose(1, 2) if x.ndim == 3 and layout == "NCL" else x


def _to_user(layout: str, x: torch.Tensor) -> torch.Tensor:
    """Return an output of a form as its user has it."""
    if x.ndim == 4:
        return x if layout == "NCHW" else channels_last(x)
    return x.transpose(1, 2) if x.ndim == 3 and layout == "NCL" else x
