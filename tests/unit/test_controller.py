from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_agents.errors import ConfigError
from pipeline.search import strategy as strategies
from pipeline.search.api import Trial
from pipeline.search.space.mnasnet import MnasNetSpace
from pipeline.search.strategy._policy import Adam, Policy
from pipeline.search.strategy.mnasnet_ppo import MnasNetPPO, MnasNetPPOOptions
from pipeline.search.strategy.random_search import RandomSearch
from tests.search_problems import Cells, additive, agreement, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.spec import ArchSpec

CARDINALITIES = (3, 2, 4, 1, 3)


def _policy(seed: int = 0) -> Policy:
    policy = Policy(CARDINALITIES, np.random.default_rng(seed), hidden=5, embedding=4)
    # Away from the near-uniform start, where some gradients almost vanish.
    for name in policy.parameters:
        policy.parameters[name] *= 8.0
    return policy


def test_gradients_are_those_of_finite_differences() -> None:
    policy, rng = _policy(), np.random.default_rng(1)
    tokens, _ = policy.sample(rng, 4)
    by_log_prob, by_entropy = rng.normal(size=(2, 4, 5))

    def loss() -> float:
        at = policy.evaluate(tokens)
        return float((by_log_prob * at.log_prob + by_entropy * at.entropy).sum())

    grads = policy.gradients(policy.evaluate(tokens), by_log_prob, by_entropy)
    step = 1e-6
    for name, value in policy.parameters.items():
        numeric = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            kept = value[index]
            value[index] = kept + step
            above = loss()
            value[index] = kept - step
            numeric[index] = (above - loss()) / (2 * step)
            value[index] = kept
        assert np.abs(grads[name]).max() > 1e-3, name
        np.testing.assert_allclose(grads[name], numeric, rtol=1e-5, atol=1e-7, err_msg=name)


def test_probabilities_of_all_sequences_sum_to_one() -> None:
    policy = _policy()
    everything = np.array(list(np.ndindex(CARDINALITIES)), np.int64)
    probabilities = np.exp(policy.evaluate(everything).log_prob.sum(axis=1))
    assert probabilities.sum() == pytest.approx(1.0)
    assert probabilities.max() > 3 * probabilities.min()  # and it is not uniform


def test_samples_follow_the_probabilities_that_come_with_them() -> None:
    policy = _policy()
    tokens, log_prob = policy.sample(np.random.default_rng(2), 40_000)
    np.testing.assert_allclose(log_prob, policy.evaluate(tokens).log_prob, atol=1e-12)
    everything = np.array(list(np.ndindex(CARDINALITIES)), np.int64)
    expected = np.exp(policy.evaluate(everything).log_prob.sum(axis=1))
    flat = np.ravel_multi_index(tuple(tokens.T), CARDINALITIES)
    seen = np.bincount(flat, minlength=len(expected)) / len(tokens)
    assert np.abs(seen - expected).max() < 5 * math.sqrt(expected.max() / len(tokens))


def test_entropy_starts_near_its_maximum() -> None:
    policy = Policy(CARDINALITIES, np.random.default_rng(0))
    tokens, _ = policy.sample(np.random.default_rng(0), 8)
    entropy = policy.evaluate(tokens).entropy.mean(axis=0)
    np.testing.assert_allclose(entropy, np.log(CARDINALITIES), atol=0.02)


def test_adam_finds_a_minimum() -> None:
    parameters = {"x": np.array([5.0, -3.0])}
    adam = Adam(0.1)
    for _ in range(500):
        adam.update(parameters, {"x": 2 * (parameters["x"] - 1.0)})
    np.testing.assert_allclose(parameters["x"], 1.0, atol=1e-2)


def _lead(space: Cells, score: Callable[[ArchSpec], float], trials: int, seed: int) -> float:
    """Return how much better the best network of the controller is than random search's."""
    learned, drawn = (
        max(trial.score for trial in run(name, space, score, trials=trials, seed=seed))
        for name in ("mnasnet_ppo", "random_search")
    )
    return learned - drawn


def test_it_finds_good_options() -> None:
    # Over 16 seeds the lead is 1.81 on average, 0.40 its standard deviation; scores have sd 1.
    space = Cells(depth=30, options=3)
    leads = [_lead(space, additive(space, seed), 150, seed) for seed in range(3)]
    assert np.mean(leads) > 1.0


def test_it_finds_options_that_are_good_only_together() -> None:
    # Over 16 seeds the lead is 0.19 on average, 0.06 its standard deviation; perfect is 1.
    space = Cells(depth=12, options=4)
    leads = [_lead(space, agreement(space), 300, seed) for seed in range(3)]
    assert np.mean(leads) > 0.08


def test_the_unit_of_the_reward_does_not_matter() -> None:
    space = Cells(8, 3)
    score = additive(space, 1)

    def searched(scale: float, shift: float) -> list[ArchSpec]:
        def scaled(spec: ArchSpec) -> float:
            return scale * round(score(spec), 9) + shift

        return [t.spec for t in run("mnasnet_ppo", space, scaled, trials=60, seed=2)]

    assert searched(1.0, 0.0) == searched(1024.0, 512.0)


def test_it_learns_to_avoid_what_fails() -> None:
    space = Cells(8, 3)
    score = additive(space, 4)

    def fails(spec: ArchSpec) -> bool:
        return spec.blocks[2].out == 1  # a third of the space

    done = run(
        "mnasnet_ppo", space, lambda s: -math.inf if fails(s) else score(s), trials=200, seed=0
    )
    assert sum(fails(t.spec) for t in done[-100:]) < 10  # 33 of 100 by chance


def test_two_hundred_trials_of_thirty_decisions_take_seconds() -> None:
    space = MnasNetSpace(input=(32, 32, 3), classes=10)
    assert len(space.cardinalities) == 30
    start_s = time.process_time()
    run("mnasnet_ppo", space, lambda spec: float(len(spec.blocks)), trials=200, seed=0)
    assert time.process_time() - start_s < 20  # 2 s on an idle machine


def test_trials_must_be_those_asked_for() -> None:
    strategy = strategies.create("mnasnet_ppo", Cells(), np.random.default_rng(0))
    asked = strategy.ask(3)
    with pytest.raises(ValueError, match="tell the 3 trials"):
        strategy.ask(1)
    with pytest.raises(ValueError, match="not next of those asked"):
        strategy.tell([Trial(spec, score=0.0) for spec in reversed(asked)])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch": 1}, "batch: 1 is below 2"),
        ({"clip": 0.0}, "clip: 0.0 is not above 0"),
        ({"learning_rate": -1.0}, "learning_rate: -1.0 is not above 0"),
        ({"learning_rate": math.nan}, "learning_rate: nan is not above 0"),
        ({"baseline_decay": 1.0}, "baseline_decay: 1.0 is not below 1"),
        ({"epochs": 2.5}, "option 'epochs': 2.5 is not a whole number"),
    ],
)
def test_wrong_options_are_one_clear_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        strategies.create("mnasnet_ppo", Cells(), np.random.default_rng(0), **options)


def test_a_wild_learning_rate_stays_finite() -> None:
    space, options = Cells(8, 3), MnasNetPPOOptions(learning_rate=10.0, entropy_bonus=0.0)
    strategy = MnasNetPPO(space, np.random.default_rng(0), options)
    score = additive(space, 0)
    for _ in range(10):
        strategy.tell([Trial(spec, score=score(spec)) for spec in strategy.ask(10)])
    assert all(np.isfinite(value).all() for value in strategy.policy.parameters.values())


def test_random_search_repeats_nothing_while_there_is_something_new() -> None:
    space = Cells(3, 4)
    strategy = RandomSearch(space, np.random.default_rng(0))
    assert len(set(strategy.ask(60))) == 60  # of 64
