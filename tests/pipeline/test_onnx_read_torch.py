"""Networks that torch exported to ONNX, read into our graph."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests import torch_nets
from tests.onnx_cases import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.model import Model


def exported(module: nn.Module, *inputs: torch.Tensor, opset: int = 17) -> bytes:
    """Return a file of the exporter that needs nothing beside torch."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            torch_nets.settled(module), inputs, content, opset_version=opset, dynamo=False
        )
    return content.getvalue()


def image(height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.zeros(1, channels, height, width)


def kinds(model: Model) -> Counter[str]:
    return Counter(op.kind for op in model.graph.ops)


NETWORKS: list[tuple[Callable[[], nn.Module], torch.Tensor, int]] = [
    (torch_nets.ResNet18, image(40, 32), 0),
    (lambda: torch_nets.MobileNet(third=False), image(40, 32), 0),
    (lambda: torch_nets.MobileNet(third=True), image(40, 32), 0),
    (torch_nets.UNet, image(32, 24), 0),
    (torch_nets.TextEncoder, torch.zeros(1, 12, dtype=torch.int64), 8),
    (torch_nets.VisionTransformer, image(24, 16), 4),
    (torch_nets.Detector, image(32, 24), 0),
]
"""A network, what it takes, and the most transposes that may be left."""


@pytest.mark.parametrize("opset", [14, 17])
@pytest.mark.parametrize(("make", "given", "most"), NETWORKS)
def test_a_network_of_torch(
    make: Callable[[], nn.Module], given: torch.Tensor, most: int, opset: int
) -> None:
    torch.manual_seed(0)
    model = check(exported(make(), given, opset=opset))
    assert kinds(model)["transpose"] <= most


class Grouped(nn.Module):
    """What makes ops of many kinds that stand between transposes in other readers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 4, 4)
        self.deep = nn.Conv2d(16, 16, 7, padding=3, groups=16)
        self.norm = nn.LayerNorm(16)
        self.wide, self.narrow = nn.Linear(16, 64), nn.Linear(64, 16)
        self.scale = nn.Parameter(torch.rand(16))
        self.groups, self.each = nn.GroupNorm(4, 16), nn.InstanceNorm2d(16, affine=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        y = self.narrow(functional.gelu(self.wide(y))) * self.scale
        x = x + y.permute(0, 3, 1, 2)
        mean = x.mean(1, keepdim=True)
        spread = (x - mean).pow(2).mean(1, keepdim=True)
        scale = self.scale[:, None, None]
        x = (x - mean) / torch.sqrt(spread + 1e-6) * scale + scale
        x = functional.silu(self.groups(x))
        return functional.mish(self.each(functional.hardswish(x)))


def test_what_is_written_out_is_one_op_again_and_needs_no_transpose() -> None:
    torch.manual_seed(0)
    model = check(exported(Grouped(), image(24, 20)))
    found, acts = kinds(model), {op.act for op in model.graph.ops}
    assert not found["transpose"]
    assert found["layernorm"] == 2
    assert {"gelu", "silu", "hardswish", "mish"} <= acts
    assert model.outputs[0].layout == "NCHW"


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(6, 16, 5, 2, 2),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Conv1d(16, 32, 3, padding=2, dilation=2),
            nn.ELU(),
            nn.MaxPool1d(2),
            nn.Conv1d(32, 32, 3, groups=32, padding=1),
            nn.Hardtanh(),
        )
        self.head = nn.Linear(32 * 16, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.log_softmax(self.head(self.body(x).flatten(1)), -1)


def test_a_network_of_sequences_has_reshapes_at_its_ends_only() -> None:
    torch.manual_seed(0)
    model = check(exported(Sequence(), torch.zeros(1, 6, 64)))
    assert not kinds(model)["transpose"]
    assert kinds(model)["reshape"] == 2
    assert model.inputs[0].layout == "NCL"


class Coder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.ConvTranspose2d(8, 3, 3, 2, 1, 1)
        self.code, self.back = nn.Linear(8 * 12 * 10, 16), nn.Linear(16, 8 * 12 * 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        code = self.code(functional.relu(self.down(x)).flatten(1))
        x = functional.relu(self.back(functional.normalize(code, dim=1)))
        return torch.sigmoid(self.up(x.view(-1, 8, 12, 10)))


def test_an_auto_encoder_moves_the_weights_of_its_dense_layers() -> None:
    torch.manual_seed(0)
    found = kinds(check(exported(Coder(), image(24, 20))))
    assert not found["transpose"]
    assert found["l2norm"] == 1


@pytest.mark.parametrize("axes", [None, {0: "batch"}])
def test_an_exported_batch_that_is_open(axes: Any) -> None:
    module, content = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(60, 5)),
        io.BytesIO(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (image(7, 5),),
            content,
            input_names=["x"],
            dynamic_axes={"x": axes} if axes else None,
            dynamo=False,
        )
    assert kinds(check(content.getvalue()))["dense"] == 1
