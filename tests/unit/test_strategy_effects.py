from __future__ import annotations

import itertools

import numpy as np

from pipeline.search.strategy._effects import Effects

COUNTS = (3, 3, 2, 3)
HERE = np.array([0, 1, 0, 2])


def _measured(seed: int) -> tuple[Effects, np.ndarray, np.ndarray]:
    """Return effects at HERE of a problem in which everything adds up: (D, C) merits and costs."""
    rng = np.random.default_rng(seed)
    merit, cost = rng.normal(size=(2, 4, 3))
    effects = Effects(COUNTS)
    for d, count in enumerate(COUNTS):
        for o in set(range(count)) - {int(HERE[d])}:
            effects.learn(d, o, merit[d, o] - merit[d, HERE[d]], cost[d, o] - cost[d, HERE[d]])
    return effects, merit, cost


def _best(merit: np.ndarray, cost: np.ndarray, slack: float) -> list[tuple[int, ...]]:
    """Return all gainful points two or three changes away within the slack, the best first."""
    rows = np.arange(4)
    base = merit[rows, HERE].sum(), cost[rows, HERE].sum()
    found = []
    for point in itertools.product(*map(range, COUNTS)):
        changes = int((np.array(point) != HERE).sum())
        gain = merit[rows, point].sum() - base[0]
        if 2 <= changes <= 3 and gain > 0 and cost[rows, point].sum() - base[1] <= slack:
            found.append((gain, point))
    return [point for _, point in sorted(found, reverse=True)]


def test_exchanges_are_the_best_pairs_and_triples_of_all() -> None:
    for seed, slack in ((0, 1.0), (1, 1.5), (2, 1.0)):
        effects, merit, cost = _measured(seed)
        expected = _best(merit, cost, slack)
        assert len(expected) > 3
        found = [tuple(genes.tolist()) for genes in effects.exchanges(HERE, slack, 100)]
        assert found == expected
        few = [tuple(genes.tolist()) for genes in effects.exchanges(HERE, slack, 2)]
        assert few == expected[:2]


def test_outside_the_limit_the_way_back_comes_first() -> None:
    effects, _, cost = _measured(0)
    rows = np.arange(4)
    reachable = cost.min(axis=1)[[0, 1, 3]].sum() - cost[[0, 1, 3], HERE[[0, 1, 3]]].sum()
    found = effects.exchanges(HERE, reachable, 1)[0]
    assert cost[rows, found].sum() - cost[rows, HERE].sum() <= reachable + 1e-9
    # Nothing saves so much: then what saves most.
    most = effects.exchanges(HERE, -100.0, 1)[0]
    everything = effects.exchanges(HERE, -100.0, 100)
    assert cost[rows, most].sum() == min(cost[rows, genes].sum() for genes in everything)


def test_effects_stay_right_when_the_search_moves() -> None:
    effects, merit, cost = _measured(3)
    there = np.array([2, 1, 1, 0])
    effects.move(HERE, there)
    rows = np.arange(4)
    np.testing.assert_allclose(effects.gain[0], merit[0] - merit[0, 2])
    np.testing.assert_allclose(effects.cost[3], cost[3] - cost[3, 0])
    assert effects.gain[rows, there].tolist()[0] == 0


def test_what_failed_is_never_part_of_an_exchange() -> None:
    effects, _, _ = _measured(0)
    effects.learn(0, 1, -np.inf, 1.0)
    effects.learn(0, 2, np.nan, 1.0)
    found = effects.exchanges(HERE, 10.0, 100)
    assert found
    assert all(genes[0] == HERE[0] for genes in found)
