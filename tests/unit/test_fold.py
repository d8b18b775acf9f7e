from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from device_agents.errors import VerificationError
from models.build import build
from models.execute import execute
from models.fold import random_weights
from models.graph import INPUT
from models.lower import lower
from models.model import random_model
from models.network import Network
from models.spec import ArchSpec
from models.zoo import get, zoo
from tests.spec_strategies import REPLAY, specs

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.model import Model


def lived_in(spec: ArchSpec, seed: int = 0) -> Network:
    """Return a network whose batch normalisation has statistics, scales and shifts of its own.

    Weights are He's, by fan-out, so that the signal reaches the end and an error shows there.
    """
    generator = torch.Generator().manual_seed(seed)
    module = build(spec, generator=generator)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.weight.uniform_(0.6, 1.4, generator=generator)
                layer.bias.normal_(0, 0.2, generator=generator)
                layer.running_mean.normal_(0, 0.2, generator=generator)
                layer.running_var.uniform_(0.5, 2.0, generator=generator)
            elif isinstance(layer, nn.Linear):
                layer.bias.normal_(0, 0.1, generator=generator)
            elif isinstance(layer, nn.Conv2d):
                fan_out = layer.out_channels // layer.groups * layer.kernel_size[0] ** 2
                layer.weight.normal_(0, (2 / fan_out) ** 0.5, generator=generator)
                if layer.bias is not None:
                    layer.bias.normal_(0, 0.5, generator=generator)
    return Network(spec, module.eval())


def images(spec: ArchSpec, count: int = 2) -> torch.Tensor:
    height, width, channels = spec.input
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, channels, height, width, generator=generator)


def folded_error(spec: ArchSpec) -> float:
    network, batch = lived_in(spec), images(spec)
    with torch.no_grad():
        expected = network.module(batch)
    found = execute(network.model(), batch)
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


@pytest.mark.parametrize("name", zoo())
def test_folding_keeps_the_function(name: str) -> None:
    spec = get(name).with_input(64, 64, 3)
    assert folded_error(spec) < 1e-4


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("size", [(15, 16), (16, 15)])
@pytest.mark.parametrize("act", ["relu6", "relu", "hardswish", "silu", "linear"])
def test_folding_keeps_the_function_of_every_part(
    padding: str, size: tuple[int, int], act: str
) -> None:
    blocks = [
        f"conv_k3_s2_o8_{act}_se2-{act}-sigmoid",
        f"ds_k5_s1_o8_{act}_poolskip",
        f"mb_k7_s2_m16_o12_{act}_se4-relu-hardsigmoid",
        f"mb_k3_s1_o12_{act}_skip",
        f"mb_k5_s2_m24_o6_{act}",
    ]
    line = ":".join([f"{size[0]}x{size[1]}x3", padding, *blocks, f"fc8_{act}", "fc5"])
    assert folded_error(ArchSpec.parse(line)) < 1e-5


@settings(REPLAY, max_examples=40)
@given(specs())
def test_folding_keeps_the_function_of_any_spec(spec: ArchSpec) -> None:
    assert folded_error(spec) < 1e-4


def test_the_check_would_notice() -> None:
    """A bias or a weight that is a little off shows: the error bound means something."""
    spec = get("mobilenet-v2", width=0.35).with_input(64, 64, 3)
    network, batch = lived_in(spec), images(spec)
    expected = network.module(batch).detach()
    for name in ("blocks.0.conv", "blocks.9.depthwise", "blocks.16.expand", "dense.0"):
        for index in (0, 1):
            model = network.model()
            model.weights[name][index][...] *= 1.1
            found = execute(model, batch)
            assert (found - expected).abs().max() > 1e-3, (name, index)


def test_folded_layout_and_arithmetic() -> None:
    spec = ArchSpec.parse("6x6x2:same:conv_k3_s1_o3:mb_k5_s1_o4:fc5")
    network = lived_in(spec)
    model = network.model()
    graph, weights = model.graph, model.weights
    assert graph == lower(spec)
    assert {name: (w.shape, b.shape) for name, (w, b) in weights.items()} == {
        op.name: (op.weight_shape, op.out_shape[-1:]) for op in graph.ops if op.has_weights
    }
    assert all(a.dtype == np.float32 for pair in weights.values() for a in pair)
    state = {key: value.double() for key, value in network.module.state_dict().items()}
    layer = "blocks.0.conv"
    gain = state[f"{layer}.bn.weight"][1] / (state[f"{layer}.bn.running_var"][1] + 1e-3) ** 0.5
    weight, bias = weights[layer]
    assert weight[1, 2, 0, 1] == np.float32(state[f"{layer}.conv.weight"][1, 1, 2, 0] * gain)
    shift = state[f"{layer}.bn.bias"][1] - state[f"{layer}.bn.running_mean"][1] * gain
    assert bias[1] == np.float32(shift)
    depthwise = state["blocks.1.depthwise.conv.weight"]
    ratio = weights["blocks.1.depthwise"][0][0, :, :, 2] / depthwise[2, 0].numpy()
    assert np.allclose(ratio, ratio[0, 0], rtol=1e-6)


def observed(model: Model, batch: torch.Tensor) -> dict[str, tuple[int, ...]]:
    seen: dict[str, tuple[int, ...]] = {}

    def observe(name: str, tensor: torch.Tensor) -> None:
        assert name not in seen
        assert not tensor.requires_grad
        seen[name] = tuple(tensor.shape)

    execute(model, batch, observe)
    return seen


@settings(REPLAY, max_examples=20)
@given(specs())
def test_observer_sees_every_tensor_once_in_order(spec: ArchSpec) -> None:
    graph = lower(spec)
    seen = observed(random_model(graph, np.random.default_rng(0)), images(spec, 3))
    assert list(seen) == [INPUT, *(op.name for op in graph.ops)]
    for name, shape in seen.items():
        expected = graph.shape(name)
        assert shape == (
            (3, expected[3], *expected[1:3]) if len(expected) == 4 else (3, *expected[1:])
        )


def test_execution_takes_numpy_and_read_only_arrays() -> None:
    spec = ArchSpec.parse("6x6x2:same:conv_k3_s2_o3:fc5")
    network, batch = lived_in(spec), images(spec)
    model = network.model()
    for pair in model.weights.values():
        for array in pair:
            array.setflags(write=False)
    found = execute(model, batch.numpy())
    assert torch.allclose(found, network.module(batch).detach(), atol=1e-6)


@pytest.mark.parametrize("name", zoo())
def test_random_weights_keep_activations_ordinary(name: str) -> None:
    spec = get(name).with_input(64, 64, 3)
    graph = lower(spec)
    spread: dict[str, float] = {}

    def observe(tensor_name: str, tensor: torch.Tensor) -> None:
        spread[tensor_name] = float(tensor.square().mean().sqrt())

    logits = execute(random_model(graph, np.random.default_rng(0)), images(spec), observe)
    assert logits.isfinite().all()
    assert logits.std() > 1e-2
    assert min(spread.values()) > 1e-3
    assert max(spread.values()) < 1e3


@pytest.mark.parametrize("skip", ["", "_skip"])
def test_random_weights_through_sixty_blocks(skip: str) -> None:
    line = ":".join(["8x8x3:same:conv_k3_s1_o16", *[f"mb_k3_s1_m32_o16{skip}"] * 60, "fc10"])
    graph = lower(ArchSpec.parse(line))
    batch = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = execute(random_model(graph, np.random.default_rng(0)), batch)
    assert logits.isfinite().all()
    assert 1e-4 < float(logits.abs().max()) < 1e4


def test_random_weights_are_reproducible_full_and_varied() -> None:
    graph = lower(get("mobilenet-v2"))
    first, again, other = (random_weights(graph, np.random.default_rng(s)) for s in (1, 1, 2))
    assert {n: (w.shape, b.shape) for n, (w, b) in first.items()} == {
        op.name: (op.weight_shape, op.out_shape[-1:]) for op in graph.ops if op.has_weights
    }
    for name, (weight, bias) in first.items():
        assert weight.dtype == bias.dtype == np.float32
        assert np.array_equal(weight, again[name][0])
        assert np.array_equal(bias, again[name][1])
        assert not np.array_equal(weight, other[name][0])
        assert bias.any()
    dense = first["dense.0"][0]
    assert len(np.unique(dense, axis=0)) == 1000
    assert dense.std() == pytest.approx((1 / 1280) ** 0.5, rel=0.05)


def test_random_weights_are_quick_and_do_not_load_torch() -> None:
    graph = lower(get("mobilenet-v2"))
    rng = np.random.default_rng(0)

    def shortest_s(work: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    # Some 2 ms; drawing each of the 3.5 million numbers takes ten times that.
    drawn_s = shortest_s(lambda: rng.standard_normal(3_500_000, dtype=np.float32))
    assert shortest_s(lambda: random_weights(graph, rng)) < drawn_s / 2
    code = (
        "import sys, models.fold, models.cost, models.zoo;"
        "assert not {'torch', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("layer", "tensor", "value", "sentence"),
    [
        ("dense.0", "weight", float("nan"), "its weight has 1 of 24 values that are not finite"),
        ("dense.0", "bias", float("inf"), "its bias has 1 of 3 values .*the first inf"),
        ("blocks.0.conv", "conv.weight", -float("inf"), r"its conv\.weight has 1 of 72"),
        ("blocks.0.conv", "bn.running_mean", float("nan"), r"its bn\.running_mean has 1 of 8"),
        ("blocks.0.conv", "bn.running_var", -2.0, r"its bn\.running_var is -2 in channel 0"),
        ("blocks.0.conv", "bn.weight", 3e38, "its weight after folding, as float32, has"),
    ],
)
def test_a_layer_that_cannot_be_computed_is_refused_by_name(
    layer: str, tensor: str, value: float, sentence: str
) -> None:
    network = lived_in(ArchSpec.parse("8x8x1:same:conv_k3_s1_o8_relu:fc3"))
    with torch.no_grad():
        network.module.get_submodule(layer).state_dict()[tensor].view(-1)[0] = value
        if value > 1e38 and tensor == "bn.weight":
            network.module.get_submodule(layer).state_dict()["bn.running_var"][0] = 1e-12
    with pytest.raises(VerificationError, match=f"layer '{layer}' cannot be computed: {sentence}"):
        network.model()


def test_variances_of_zero_are_no_fault() -> None:
    network = lived_in(ArchSpec.parse("8x8x1:same:conv_k3_s1_o8_relu:fc3"))
    with torch.no_grad():
        variances = network.module.get_submodule("blocks.0.conv").state_dict()["bn.running_var"]
        variances[:3] = torch.tensor([0.0, 1e-30, 1e-12])
    assert all(
        np.isfinite(array).all() for pair in network.model().weights.values() for array in pair
    )
