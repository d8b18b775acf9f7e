"""Whole searches in every mode and loss form, by a made-up latency model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.errors import ConfigError
from pipeline.search import gradient
from pipeline.search.space.proxyless import ProxylessSpace
from pipeline.search.space.stages import Stage
from tests.gradient_problems import STRIPES, Memory, predict

if TYPE_CHECKING:
    from pipeline.search.gradient.api import GradientOutcome

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SPACE = ProxylessSpace(
    input=(8, 8, 1),
    classes=3,
    stem=(3, 1, 8),
    first=0,
    stages=(Stage(2, 8, 3), Stage(1, 16, 2)),
    head=0,
    kernels=(3, 5),
    expansions=(1, 3),
)
MODES = ["full_v2", "two", "reinforce"]


DRAWN_MS = [predict(SPACE.sample(np.random.default_rng(seed))) for seed in range(50)]


def run(
    mode: str, target_ms: float, loss: str = "mul-log", memory: Memory | None = None
) -> GradientOutcome:
    search = gradient.create(
        "proxyless-gradient",
        SPACE,
        0,
        mode=mode,
        loss=loss,
        warmup_epochs=1,
        epochs=8,
        batch_size=16,
        arch_learning_rate=0.1,
    )
    return search.run(STRIPES, predict, target_ms, count=2, checkpoints=memory)


@pytest.mark.parametrize(
    ("mode", "loss"), [*((mode, "mul-log") for mode in MODES), ("two", "add-linear")]
)
@pytest.mark.parametrize("share", [0.25, 0.75])
def test_every_mode_steers_to_the_target_and_lands_on_it(
    mode: str, loss: str, share: float
) -> None:
    target_ms = min(DRAWN_MS) + share * (max(DRAWN_MS) - min(DRAWN_MS))
    outcome = run(mode, target_ms, loss)
    for found in outcome.found:
        assert found.spec in SPACE
        assert 0.95 * target_ms <= found.predicted_ms <= target_ms
    start_ms, last = float(np.mean(DRAWN_MS)), outcome.history[-1]  # drawn at even probabilities
    assert abs(last.expected_ms - target_ms) < 0.7 * abs(start_ms - target_ms)
    assert 0.0 < last.entropy_bits < outcome.history[0].entropy_bits


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_goes_on_where_it_was_interrupted(mode: str) -> None:
    target_ms = float(np.median(DRAWN_MS))
    memory = Memory(last=5)
    whole = run(mode, target_ms, memory=memory)
    assert memory.state is not None
    assert int(memory.state["epoch"]) == 5
    assert run(mode, target_ms, memory=memory) == whole


def test_odds_that_would_never_move_are_refused() -> None:
    search = gradient.create("proxyless-gradient", SPACE, 0, batch_size=32, arch_every=4)
    with pytest.raises(ConfigError, match=r"are 3 weight steps in an epoch.*lower arch_every or"):
        search.run(STRIPES, predict, float(np.median(DRAWN_MS)))
