"""The controllers' updates, held against what they are defined as."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.search.strategy._policy import Adam, Policy
from pipeline.search.strategy.mnasnet_ppo import MnasNetPPO, MnasNetPPOOptions, surrogate_slope
from pipeline.search.strategy.mnasnet_reinforce import MnasNetReinforce, MnasNetReinforceOptions
from tests.search_problems import Cells

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.search.strategy._policy import Parameters

SPACE = Cells(depth=3, options=3)
STEP = 1e-6


def _numeric(policy: Policy, objective: Callable[[], float]) -> Parameters:
    """Return the gradient of an objective of a policy by central differences."""
    found = {name: np.zeros_like(value) for name, value in policy.parameters.items()}
    for name, value in policy.parameters.items():
        for index in np.ndindex(value.shape):
            kept = value[index]
            value[index] = kept + STEP
            above = objective()
            value[index] = kept - STEP
            found[name][index] = (above - objective()) / (2 * STEP)
            value[index] = kept
    return found


def _expected(policy: Policy, gradient: Parameters, learning_rate: float) -> Parameters:
    """Return the parameters after one step up the gradient."""
    copy = {name: value.copy() for name, value in policy.parameters.items()}
    Adam(learning_rate).update(copy, {name: -value for name, value in gradient.items()})
    return copy


def test_the_surrogate_is_clipped_as_in_the_paper() -> None:
    # Ratios below, in and above 1 +- 0.2, for a good and a bad action.
    ratio = np.array([0.5, 1.0, 1.5])
    for advantage, expected in ((2.0, [1.0, 2.0, 0.0]), (-2.0, [0.0, -2.0, -3.0])):
        slope = surrogate_slope(np.log(ratio), np.zeros(3), np.full(3, advantage), 0.2)
        np.testing.assert_allclose(slope, expected)


def test_ppo_takes_a_step_up_the_clipped_surrogate() -> None:
    options = MnasNetPPOOptions(epochs=1, entropy_bonus=0.03, hidden=3, embedding=2)
    strategy = MnasNetPPO(SPACE, np.random.default_rng(0), options)
    policy, rng = strategy.policy, np.random.default_rng(1)
    for name in policy.parameters:
        policy.parameters[name] *= 8.0  # away from the near-uniform start
    tokens, log_prob = policy.sample(rng, 6)
    before = log_prob + rng.choice([-0.5, 0.1, 0.5], size=log_prob.shape)  # some beyond the clip
    advantage = rng.normal(size=6)

    def objective() -> float:
        now = policy.evaluate(tokens)
        ratio = np.exp(now.log_prob - before)
        clipped = np.clip(ratio, 0.8, 1.2)
        surrogate = np.minimum(ratio * advantage[:, None], clipped * advantage[:, None])
        return float(surrogate.mean() + 0.03 * now.entropy.mean())

    expected = _expected(policy, _numeric(policy, objective), options.learning_rate)
    strategy.update(tokens, before, advantage)
    for name, value in policy.parameters.items():
        moved = np.abs(expected[name] - value).max()
        # Adam's first step is the gradient's sign: where that is 0 but for rounding, no matter.
        assert moved < 2.1 * options.learning_rate
    agree = [
        np.isclose(value, expected[name], atol=1e-5).mean()
        for name, value in policy.parameters.items()
    ]
    assert min(agree) > 0.95


def test_reinforce_ascends_the_expected_reward() -> None:
    """Weighted by their probabilities, all sequences give the gradient of the mean reward."""
    options = MnasNetReinforceOptions(entropy_bonus=0.0, hidden=3, embedding=2)
    strategy = MnasNetReinforce(SPACE, np.random.default_rng(0), options)
    policy = strategy.policy
    for name in policy.parameters:
        policy.parameters[name] *= 8.0
    everything = np.array(list(np.ndindex(3, 3, 3)), np.int64)
    reward = np.random.default_rng(2).normal(size=len(everything))

    def expected_reward() -> float:
        return float(np.exp(policy.evaluate(everything).log_prob.sum(axis=1)) @ reward)

    now = policy.evaluate(everything)
    probability = np.exp(now.log_prob.sum(axis=1))
    # The update takes a mean over sequences and decisions; each sequence counts as it is likely.
    advantage = (reward - 0.3) * probability * everything.size
    step = _expected(policy, _numeric(policy, expected_reward), options.learning_rate)
    strategy.update(everything, now.log_prob, advantage)
    for name, value in policy.parameters.items():
        np.testing.assert_allclose(value, step[name], atol=1e-4, err_msg=name)


def test_the_baseline_is_subtracted_before_the_batch_enters_it() -> None:
    options = MnasNetReinforceOptions(window=4, baseline_decay=0.8)
    strategy = MnasNetReinforce(SPACE, np.random.default_rng(0), options)
    scale = 12**0.5
    first = strategy.advantages(np.array([1.0, 2.0]))
    np.testing.assert_allclose(first, np.array([-0.25, 0.25]) * scale)  # ranks 0.25, 0.75
    second = strategy.advantages(np.array([3.0, 4.0]))
    # Among 1, 2, 3, 4 they rank at 0.625 and 0.875; the baseline is still the first batch's 0.5.
    np.testing.assert_allclose(second, np.array([0.125, 0.375]) * scale)
    third = strategy.advantages(np.array([3.0, 4.0]))
    # Now it holds a fifth of the second batch's mean, 0.25; ranks among 3, 4, 3, 4.
    np.testing.assert_allclose(third, (np.array([-0.25, 0.25]) - 0.2 * 0.25) * scale)


def test_a_failed_candidate_ranks_below_all_others() -> None:
    strategy = MnasNetReinforce(SPACE, np.random.default_rng(0))
    advantage = strategy.advantages(np.array([-5.0, np.nan, 1.0, -np.inf]))
    assert advantage[1] == advantage[3] == pytest.approx(min(advantage))
    assert advantage[0] > advantage[1]
