"""From probabilities to networks on target: knapsack, correction by the device, what cannot be."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.api import Failure
from device_agents.errors import ConfigError, TargetError
from models.cost import cost
from models.lower import lower
from pipeline.search.api import Estimate
from pipeline.search.gradient._aim import Aim
from pipeline.search.gradient._derive import derive
from pipeline.search.gradient.cells import LatencyModel, cells_of
from pipeline.search.space.mnasnet import MnasNetSpace
from pipeline.search.space.proxyless import ProxylessSpace
from pipeline.search.space.stages import Stage
from tests.search_problems import Cells

if TYPE_CHECKING:
    from models.spec import ArchSpec
    from pipeline.search.gradient.api import Measure

SPACE = ProxylessSpace(
    input=(16, 16, 1),
    classes=4,
    stem=(3, 2, 8),
    first=8,
    stages=(Stage(2, 16, 3), Stage(2, 24, 2)),
    head=32,
)
CELLS = cells_of(SPACE)


def millions(spec: ArchSpec) -> float:
    return cost(lower(spec)).macs / 1e6


MODEL = LatencyModel.tabulate(CELLS, millions)
SLOWEST_MS = MODEL.slowest_ms
MIDDLE_MS = (MODEL.fixed_ms + SLOWEST_MS) / 2


def random_log_probabilities(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    logs = [rng.normal(size=len(ms)) for ms in MODEL.extra_ms]
    return [log - np.logaddexp.reduce(log) for log in logs]


def likelihood(choices: tuple[int, ...], log_probabilities: list[np.ndarray]) -> float:
    return sum(logs[c] for logs, c in zip(log_probabilities, choices, strict=True))


def test_cells_are_the_groups_of_the_space_and_decode_alike() -> None:
    assert [len(cell) for cell in CELLS.candidates] == [1, 6, 7, 7, 6, 7, 1]
    rng = np.random.default_rng(0)
    for _ in range(20):
        choices = tuple(int(rng.integers(count)) for count in SPACE.cardinalities)
        assert CELLS.spec((0, *choices, 0)) == SPACE.decode(choices)


def test_mnasnet_with_one_width_factor_has_cells_too() -> None:
    space = MnasNetSpace(
        input=(16, 16, 1),
        classes=4,
        stages=(Stage(2, 16, 1), Stage(2, 24, 1)),
        width_factors=(1.0,),
    )
    cells = cells_of(space)
    assert all(spec in space for spec in cells.cover_space())
    blocks = {block for spec in cells.cover_space() for block in spec.blocks}
    assert blocks == {b for cell in cells.candidates for path in cell for b in path}


def test_a_space_that_is_no_chain_of_cells_of_one_width_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"stage1.width.* gives widths of .* needs one width"):
        cells_of(MnasNetSpace(input=(16, 16, 1), classes=4))
    with pytest.raises(ConfigError, match="'cells': the cell of d0 gives widths of 1, 2, 3, 4, 5"):
        cells_of(Cells())


def test_the_model_adds_up_to_what_it_was_made_from() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        choices = tuple(int(rng.integers(len(cell))) for cell in CELLS.candidates)
        assert MODEL.of(choices) == pytest.approx(millions(CELLS.spec(choices)))
    assert MODEL.of(MODEL.fastest()) == pytest.approx(MODEL.fixed_ms)
    probabilities = [np.full(len(ms), 1 / len(ms)) for ms in MODEL.extra_ms]
    everything = itertools.product(*(range(len(ms)) for ms in MODEL.extra_ms))
    assert MODEL.expected(probabilities) == pytest.approx(
        np.mean([MODEL.of(c) for c in everything])
    )


@pytest.mark.parametrize("seed", range(5))
def test_derive_finds_the_most_likely_network_of_the_band(seed: int) -> None:
    log_probabilities = random_log_probabilities(seed)
    low, high = 0.95 * MIDDLE_MS, MIDDLE_MS
    (found,) = derive(log_probabilities, MODEL, (low, high))
    everything = itertools.product(*(range(len(ms)) for ms in MODEL.extra_ms))
    best = max(likelihood(c, log_probabilities) for c in everything if low <= MODEL.of(c) <= high)
    assert low <= MODEL.of(found) <= high
    assert likelihood(found, log_probabilities) == pytest.approx(best, abs=0.05)  # the grid rounds


def test_derive_gives_several_different_ones_most_likely_first() -> None:
    log_probabilities = random_log_probabilities(0)
    found = derive(log_probabilities, MODEL, (0.9 * MIDDLE_MS, MIDDLE_MS), count=6)
    assert len(set(found)) == 6
    probabilities = [likelihood(choices, log_probabilities) for choices in found]
    assert probabilities == sorted(probabilities, reverse=True)


def test_derive_finds_nothing_where_there_is_nothing() -> None:
    assert derive(random_log_probabilities(0), MODEL, (0.0, 0.9 * MODEL.fixed_ms)) == []
    assert derive(random_log_probabilities(0), MODEL, (1.1 * SLOWEST_MS, 1.2 * SLOWEST_MS)) == []


def device(
    factor: float, *, error: float = 0.0, stderr: float = 0.002
) -> tuple[list[ArchSpec], Measure]:
    """Return (networks measured, a device that takes `factor` times what the model says).

    `error` is the standard deviation of a network's own deviation from that, as a share.
    """
    seen: list[ArchSpec] = []

    def measure(spec: ArchSpec) -> Estimate | Failure:
        seen.append(spec)
        own = np.random.default_rng(int(spec.digest(), 16)).normal()
        value = factor * millions(spec) * (1 + error * own)
        return Estimate(value, stderr * value, "measured")

    return seen, measure


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.3])
@pytest.mark.parametrize("share", [0.35, 0.5, 0.75])
def test_what_lands_is_on_target_on_a_device_that_the_model_misjudges(
    factor: float, share: float
) -> None:
    target_ms = factor * (MODEL.fixed_ms + share * (SLOWEST_MS - MODEL.fixed_ms))
    seen, measure = device(factor)
    found = Aim(target_ms, CELLS, MODEL, measure).land(random_log_probabilities(3), 3)
    assert len(found) == 3
    for one in found:
        assert one.measured is not None
        assert 0.95 * target_ms <= one.measured.value <= target_ms
        assert one.measured.value == pytest.approx(factor * one.predicted_ms)
    assert [one.log_probability for one in found] == sorted(
        (f.log_probability for f in found), reverse=True
    )
    assert len(seen) == len(set(seen)) <= 8 + 2 * 3


@pytest.mark.parametrize("seed", range(6))
def test_it_lands_where_the_model_is_off_by_three_percent_for_each_network(seed: int) -> None:
    _, measure = device(1.2, error=0.03, stderr=0.005)
    target_ms = 1.2 * MIDDLE_MS
    (found,) = Aim(target_ms, CELLS, MODEL, measure).land(random_log_probabilities(seed), 1)
    assert found.measured is not None
    assert 0.95 * target_ms <= found.measured.value
    assert found.measured.value + 1.96 * found.measured.stderr <= target_ms


def test_a_network_whose_interval_reaches_over_the_target_is_not_on_it() -> None:
    _, measure = device(1.0, stderr=0.02)  # intervals of 4 % each way
    (found,) = Aim(MIDDLE_MS, CELLS, MODEL, measure).land(random_log_probabilities(3), 1)
    assert found.measured is not None
    assert found.measured.value + 1.96 * found.measured.stderr <= MIDDLE_MS


def test_a_target_above_the_slowest_network_takes_the_most_likely_one() -> None:
    log_probabilities = random_log_probabilities(1)
    _, measure = device(1.0)
    found = Aim(2 * SLOWEST_MS, CELLS, MODEL, measure).land(log_probabilities, 1)
    assert found[0].log_probability == pytest.approx(sum(logs.max() for logs in log_probabilities))


def test_an_infeasible_target_names_the_fastest_network_and_how_it_is_known() -> None:
    fastest = str(CELLS.spec(MODEL.fastest()))
    aim = Aim(0.5 * MODEL.fixed_ms, CELLS, MODEL, None)
    with pytest.raises(TargetError, match="by the latency model") as caught:
        aim.check()
    assert fastest in str(caught.value)
    seen, measure = device(1.1)
    with pytest.raises(TargetError, match=r"measured on the device") as caught:
        Aim(0.5 * MODEL.fixed_ms, CELLS, MODEL, measure).check()
    assert fastest in str(caught.value)
    assert f"{1.1 * MODEL.fixed_ms:.4g} ms" in str(caught.value)
    assert [str(spec) for spec in seen] == [fastest]


def test_a_model_that_is_too_slow_does_not_refuse_what_the_device_can_do() -> None:
    _, measure = device(0.5)
    aim = Aim(0.8 * MODEL.fixed_ms, CELLS, MODEL, measure)
    aim.check()
    (found,) = aim.land(random_log_probabilities(0), 1)
    assert found.measured is not None
    assert found.measured.value <= 0.8 * MODEL.fixed_ms


def test_a_device_slower_than_the_model_is_found_out_at_the_first_measurement() -> None:
    target_ms = 1.2 * MODEL.fixed_ms  # by the model it can be met
    seen, measure = device(1.5)
    aim = Aim(target_ms, CELLS, MODEL, measure)
    aim.check()
    assert seen == []
    aim.look(aim.derive_networks(random_log_probabilities(0))[0])
    with pytest.raises(TargetError, match=r"measured on the device, .* fastest by the latency"):
        aim.check()
    assert len(seen) <= 2


def test_a_network_that_may_or_may_not_meet_the_target_is_said_to_be_so() -> None:
    _, measure = device(1.0, stderr=0.05)
    with pytest.raises(TargetError, match=r"for sure.*measured on the device, \+- [\d.]+ ms"):
        Aim(1.01 * MODEL.fixed_ms, CELLS, MODEL, measure).land(random_log_probabilities(0), 1)


def test_derive_with_next_to_no_room_takes_the_fastest() -> None:
    model = LatencyModel(1.0, (np.array([0.0, 1e5]), np.array([3.0, 0.0])))
    even = [np.log([0.5, 0.5])] * 2
    assert derive(even, model, (0.0, 1.0)) == [(0, 1)]


def test_a_device_that_fails_every_network_ends_in_a_sentence() -> None:
    tried: list[ArchSpec] = []

    def broken(spec: ArchSpec) -> Failure:
        tried.append(spec)
        return Failure("out of memory")

    with pytest.raises(TargetError, match=r"out of memory"):
        Aim(MIDDLE_MS, CELLS, MODEL, broken).land(random_log_probabilities(0), 2)
    assert len(tried) <= 8 + 2 * 2 + 1
