"""Probabilities of a cell: the chain rule of softmax, draws, steps that move only what they saw."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pipeline.search.gradient._gates import (
    Adam,
    chain,
    draw_two,
    entropy_bits,
    rescale,
    softmax,
)

ALPHA = np.array([0.3, -1.2, 0.8, 0.1])
GATES = np.array([1.5, -0.2, 0.7, 2.0])


def test_the_chain_rule_is_autograds() -> None:
    alpha = torch.tensor(ALPHA, requires_grad=True)
    (torch.softmax(alpha, 0) @ torch.tensor(GATES)).backward()
    assert chain(GATES, softmax(ALPHA)) == pytest.approx(alpha.grad.numpy())


def test_what_all_paths_share_moves_no_probability() -> None:
    probabilities = softmax(ALPHA)
    assert chain(GATES + 7.0, probabilities) == pytest.approx(chain(GATES, probabilities))


def test_two_paths_drawn_give_the_gradient_of_the_mixture_of_the_two() -> None:
    """Expectation by enumerating pairs and gates, against autograd; the loss is linear."""
    alpha = torch.tensor(ALPHA, requires_grad=True)
    probabilities = softmax(ALPHA)
    loss, mean = torch.zeros((), dtype=torch.float64), np.zeros(4)
    for a, b in itertools.permutations(range(4), 2):
        probability = probabilities[a] * probabilities[b] / (1 - probabilities[a])
        at = [a, b]
        loss = loss + probability * (torch.softmax(alpha[at], 0) @ torch.tensor(GATES[at]))
        mean[at] += probability * chain(GATES[at], softmax(ALPHA[at]))
    loss.backward()
    assert mean == pytest.approx(alpha.grad.numpy())


def test_pairs_are_drawn_without_replacement_by_the_probabilities() -> None:
    rng = np.random.default_rng(0)
    probabilities = softmax(ALPHA)
    drawn = [draw_two(probabilities, rng) for _ in range(4_000)]
    assert all(a != b for a, b in drawn)
    share = np.mean([pair == (2, 0) for pair in drawn])
    assert share == pytest.approx(
        probabilities[2] * probabilities[0] / (1 - probabilities[2]), abs=0.02
    )
    assert draw_two(np.array([1.0, 0.0, 0.0]), rng)[0] == 0


def test_rescaling_keeps_the_probabilities_of_the_paths_not_drawn() -> None:
    moved = ALPHA.copy()
    moved[[1, 3]] += [0.9, -0.2]
    new = rescale(ALPHA, moved, (1, 3))
    before, after = softmax(ALPHA), softmax(new)
    assert after[[0, 2]] == pytest.approx(before[[0, 2]], rel=1e-12)
    assert after[1] + after[3] == pytest.approx(before[1] + before[3], rel=1e-12)
    assert np.log(after[1] / after[3]) == pytest.approx(moved[1] - moved[3])
    assert new[[0, 2]].tolist() == ALPHA[[0, 2]].tolist()


def test_adam_without_momentum_stands_still_where_there_is_no_gradient() -> None:
    adam = Adam(0.1, [2])
    alphas = [np.array([0.0, 0.0])]
    alphas = adam.step(alphas, [np.array([3.0, -5.0])])
    assert alphas[0] == pytest.approx([-0.1, 0.1])  # the first step is the rate, whatever the size
    still = adam.step(alphas, [np.array([0.0, -5.0])])
    assert still[0][0] == alphas[0][0]
    assert still[0][1] > alphas[0][1]


def test_adam_is_torchs() -> None:
    rng = np.random.default_rng(1)
    parameter = torch.tensor(ALPHA, requires_grad=True)
    theirs = torch.optim.Adam([parameter], lr=0.05, betas=(0.0, 0.999), eps=1e-8)
    adam, alphas = Adam(0.05, [4]), [ALPHA]
    for _ in range(5):
        gradient = rng.normal(size=4)
        parameter.grad = torch.tensor(gradient)
        theirs.step()
        alphas = adam.step(alphas, [gradient])
    assert alphas[0] == pytest.approx(parameter.detach().numpy())


def test_entropy_in_bits() -> None:
    assert entropy_bits(np.full(8, 1 / 8)) == pytest.approx(3.0)
    assert entropy_bits(np.array([1.0, 0.0])) == 0.0
