"""torch-pruning: a network pruned uniformly, by many ratios, each written as ONNX.

Run by `_compress_uniform` in a process that finds torch_pruning: SOURCE FOLDER MULTIPLE RATIO…,
where SOURCE is a network of ours (.npz), or a model file of convolutions. It writes RATIO.onnx for
each, and prints torch-pruning's version.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from models.model import Model
from models.network import Network
from pipeline.formats.api import ReadOptions
from pipeline.formats.source import read_model

if TYPE_CHECKING:
    from models.graph import Op


class Layers(nn.Module):
    """A model of convolutions, additions, pooling and dense layers as modules that can be cut."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.graph, self.layers = model.graph, nn.ModuleDict()
        for place, op in enumerate(self.graph.ops):
            if not op.has_weights:
                continue
            weight, bias = (torch.from_numpy(array.copy()) for array in model.weights[op.name])
            layer: nn.Conv2d | nn.Linear
            if op.kind == "conv":
                weight = weight.permute(0, 3, 1, 2)
                out, channels, *kernel = weight.shape
                layer = nn.Conv2d(channels, out, tuple(kernel), op.attributes.stride)  # type: ignore[arg-type]
            else:
                layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": weight, "bias": bias})
            self.layers[str(place)] = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, classes)."""
        values = {self.graph.inputs[0].name: x}
        for place, op in enumerate(self.graph.ops):
            values[op.name] = self._run(str(place), op, [values[name] for name in op.inputs])
        return values[self.graph.outputs[0]]

    def _run(self, place: str, op: Op, inputs: list[torch.Tensor]) -> torch.Tensor:
        (x, *others), how = inputs, op.attributes
        if op.kind == "conv":
            top, bottom, left, right = how.padding
            x = self.layers[place](functional.pad(x, (left, right, top, bottom)))
        elif op.kind == "dense":
            x = self.layers[place](x)
        elif op.kind == "add":
            x = x + others[0]
        elif op.kind == "avgpool":
            x = functional.avg_pool2d(x, how.kernel, how.stride)
        elif op.kind == "reshape":
            x = x.flatten(1)
        elif op.kind == "softmax":
            x = x.softmax(1)
        else:
            raise SystemExit(f"op {op.name!r} of kind {op.kind} cannot be pruned by the peer")
        return x.relu() if op.act == "relu" else x


def load(source: Path) -> tuple[nn.Module, tuple[int, ...], list[nn.Module]]:
    """Return a module, the shape of its input, and the layers that give its outputs."""
    if source.suffix == ".npz":
        network = Network.load(source)
        height, width, channels = network.spec.input
        module: Any = network.module
        return module, (1, channels, height, width), [module.dense[-1]]
    model = read_model(str(source), ReadOptions())
    if not isinstance(model, Model):
        raise SystemExit(model.sentence)
    _, height, width, channels = model.graph.inputs[0].shape
    layers = Layers(model)
    last = [layer for layer in layers.layers.values() if isinstance(layer, nn.Linear)][-1]
    return layers, (1, channels, height, width), [last]


def prune(source: Path, ratio: float, multiple: int, target: Path) -> None:
    """Cut a share of the channels of every group, the least by their L2 norm, and write the net."""
    import torch_pruning

    module, shape, outputs = load(source)
    image = torch.zeros(shape)
    pruner = torch_pruning.pruner.MagnitudePruner(
        module.eval(),
        image,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=ratio,
        round_to=multiple,
        ignored_layers=outputs,
    )
    pruner.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, which calls itself the old one
        torch.onnx.export(
            module.eval(),
            (image,),
            str(target),
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            output_names=["logits"],
        )


def main(argv: list[str]) -> int:
    """Prune by every ratio."""
    from importlib.metadata import version

    source, folder, multiple, *ratios = argv
    torch.set_num_threads(1)
    for ratio in ratios:
        prune(Path(source), float(ratio), int(multiple), Path(folder) / f"{ratio}.onnx")
    print(version("torch-pruning"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
