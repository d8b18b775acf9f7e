"""The binarised path network, against torch's autograd through the whole mixture."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from models.build import build
from models.spec import ArchSpec, Block, Dense, SpecError
from models.supernet.paths import PathNet
from pipeline.search.gradient._gates import chain, softmax

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

pytestmark = pytest.mark.usefixtures("one_torch_thread")

INPUT = (6, 6, 2)
K3 = Block("mb", 3, 1, 4, mid=8, skip="identity")
K5 = Block("mb", 5, 1, 4, mid=16, skip="identity")
SEPARABLE = Block("ds", 3, 1, 4)
CELLS = (
    ((Block("conv", 3, 1, 4),),),
    ((K3,), (K5,), ()),
    ((SEPARABLE,), (K3, K3), (K5,)),
)
DENSE = (Dense(3),)
IMAGES = torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 3


def network(seed: int = 0) -> PathNet:
    """Return a net whose weights are away from their start, so that no gradient is tiny."""
    net = PathNet(INPUT, CELLS, DENSE, generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return net.double()


def cross_entropy(logits: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, LABELS)


def mixture(
    net: PathNet,
    gates: Sequence[torch.Tensor],
    loss: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Return the loss with every cell's output the sum of all paths', weighted by its gates."""
    x = IMAGES.double()
    for paths, weights in zip(net.cells, gates, strict=True):
        x = sum(gate * path(x) for gate, path in zip(weights, paths, strict=True))
    return loss(net.head(x))


def one_hot(choices: Sequence[int]) -> list[torch.Tensor]:
    return [
        torch.eye(len(cell), dtype=torch.float64)[choice].requires_grad_()
        for cell, choice in zip(CELLS, choices, strict=True)
    ]


@pytest.mark.parametrize("choices", [(0, 0, 1), (0, 1, 0), (0, 2, 2)])
def test_gate_gradients_are_those_of_the_whole_mixture_at_a_one_hot_gate(
    choices: tuple[int, ...],
) -> None:
    net = network()
    gates = one_hot(choices)
    mixture(net, gates, cross_entropy).backward()
    net.select(choices)
    loss, found = net.gate_gradients(
        IMAGES.double(), cross_entropy, [range(len(cell)) for cell in CELLS]
    )
    assert loss == pytest.approx(cross_entropy(net(IMAGES.double())).item(), rel=1e-12)
    for own, gate in zip(found, gates, strict=True):
        assert own == pytest.approx(gate.grad.tolist(), rel=1e-9, abs=1e-12)


def test_only_the_paths_asked_for_are_recomputed() -> None:
    net = network()
    net.select((0, 1, 0))
    everything = net.gate_gradients(IMAGES.double(), cross_entropy, [(0,), (0, 1, 2), (0, 1, 2)])
    _, some = net.gate_gradients(IMAGES.double(), cross_entropy, [(), (2, 1), ()])
    assert some == [[], [everything[1][1][2], everything[1][1][1]], []]


def test_the_expectation_over_gates_is_the_gradient_through_the_mixture_where_that_is_linear() -> (
    None
):
    """With one cell in front of a linear loss both are sum_j dL/dg_j p_j (delta_ij - p_i)."""
    cells = CELLS[:2]
    net = PathNet(INPUT, cells, DENSE, generator=torch.Generator().manual_seed(3)).double()
    with torch.no_grad():
        net.head.dense[0].weight.normal_(generator=torch.Generator().manual_seed(4))
    alpha = torch.tensor([0.3, -0.4, 0.9], dtype=torch.float64, requires_grad=True)
    fixed = torch.ones(1, dtype=torch.float64)
    mixture(net, [fixed, torch.softmax(alpha, 0)], lambda logits: logits[:, 1].sum()).backward()
    probabilities = softmax(alpha.detach().numpy())
    mean = np.zeros(3)
    for choice in range(3):
        net.select((0, choice))
        _, (_, gates) = net.gate_gradients(
            IMAGES.double(), lambda logits: logits[:, 1].sum(), [(), (0, 1, 2)]
        )
        mean += probabilities[choice] * chain(np.array(gates), probabilities)
    assert mean == pytest.approx(alpha.grad.numpy(), rel=1e-9)


def test_an_architecture_step_leaves_weights_and_statistics_as_they_are() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.select((0, 0, 1))
    net.gate_gradients(IMAGES.double(), cross_entropy, [range(len(cell)) for cell in CELLS])
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    net(IMAGES.double())  # and a weight step collects statistics again
    assert not torch.equal(
        before["cells.0.0.0.conv.bn.running_mean"],
        net.state_dict()["cells.0.0.0.conv.bn.running_mean"],
    )


def test_only_active_weights_take_a_gradient() -> None:
    net = network()
    net.select((0, 1, 2))
    cross_entropy(net(IMAGES.double())).backward()
    active = {id(weight) for weight in net.active_parameters()}
    assert {id(weight) for weight in net.parameters() if weight.grad is not None} == active


@pytest.mark.parametrize(
    "choices", list(itertools.product(*(range(len(cell)) for cell in CELLS))), ids=str
)
def test_an_extracted_path_computes_what_the_net_computes(choices: tuple[int, ...]) -> None:
    net = network().float().eval()
    net.select(choices)
    alone = net.network(choices)
    assert alone.spec == net.spec(choices)
    assert torch.equal(alone.module(IMAGES), net(IMAGES))
    assert alone.module.state_dict().keys() == build(alone.spec).state_dict().keys()
    with torch.no_grad():
        next(net.parameters()).add_(1.0)  # a copy does not follow
    assert not torch.equal(alone.module(IMAGES), net(IMAGES))


def test_candidates_start_as_parts_of_the_largest() -> None:
    net = PathNet(INPUT, CELLS, DENSE, generator=torch.Generator().manual_seed(0))
    (small,), (large,) = net.cells[1][0], net.cells[1][1]
    assert torch.equal(small.expand.conv.weight, large.expand.conv.weight[:8])
    assert torch.equal(small.depthwise.conv.weight, large.depthwise.conv.weight[:8, :, 1:4, 1:4])
    assert torch.equal(small.project.conv.weight, large.project.conv.weight[:, :8])
    with torch.no_grad():
        small.expand.conv.weight.add_(1.0)  # copies: they are trained on their own
    assert not torch.equal(small.expand.conv.weight, large.expand.conv.weight[:8])


def test_the_generator_decides_the_weights() -> None:
    first, again, other = (
        PathNet(INPUT, CELLS, DENSE, generator=torch.Generator().manual_seed(seed)).state_dict()
        for seed in (5, 5, 6)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_cell_whose_candidates_differ_in_shape_is_refused() -> None:
    wide = (Block("conv", 3, 1, 8),)
    with pytest.raises(SpecError, match=r"cell 0 gives 4 channels at step 1, 8 channels at step 1"):
        PathNet(INPUT, [((SEPARABLE,), wide)], DENSE)
    halving = (Block("conv", 3, 2, 4),)
    with pytest.raises(SpecError, match="cell 0 gives 4 channels at step 1, 4 channels at step 2"):
        PathNet(INPUT, [((SEPARABLE,), halving)], DENSE)
    with pytest.raises(SpecError, match="cell 1 gives no candidate"):
        PathNet(INPUT, [((SEPARABLE,),), ()], DENSE)


def test_a_network_is_an_arch_spec_of_the_choices() -> None:
    net = PathNet(INPUT, CELLS, DENSE)
    assert net.spec((0, 2, 1)) == ArchSpec(INPUT, (CELLS[0][0][0], K3, K3), DENSE)
