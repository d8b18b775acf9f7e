"""Every op that is read from torch computes what torch computes, on sizes that all differ."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from models.axes import to_graph, to_user
from models.execute import execute_all
from models.layout import settle
from models.model import Model
from pipeline.formats.api import Unsupported
from pipeline.formats.torch.program import Captured, capture
from pipeline.formats.torch.translate import translate
from tests import torch_nets

if TYPE_CHECKING:
    from collections.abc import Callable

# torch's own, about its own ways.
pytestmark = pytest.mark.filterwarnings("ignore")

CLOSE = 1e-5
"""As a share of the output's range."""


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def captured(what: Any, shape: tuple[int, ...]) -> Captured:
    torch.manual_seed(0)
    module = what if isinstance(what, nn.Module) else Function(what)
    name = next(iter(inspect.signature(module.forward).parameters))
    return capture(module, {name: shape}, "net")


def hold(model: Model, truth: Captured, close: float = CLOSE) -> None:
    """Hold a network against the outputs of the module that it was read from."""
    graph = model.graph
    given = {
        tensor.name: to_graph(end.layout, value.numpy())
        for tensor, end, value in zip(graph.inputs, model.inputs, truth.inputs, strict=True)
    }
    found = execute_all(model, given)
    assert len(model.outputs) == len(truth.outputs)
    for name, end, value in zip(graph.outputs, model.outputs, truth.outputs, strict=True):
        ours, theirs = to_user(end.layout, found[name]), value.numpy()
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        extent = float(np.ptp(theirs.astype(np.float64))) or 1.0
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=close * extent)


def check(what: Any, shape: tuple[int, ...]) -> Model:
    truth = captured(what, shape)
    raw = translate(truth.program, "net")
    assert isinstance(raw, Model), raw.sentence
    hold(raw, truth)
    model = settle(raw)
    hold(model, truth)
    return model


MAP, SERIES, ROW = (1, 8, 6, 10), (1, 8, 11), (1, 10)

LAYERS: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Conv2d(8, 6, (3, 1), (2, 1), (1, 0), dilation=(1, 2), groups=2), MAP),
    (lambda: nn.Conv2d(8, 4, (3, 2), padding="same"), MAP),
    (lambda: nn.Conv2d(8, 16, 3, groups=8, padding=1, bias=False), MAP),
    (lambda: nn.Conv2d(8, 4, 3, padding=(1, 2), padding_mode="reflect"), MAP),
    (lambda: nn.Conv2d(8, 4, 3, padding=1, padding_mode="circular"), MAP),
    (lambda: nn.ConvTranspose2d(8, 6, 3, 2, 1, 1), MAP),
    (lambda: nn.ConvTranspose2d(8, 6, (3, 2), (2, 3), 1, (1, 0), groups=2, dilation=(1, 2)), MAP),
    (lambda: nn.ConvTranspose2d(8, 8, 2, 2, groups=8), MAP),
    (lambda: nn.Conv1d(8, 4, 3, stride=2, padding=1, dilation=2), SERIES),
    (lambda: nn.Conv1d(8, 8, 3, groups=8), SERIES),
    (lambda: nn.ConvTranspose1d(8, 4, 3, stride=2, padding=1), SERIES),
    (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 3, 3)), MAP),
    (lambda: nn.Linear(10, 4), ROW),
    (lambda: nn.Linear(10, 4, bias=False), MAP),
    (lambda: nn.Linear(11, 4), SERIES),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(480, 5)), MAP),
    (lambda: nn.Embedding(7, 4), (1, 5)),
    (lambda: nn.BatchNorm2d(8), MAP),
    (lambda: nn.BatchNorm2d(8, affine=False), MAP),
    (lambda: nn.BatchNorm2d(8, track_running_stats=False), MAP),
    (lambda: nn.BatchNorm1d(8), SERIES),
    (lambda: nn.BatchNorm1d(10), ROW),
    (lambda: nn.InstanceNorm2d(8, affine=True), MAP),
    (lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True), MAP),
    (lambda: nn.InstanceNorm1d(8), SERIES),
    (lambda: nn.GroupNorm(4, 8), MAP),
    (lambda: nn.GroupNorm(2, 8, affine=False), SERIES),
    (lambda: nn.LayerNorm(10), MAP),
    (lambda: nn.LayerNorm((6, 10), elementwise_affine=False), MAP),
    (lambda: nn.RMSNorm(10), MAP),
    (lambda: nn.PReLU(8), MAP),
    (nn.PReLU, SERIES),
    (lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), MAP),
    (lambda: nn.MaxPool2d((2, 3), (2, 2), ceil_mode=True), MAP),
    (lambda: nn.MaxPool2d(2, dilation=2), MAP),
    (lambda: nn.MaxPool1d(3, 2, 1), SERIES),
    (lambda: nn.AvgPool2d(3, 2, 1), MAP),
    (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True), MAP),
    (lambda: nn.AvgPool2d((3, 2), 2, (1, 0), ceil_mode=True, count_include_pad=False), MAP),
    (lambda: nn.AvgPool1d(3, 2, 1), SERIES),
    (lambda: nn.AdaptiveAvgPool2d(1), MAP),
    (lambda: nn.AdaptiveAvgPool2d((3, 5)), MAP),
    (lambda: nn.AdaptiveAvgPool2d((4, 7)), MAP),
    (lambda: nn.AdaptiveAvgPool1d(1), SERIES),
    (lambda: nn.AdaptiveMaxPool2d((3, 5)), MAP),
    (lambda: nn.Upsample(scale_factor=2), MAP),
    (lambda: nn.Upsample(scale_factor=(1.5, 1.3)), MAP),
    (lambda: nn.Upsample(size=(9, 7)), MAP),
    (lambda: nn.Upsample(scale_factor=1.5, mode="bilinear", align_corners=True), MAP),
    (lambda: nn.Upsample(size=(9, 7), mode="bilinear"), MAP),
    (lambda: nn.Upsample(scale_factor=(0.7, 1.33), mode="bilinear"), MAP),
    (lambda: nn.Upsample(size=(9, 7), mode="bicubic"), MAP),
    (lambda: nn.Upsample(scale_factor=2, mode="linear"), SERIES),
    (lambda: nn.PixelShuffle(2), MAP),
    (lambda: nn.PixelUnshuffle(2), MAP),
    (lambda: nn.ChannelShuffle(2), MAP),
    (lambda: nn.ReflectionPad2d((1, 2, 3, 0)), MAP),
    (lambda: nn.ReplicationPad2d((1, 2, 0, 3)), MAP),
    (lambda: nn.ConstantPad2d((1, -1, 0, 2), 0.5), MAP),
    (lambda: nn.ReflectionPad1d((1, 3)), SERIES),
    (lambda: nn.LSTM(11, 4, batch_first=True), (1, 3, 11)),
    (lambda: nn.GRU(11, 4, bidirectional=True, batch_first=True), (1, 3, 11)),
    (lambda: nn.TransformerEncoderLayer(10, 2, 16, batch_first=True), (1, 7, 10)),
]

ACTIVATIONS = [
    *(nn.ReLU(), nn.ReLU6(), nn.Hardswish(inplace=True), nn.Hardsigmoid(), nn.SiLU(), nn.Mish()),
    *(nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.GELU("tanh"), nn.Softplus(), nn.Softplus(2.0)),
    *(nn.LeakyReLU(0.1), nn.ELU(0.7), nn.SELU(), nn.CELU(0.7), nn.Hardtanh(-1, 2), nn.GLU(1)),
    *(nn.LogSigmoid(), nn.Softsign(), nn.Tanhshrink(), nn.Hardshrink(), nn.Softshrink()),
    *(nn.Threshold(0.1, 20), nn.Softmax(1), nn.Softmax(-1), nn.Softmax2d(), nn.LogSoftmax(2)),
]

FUNCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "arithmetic": lambda x: (1 - x) * x / (x.abs() + 2) - torch.add(x, x, alpha=3),
    "powers": lambda x: (x**2, x**3, 2**x, x.abs() ** 0.5, 1 / (x.abs() + 1), x.abs().rsqrt()),
    "whole quotients": lambda x: (x // 2, x % 3, x.argmax(1) // 2, x.argmax(1) / 2),
    "unary": lambda x: (x.neg(), x.exp(), x.sin(), x.cos(), x.floor(), x.ceil(), x.sign()),
    "logarithms": lambda x: (torch.log1p(x.abs()), torch.log2(x.abs() + 1), torch.log10(x.abs())),
    "exponentials": lambda x: (torch.exp2(x), torch.expm1(x), torch.erf(x), (4 * x).round()),
    "comparisons": lambda x: (x > 0, x <= 0.5, x.argmax(1) > 1.5, x == x.flip(1), x != 0),
    "logic": lambda x: ((x > 0) & (x < 1), (x > 1) | ~(x > 0), (x > 0).logical_xor(x > 1)),
    "choices": lambda x: (torch.where(x > 0, x, 0.0), x.masked_fill(x > 0, -1.0), (x > 0) * x),
    "limits": lambda x: (x.clamp(min=0.1), x.clamp(0, 6), x.clamp(max=0), x.clamp(-1, 1)),
    "limits by tensors": lambda x: (torch.maximum(x, x.flip(1)), x.clamp(min=x[:, :1])),
    "casts": lambda x: ((x * 3).to(torch.int32), x.long() + 1, (x > 0).float(), x.int() * 0.5),
    "means": lambda x: (x.mean((2, 3)), x.mean((2, 3), keepdim=True), x.mean(1), x.mean()),
    "reductions": lambda x: (x.sum((1, 3)), x.amax(1), x.amin((0, 2), keepdim=True), x.prod(3)),
    "any and all": lambda x: ((x > 0).any(1), (x > -9).all(), x.max(), x.min(1).values),
    "places": lambda x: (x.max(1), x.argmax(1), x.argmin(2, keepdim=True), x.argmax()),
    "spreads": lambda x: (x.var((2, 3)), x.std(1, keepdim=True), *torch.var_mean(x, 1)),
    "norms": lambda x: (functional.normalize(x, dim=1), x.norm(dim=2), x.norm(1, dim=1)),
    "running sums": lambda x: (x.cumsum(1), x.logsumexp(1)),
    "parts": lambda x: (x[:, 1:5:2, ..., None], x[:, -1], x[..., ::3], x.narrow(2, 1, 3)),
    "splits": lambda x: (*x.chunk(3, 3), *x.split([1, 7], 1), *x.unbind(2)),
    "joins": lambda x: (torch.stack([x, x + 1], 1), torch.cat([x, x[:, :2]], 1)),
    "copies": lambda x: (x.tile(1, 2, 1, 1), x.repeat_interleave(2, 1), x[:, :1].expand_as(x)),
    "turns": lambda x: (x.flip(2, 3), x.roll((1, 2), (2, 3)), x.roll(3), x.movedim(1, -1)),
    "shapes": lambda x: (x.flatten(2), x.view(1, 2, 4, 6, 10), x.squeeze(0), x.unsqueeze(1)),
    "look-ups": lambda x: (x[:, [0, 2, -1]], x[:, :, [0, 2], [1, -1]], functional.unfold(x, 2)),
    "products": lambda x: (x @ x.transpose(2, 3), torch.einsum("bchw,bdhw->bcd", x, x)),
    "vectors": lambda x: (x[0, 0] @ x[0, 0, 0], torch.outer(x[0, 0, 0], x[0, 0, 1])),
    "matrices": lambda x: torch.addmm(x[0, 0, :, :1], x[0, 0], x[0, 0].T, alpha=0.5),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x, x),
    "causal": lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=True),
    "masked": lambda x: functional.scaled_dot_product_attention(x, x, x, attn_mask=x[:, :, :, :6]),
    "made of nothing": lambda x: (x.new_zeros(3) + x[..., :3], torch.ones_like(x) + x),
    "one hot": lambda x: functional.one_hot(x.argmax(1), 8),
    "nearest": lambda x: functional.interpolate(x, size=(9, 7), mode="nearest-exact"),
    "triangle": lambda x: x.tril(),
    "dict": lambda x: {"a": x + 1, "b": [x - 1, (x * 2, None)]},
    "the same again": lambda x: (x + 1, x, torch.ones(2, 3)),
}


@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_layers_compute_what_torch_computes(number: int) -> None:
    torch.manual_seed(number)
    make, shape = LAYERS[number]
    check(torch_nets.settled(make()), shape)


@pytest.mark.parametrize("act", ACTIVATIONS, ids=str)
def test_activations_compute_what_torch_computes(act: nn.Module) -> None:
    check(act, MAP)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_compute_what_torch_computes(name: str) -> None:
    check(FUNCTIONS[name], MAP)


def test_parts_of_a_tensor_can_be_written() -> None:
    def assign(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[:, 1:3] = 0
        y[..., 0] = x[..., 1]
        y[:, :, 2] += 1
        return y

    check(assign, MAP)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet-18": (torch_nets.ResNet18, (1, 3, 48, 64)),
    "MobileNetV2": (lambda: torch_nets.MobileNet(third=False), (1, 3, 32, 40)),
    "MobileNetV3": (lambda: torch_nets.MobileNet(third=True), (1, 3, 32, 40)),
    "U-Net": (torch_nets.UNet, (1, 3, 24, 32)),
    "text encoder": (torch_nets.TextEncoder, (1, 12)),
    "vision transformer": (torch_nets.VisionTransformer, (1, 3, 16, 24)),
    "detector": (torch_nets.Detector, (1, 3, 32, 48)),
}


@pytest.mark.parametrize("name", NETS)
def test_networks_compute_what_torch_computes(name: str) -> None:
    torch.manual_seed(0)
    make, shape = NETS[name]
    model = check(torch_nets.settled(make()), shape)
    transposes = [op.name for op in model.graph.ops if op.kind == "transpose"]
    # Those of attention are the network's own.
    assert not transposes or "encoder" in name or "transformer" in name


def test_ops_are_named_by_their_modules() -> None:
    torch.manual_seed(0)
    model = check(torch_nets.settled(torch_nets.ResNet18()), (1, 3, 48, 64))
    assert [op.name for op in model.graph.ops[:10]] == [
        *("conv1", "bn1", "relu", "maxpool", "layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu"),
        *("layer1.0.conv2", "layer1.0.bn2", "layer1.0.add"),
    ]
    assert [op.kind for op in model.graph.ops].count("batchnorm") == 20
    assert model.weights["layer1.0.conv1"][0].shape == (16, 3, 3, 16)
    assert model.weights["bn1.weight"][0].shape == (16,)
    assert model.graph["fc"].kind == "dense"
    assert (model.inputs[0].name, model.inputs[0].layout) == ("x", "NCHW")
    model = check(torch_nets.settled(torch_nets.TextEncoder()), (1, 12))
    layers = [op.name for op in model.graph.ops if op.has_weights]
    assert "encoder.layers.0.self_attn.out_proj" in layers
    assert [(t.name, t.shape, t.dtype) for t in model.graph.inputs] == [
        ("tokens", (1, 12), "int64")
    ]
    model = check(torch_nets.settled(torch_nets.Detector()), (1, 3, 32, 48))
    assert [output.name for output in model.outputs] == ["boxes", "scores"]


def test_every_op_that_is_not_known_is_named_with_its_place() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(8, 4, 3)
            self.volume = nn.Conv3d(1, 2, 3)

        def forward(self, x: torch.Tensor) -> Any:
            best = self.first(x).topk(2, 1).values
            return self.volume(best[:, :, None].expand(-1, -1, 3, -1, -1)[:, :1]), best + 1j

    found = translate(captured(Odd(), MAP).program, "net")
    assert isinstance(found, Unsupported)
    assert [(op.kind, op.place) for op in found.ops] == [
        ("topk", "topk"),
        ("convolution", "volume"),
        ("add", "add"),
    ]
    assert "(it has 3 dimensions; known are 1 and 2)" in found.sentence
    assert "it computes in complex64" in found.sentence


def test_a_state_between_calls_is_not_known() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen += 1
            return x * self.seen

    found = translate(captured(Counter(), MAP).program, "net")
    assert isinstance(found, Unsupported)
    assert found.ops[-1].place == "seen"
    assert "keeps a state" in found.sentence
