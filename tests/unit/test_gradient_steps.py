"""One architecture step, against autograd through the mixture, and what the target does to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.spec import Block, Dense
from models.supernet.paths import PathNet
from pipeline.data.tasks.classification import Classification
from pipeline.search.gradient._architecture import Architecture
from pipeline.search.gradient._gates import softmax
from pipeline.search.gradient.cells import LatencyModel

pytestmark = pytest.mark.usefixtures("one_torch_thread")

CELLS = (
    ((Block("conv", 3, 1, 4),),),
    (
        (Block("ds", 3, 1, 4, skip="identity"),),
        (Block("mb", 5, 1, 4, mid=8, skip="identity"),),
        (Block("mb", 3, 1, 4, mid=4, skip="identity"),),
        (),
    ),
)
ZERO = 3
MODEL = LatencyModel(2.0, (np.zeros(1), np.array([1.0, 3.0, 2.0, 0.0])))
ALPHAS = [np.zeros(1), np.array([0.4, 0.1, -0.3, 0.2])]
IMAGES = torch.randn(6, 1, 5, 5, generator=torch.Generator().manual_seed(1)).double()
LABELS = torch.arange(6) % 3


def network() -> PathNet:
    generator = torch.Generator().manual_seed(2)
    net = PathNet((5, 5, 1), CELLS, (Dense(3),), generator=generator)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return net.double()


def architecture(mode: str, loss: str = "mul-log") -> Architecture:
    rng = np.random.default_rng(0)
    found = Architecture.start(mode, loss, task=Classification(), model=MODEL, rate=0.2, rng=rng)
    found.alphas = [alpha.copy() for alpha in ALPHAS]
    return found


def rng_that_draws(found: Architecture, wanted: int) -> np.random.Generator:
    """Return a generator from which the next step makes `wanted` the second cell's active path."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        if found.sample(rng)[1] == wanted:
            return np.random.default_rng(seed)
    raise AssertionError("no seed draws it")


@pytest.mark.parametrize("loss", ["mul-log", "add-linear"])
@pytest.mark.parametrize("active", [0, 1, 2])
@pytest.mark.parametrize("goal_ms", [2.5, 8.0])
def test_full_v2_is_autograd_through_the_mixture_with_the_latency_term(
    loss: str, active: int, goal_ms: float
) -> None:
    net, found = network(), architecture("full_v2", loss)
    alpha = torch.tensor(ALPHAS[1], requires_grad=True)
    probabilities = torch.softmax(alpha, 0)
    gates = torch.eye(4, dtype=torch.float64)[active] + probabilities - probabilities.detach()
    x = net.cells[0][0](IMAGES)
    x = sum(gate * path(x) for gate, path in zip(gates, net.cells[1], strict=True))
    task = functional.cross_entropy(net.head(x), LABELS)
    expected_ms = MODEL.fixed_ms + probabilities @ torch.tensor(MODEL.extra_ms[1])
    weight = found.weight(goal_ms)
    if loss == "mul-log":
        value = torch.log(task * (expected_ms / goal_ms) ** weight)
    else:
        value = task + weight * (expected_ms / goal_ms - 1)
    value.backward()
    pairs = [(0,), (0, 1, 2, 3)]
    rng = rng_that_draws(found, active)
    run, gradients = found._binarised(net, IMAGES, LABELS, goal_ms, pairs, rng)
    assert net.active == (0, active)
    assert run == pytest.approx(task.item())
    assert gradients[0].tolist() == [0.0]
    assert gradients[1] == pytest.approx(alpha.grad.numpy(), rel=1e-8)


@pytest.mark.parametrize("loss", ["mul-log", "add-linear"])
@pytest.mark.parametrize("pair", [(0, 1), (2, 0), (1, ZERO)])
def test_two_is_autograd_through_the_mixture_of_the_pair_with_the_latency_term(
    loss: str, pair: tuple[int, int]
) -> None:
    net, found, goal_ms, at = network(), architecture("two", loss), 3.0, list(pair)
    for seed in range(20):  # one of the pair is Zero in the last case: then it has no gradient
        _, gradients = found._binarised(
            net, IMAGES, LABELS, goal_ms, [(0,), pair], np.random.default_rng(seed)
        )
        if net.active[1] == pair[0]:
            break
    assert net.active[1] == pair[0]
    alpha = torch.tensor(ALPHAS[1], requires_grad=True)
    probabilities = torch.softmax(alpha[at], 0)
    gates = torch.tensor([1.0, 0.0], dtype=torch.float64) + probabilities - probabilities.detach()
    x = net.cells[0][0](IMAGES)
    x = sum(gate * net.cells[1][path](x) for gate, path in zip(gates, pair, strict=True))
    task = functional.cross_entropy(net.head(x), LABELS)
    expected_ms = MODEL.fixed_ms + probabilities @ torch.tensor(MODEL.extra_ms[1][at])
    weight = found.weight(goal_ms)
    if loss == "mul-log":
        value = torch.log(task) + weight * torch.log(expected_ms / goal_ms)
    else:
        value = task + weight * (expected_ms / goal_ms - 1)
    value.backward()
    assert gradients[1] == pytest.approx(alpha.grad.numpy(), rel=1e-8)


@pytest.mark.parametrize("mode", ["full_v2", "two", "reinforce"])
def test_what_is_no_number_moves_no_probability(mode: str) -> None:
    net, found = network(), architecture(mode)
    loss = found.step(net, IMAGES * torch.nan, LABELS, 3.0, np.random.default_rng(0))
    assert not np.isfinite(loss)
    assert found.alphas[1].tolist() == ALPHAS[1].tolist()


def test_weights_that_diverged_beside_the_active_path_are_seen() -> None:
    net, found = network(), architecture("full_v2")
    with torch.no_grad():
        next(net.cells[1][1].parameters()).fill_(torch.nan)
    loss = found.step(net, IMAGES, LABELS, 3.0, rng_that_draws(found, 0))
    assert not np.isfinite(loss)
    assert found.alphas[1].tolist() == ALPHAS[1].tolist()


def test_a_batch_learnt_by_heart_still_has_a_step() -> None:
    net, found = network(), architecture("full_v2")
    with torch.no_grad():
        net.head.dense[0].bias[0] += 1e6
    loss = found.step(net, IMAGES, LABELS * 0, 3.0, rng_that_draws(found, 0))
    assert loss == 0.0
    assert np.isfinite(found.alphas[1]).all()
    assert found.alphas[1].tolist() != ALPHAS[1].tolist()  # latency still counts


def test_the_elasticity_is_the_same_in_any_unit() -> None:
    found = architecture("full_v2")
    for unit in (1e-3, 1.0, 1e3):
        found.model = LatencyModel(MODEL.fixed_ms * unit, tuple(m * unit for m in MODEL.extra_ms))
        at_target_ms = found.expected_ms
        of_task, of_latency = found._slopes(2.0, at_target_ms, at_target_ms)
        assert of_task * 2.0 == pytest.approx(1.0)
        assert of_latency * at_target_ms == pytest.approx(0.07)


def test_two_moves_only_the_pair_and_keeps_the_others_odds() -> None:
    net = network()
    pairs = set()
    for seed in range(12):
        found = architecture("two")
        found.step(net, IMAGES, LABELS, 3.0, np.random.default_rng(seed))
        before, after = softmax(ALPHAS[1]), softmax(found.alphas[1])
        moved = tuple(np.flatnonzero(~np.isclose(before, after, rtol=1e-9)).tolist())
        assert len(moved) in (0, 2)
        assert after[list(moved)].sum() == pytest.approx(before[list(moved)].sum())
        pairs.add(moved)
    assert len(pairs) > 3


def test_a_cell_whose_active_path_is_zero_takes_no_gradient() -> None:
    net, found = network(), architecture("full_v2")
    found.step(net, IMAGES, LABELS, 3.0, rng_that_draws(found, ZERO))
    assert net.active == (0, ZERO)
    assert found.alphas[1].tolist() == ALPHAS[1].tolist()


@pytest.mark.parametrize("mode", ["full_v2", "two", "reinforce"])
@pytest.mark.parametrize(("goal_ms", "sign"), [(2.8, 1), (4.2, -1)])
def test_the_odds_come_to_the_target_from_both_sides(mode: str, goal_ms: float, sign: int) -> None:
    net, found = network(), architecture(mode)
    rng = np.random.default_rng(0)
    start_ms, pressure = found.expected_ms, found.pressure
    assert sign * (start_ms - goal_ms) > 0
    found.step(net, IMAGES, LABELS, goal_ms, rng)
    assert sign * (found.pressure - pressure) > 0
    for _ in range(60):
        found.step(net, IMAGES, LABELS, goal_ms, rng)
    assert abs(found.expected_ms - goal_ms) < 0.5 * abs(start_ms - goal_ms)


def test_reinforces_baseline_is_an_average_over_steps() -> None:
    net, found = network(), architecture("reinforce")
    found.baseline = 10.0  # above any reward: the newest step counts for a tenth, not for all
    found._reinforce(net, IMAGES, LABELS, 3.0, np.random.default_rng(5))
    assert 9.0 <= found.baseline < 9.3


def test_reinforces_gradient_is_the_mean_of_reward_less_baseline_times_the_score() -> None:
    net, found = network(), architecture("reinforce")
    found.baseline = 0.25
    rng = np.random.default_rng(7)
    drawn = [found.sample(rng)[1] for _ in range(10)]
    weight = found.weight(3.0)
    net.eval()
    expected = torch.zeros(4, dtype=torch.float64)
    for choice in drawn:
        net.select((0, choice))
        with torch.no_grad():
            accuracy = float((net(IMAGES).argmax(1) == LABELS).double().mean())
        reward = accuracy * (3.0 / MODEL.of((0, choice))) ** weight
        alpha = torch.tensor(ALPHAS[1], requires_grad=True)
        (-torch.log_softmax(alpha, 0)[choice]).backward()
        expected += (reward - 0.25) * alpha.grad / 10
    _, gradients = found._reinforce(net, IMAGES, LABELS, 3.0, np.random.default_rng(7))
    assert gradients[1] == pytest.approx(expected.numpy(), rel=1e-5)
