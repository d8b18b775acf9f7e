"""A graph as a module of torch: it computes what the executor does, and trains as its source."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from models import zoo
from models.axes import to_graph
from models.execute import execute, execute_all
from models.graph import GraphBuilder, GraphError
from models.graph_module import GraphModule
from models.layout import settle
from models.lower import lower
from models.model import Model, random_model
from models.number_format import STATIC8
from models.ops import KINDS
from models.torch_forms import FORMS
from pipeline.formats.torch.program import Captured, capture
from pipeline.formats.torch.translate import translate
from tests import torch_nets
from tests.op_draws import drawn, modelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.ops import Shape

pytestmark = pytest.mark.filterwarnings("ignore")

WITHOUT_FORMS = {"argmax", "floordiv", "mod"}
"""Kinds whose gradient is zero or none, which the numpy reference computes."""


def read(module: nn.Module, shape: Shape) -> tuple[Model, Captured]:
    (name,) = module.forward.__annotations__.keys() - {"return"}
    truth = capture(module, {name: shape}, "net")
    found = translate(truth.program, "net")
    assert isinstance(found, Model)
    return settle(found), truth


NETS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "ResNet-18": (torch_nets.ResNet18, (1, 3, 32, 40)),
    "MobileNetV3": (lambda: torch_nets.MobileNet(third=True), (1, 3, 32, 40)),
    "U-Net": (torch_nets.UNet, (1, 3, 16, 24)),
    "text encoder": (torch_nets.TextEncoder, (1, 12)),
    "vision transformer": (torch_nets.VisionTransformer, (1, 3, 16, 24)),
}


def test_every_kind_with_a_gradient_has_a_form() -> None:
    assert set(KINDS) - set(FORMS) == WITHOUT_FORMS


def test_our_own_networks_run_bit_for_bit_as_in_the_executor() -> None:
    model = random_model(lower(zoo.get("mobilenet-v3-small")), np.random.default_rng(0))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        found = GraphModule(model)(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, execute(model, images), rtol=0, atol=0)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - WITHOUT_FORMS))
def test_every_kind_runs_as_in_the_executor_and_lets_gradients_through(kind: str) -> None:
    for seed in range(3):
        model, inputs = modelled(drawn(kind, seed))
        expected = execute_all(model, inputs)
        given = [
            torch.from_numpy(inputs[tensor.name].copy()).requires_grad_(tensor.dtype == "float32")
            for tensor in model.graph.inputs
        ]
        # As the graph has it: the draws have a layout of images for all.
        module = GraphModule(
            Model(
                model.graph,
                model.weights,
                inputs=tuple(type(end)(end.name, layout="") for end in model.inputs),
            )
        ).eval()
        found = module(*given)
        found = found if isinstance(found, tuple) else (found,)
        for name, value in zip(model.graph.outputs, found, strict=True):
            np.testing.assert_array_equal(value.detach().numpy(), expected[name])
        if any(value.requires_grad for value in found):
            total = sum(value.sum() for value in found if value.requires_grad)
            assert isinstance(total, torch.Tensor)
            total.backward()
            for tensor in (*given, *module.parameters()):
                assert tensor.grad is None or bool(torch.isfinite(tensor.grad).all())


def loss_of(outputs: Any) -> torch.Tensor:
    return outputs.square().mean() + outputs.sin().sum() / 7


@pytest.mark.parametrize("name", NETS)
def test_a_training_step_changes_what_it_changes_in_its_source(name: str) -> None:
    torch.manual_seed(0)
    make, shape = NETS[name]
    source = torch_nets.settled(make())
    model, truth = read(source, shape)
    constants = {tensor.name for tensor in model.graph.constants}
    ours = GraphModule(model, trained=constants & {"positions", "token"}).eval()
    for part in source.modules():  # random, and not to be compared
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    batch = torch.cat([truth.inputs[0], truth.inputs[0].flip(-1), truth.inputs[0].roll(1, -1)])
    with torch.no_grad():
        torch.testing.assert_close(ours(batch), source(batch), rtol=1e-4, atol=1e-5)
    # In training mode, but for what sees samples one by one.
    training = model.graph.keeps_batch
    ours.train(training)
    source.train(training)
    before = copy.deepcopy(source.state_dict())
    for module in (ours, source):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        loss_of(module(batch)).backward()
        optimizer.step()
    ours.eval()
    source.eval()
    moved = max(
        float((value - before[key]).abs().max())
        for key, value in source.state_dict().items()
        if value.is_floating_point()
    )
    assert moved > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(ours(batch), source(batch), rtol=1e-3, atol=1e-4)
    # Layer by layer: what is read of the trained module is what was trained.
    again, _ = read(source, shape)
    trained = ours.model()
    for key, arrays in again.weights.items():
        for found, expected in zip(trained.weights[key], arrays, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5, err_msg=key)


def test_statistics_move_in_training_mode_alone() -> None:
    source = torch_nets.settled(torch_nets.UNet())
    model, truth = read(source, (1, 3, 16, 24))
    module = GraphModule(model)
    module.eval()(truth.inputs[0])
    same = module.model()
    assert same.digest() == model.digest()
    module.train()(truth.inputs[0])
    moved = module.model()
    names = [key for key in model.weights if key.endswith("running_mean")]
    assert names
    for key in names:
        assert not np.array_equal(moved.weights[key][0], model.weights[key][0])
    assert np.array_equal(moved.weights["head"][0], model.weights["head"][0])


def test_inputs_and_outputs_are_as_their_user_has_them() -> None:
    source = torch_nets.settled(torch_nets.Detector())
    model, truth = read(source, (1, 3, 32, 48))
    found = GraphModule(model).eval()(truth.inputs[0])
    for ours, theirs in zip(found, truth.outputs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    graph_order = to_graph("NCHW", truth.inputs[0].numpy())
    direct = execute_all(model, {model.graph.inputs[0].name: graph_order})
    assert set(direct) == set(model.graph.outputs)
    with pytest.raises(TypeError, match=r"2 inputs are given; the network takes x"):
        GraphModule(model)(truth.inputs[0], truth.inputs[0])


def test_a_quantized_model_is_not_trained() -> None:
    builder = GraphBuilder()
    builder.op("act", "out", [builder.input("x", (1, 4))], act="sigmoid")
    model = random_model(builder.graph(), np.random.default_rng(0), STATIC8)
    with pytest.raises(GraphError, match=r"a model in static8 is not trained"):
        GraphModule(model)
    with pytest.raises(GraphError, match=r"has no constant 'y'"):
        GraphModule(Model(model.graph, {}), trained=["y"])


def test_constants_that_are_not_trained_are_buffers() -> None:
    source = torch_nets.settled(torch_nets.VisionTransformer())
    module = GraphModule(read(source, (1, 3, 16, 24))[0])
    parameters = [name for name, _ in module.named_parameters()]
    buffers = [name for name, _ in module.named_buffers()]
    assert any("norm1/weight" in name for name in parameters)
    assert any("positions" in name for name in buffers)
    assert sum(functional.relu(p).numel() for p in module.parameters()) == sum(
        p.numel() for name, p in source.named_parameters() if name not in ("token", "positions")
    )
