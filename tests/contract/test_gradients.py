"""What every gradient search promises; a new file in pipeline/search/gradient is tested too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_agents.errors import ConfigError, TargetError
from models.lower import lower
from pipeline.data.api import Data, Dataset
from pipeline.search import gradient
from pipeline.search.api import Estimate
from pipeline.search.space.mnasnet import MnasNetSpace
from pipeline.search.space.proxyless import ProxylessSpace
from pipeline.search.space.stages import Stage
from tests.gradient_problems import STRIPES, Memory, predict, stripes

if TYPE_CHECKING:
    from models.spec import ArchSpec
    from pipeline.search.gradient.api import GradientOutcome, GradientSearch

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SPACE = ProxylessSpace(
    input=(8, 8, 1),
    classes=3,
    stem=(3, 1, 8),
    first=0,
    stages=(Stage(2, 8, 2), Stage(1, 16, 2)),
    head=0,
    kernels=(3, 5),
    expansions=(1, 3),
)
SMALL: dict[str, Any] = {"warmup_epochs": 1, "epochs": 3, "batch_size": 16}


@pytest.fixture(params=gradient.GRADIENTS.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def search(name: str, seed: int = 0, **options: Any) -> GradientSearch:
    return gradient.create(name, SPACE, seed, **{**SMALL, **options})


def target_ms(share: float) -> float:
    rng = np.random.default_rng(0)
    drawn = [predict(SPACE.sample(rng)) for _ in range(50)]
    return min(drawn) + share * (max(drawn) - min(drawn))


def test_a_seed_replays_a_search_exactly(name: str) -> None:
    first, again, other = (
        search(name, seed).run(STRIPES, predict, target_ms(0.5), count=2) for seed in (3, 3, 4)
    )
    assert first == again
    assert first.history != other.history


@pytest.mark.parametrize("share", [0.4])
def test_what_it_finds_is_in_the_space_and_on_target(name: str, share: float) -> None:
    outcome = search(name).run(STRIPES, predict, target_ms(share), count=3)
    assert 1 <= len(outcome.found) <= 3
    assert len({found.spec for found in outcome.found}) == len(outcome.found)
    for found in outcome.found:
        assert found.spec in SPACE
        assert found.predicted_ms == pytest.approx(predict(found.spec))
        assert 0.95 * target_ms(share) <= found.predicted_ms <= target_ms(share)
    assert [epoch.epoch for epoch in outcome.history] == list(range(1, len(outcome.history) + 1))
    assert all(np.isfinite(epoch.loss) for epoch in outcome.history)


def test_the_covering_networks_hold_every_block_of_the_space(name: str) -> None:
    covering = search(name).cover_space()
    assert all(spec in SPACE for spec in covering)
    known = {op.key for spec in covering for op in lower(spec).ops}
    rng = np.random.default_rng(0)
    for _ in range(30):
        assert {op.key for op in lower(SPACE.sample(rng)).ops} <= known


def test_the_device_decides_what_is_on_target(name: str) -> None:
    def measure(spec: ArchSpec) -> Estimate:
        return Estimate(1.5 * predict(spec) + 0.01, 1e-4, "measured")

    asked = 1.5 * target_ms(0.5)
    outcome = search(name).run(STRIPES, predict, asked, measure=measure, count=1)
    (found,) = outcome.found
    assert found.measured == measure(found.spec)
    assert 0.95 * asked <= found.measured.value <= asked
    assert outcome.history[-1].correction == pytest.approx(1.6, abs=0.15)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_search_goes_on_where_it_was_interrupted(name: str, stop: int) -> None:
    def interrupt(epoch: int) -> None:
        if epoch == stop + 1:
            raise KeyboardInterrupt

    def run(memory: Memory, on_epoch: Any = lambda _: None) -> GradientOutcome:
        return search(name).run(
            STRIPES, predict, target_ms(0.5), checkpoints=memory, on_epoch=on_epoch
        )

    whole, memory = run(Memory()), Memory()
    with pytest.raises(KeyboardInterrupt):
        run(memory, interrupt)
    assert memory.state is not None
    assert int(memory.state["epoch"]) == stop
    assert run(memory) == whole


def test_an_infeasible_target_names_the_fastest_network(name: str) -> None:
    with pytest.raises(TargetError, match=r"no network .* meets the target .* takes 0\.0\d+ ms"):
        search(name).run(STRIPES, predict, 1e-6)


def test_a_loss_that_is_no_number_ends_in_a_sentence(name: str) -> None:
    nan = float("nan")
    broken = Data(Dataset("broken", 3, stripes(96, nan), stripes(48), stripes(24)))
    with pytest.raises(ConfigError, match=r"diverged in epoch 1 of 4 \(loss nan\); lower"):
        search(name).run(broken, predict, target_ms(0.5))
    broken = Data(Dataset("broken", 3, stripes(96), stripes(48, nan), stripes(24)))
    with pytest.raises(ConfigError, match=r"diverged in epoch 2 of 4 \(loss nan\); lower"):
        search(name).run(broken, predict, target_ms(0.5))


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_a_target_that_is_no_latency_is_refused(name: str, target: float) -> None:
    with pytest.raises(ConfigError, match=r"target_ms is .*; give milliseconds above 0"):
        search(name).run(STRIPES, predict, target)


def test_a_space_that_it_cannot_search_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="needs one width for all options of a cell"):
        gradient.create(name, MnasNetSpace(input=(8, 8, 1), classes=3), 0)
    whole = ProxylessSpace(input=(32, 32, 1), classes=3, acts=("relu6", "hardswish"))
    with pytest.raises(ConfigError, match="act is a choice of the whole network"):
        gradient.create(name, whole, 0)


def test_unknown_names_and_options_name_the_known(name: str) -> None:
    with pytest.raises(
        ConfigError, match="no gradient search 'proxyles' known; did you mean 'proxyless"
    ):
        gradient.create("proxyles", SPACE, 0)
    with pytest.raises(ConfigError, match=f"gradient search '{name}' has no option 'nonsense'"):
        gradient.create(name, SPACE, 0, nonsense=1)
