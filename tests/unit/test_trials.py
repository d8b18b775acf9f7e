"""Chains of passes tried on devices of which it is known what every network takes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.errors import ConfigError, DeviceError, NotMeasured
from models.cost import cost
from models.lower import lower
from models.model import Model, random_model
from models.spec import ArchSpec
from pipeline.compress.api import Lessons, Needs
from pipeline.compress.judging import Judge
from pipeline.compress.passes.prune import PruneOptions
from pipeline.compress.to_latency import Care, Target, Timed
from pipeline.compress.trials import Effort, Trials, try_chains
from pipeline.data import TASKS
from pipeline.formats import create
from pipeline.formats.subjects import ModelSubject

if TYPE_CHECKING:
    from collections.abc import Callable

SPEC = "16x16x3:same:conv_k3_s1_o32:conv_k3_s2_o64:fc5"
RNG = np.random.default_rng(0)
MODEL = random_model(lower(ArchSpec.parse(SPEC)), RNG)
IMAGES = RNG.standard_normal((48, 16, 16, 3), np.float32)

SPEED = {"float32": 1.0, "float16": 1.0, "dynamic8": 1.2, "static8": 2.0}


@dataclass
class Device:
    """Takes a millisecond for each million of products, and less by what the format gains."""

    speed: dict[str, float] = field(default_factory=lambda: SPEED)
    broken: str = ""
    asked: list[tuple[str, Care]] = field(default_factory=list)

    def __call__(self, model: Model, care: Care) -> Timed:
        number_format = str(model.number_format)
        if number_format == self.broken:
            raise NotMeasured("the runtime crashes")
        self.asked.append((number_format, care))
        latency_ms = 1e-6 * cost(model.graph).macs / self.speed[number_format]
        sha256 = hashlib.sha256(create("tflite").write(model)).hexdigest()
        return Timed(latency_ms, (0.999 * latency_ms, 1.001 * latency_ms), sha256)


def try_all(
    device: Callable[[Model, Care], Timed],
    target: Target | None,
    *,
    max_drop: float | None = None,
    calibrates: bool = True,
    model: Model = MODEL,
    lessons: Lessons | None = None,
) -> Trials:
    task, agreement = TASKS.load("classification")(), TASKS.load("agreement")()
    subject = ModelSubject("net", model)
    judge = Judge(subject, create("tflite"), {"input": IMAGES[24:, None]}, None, task, agreement)
    needs = Needs(inputs={"input": IMAGES[:24]} if calibrates else None, lessons=lessons)
    effort = Effort(target, max_drop, PruneOptions(multiple=8), 24)
    return try_chains(model, needs, judge, device, effort, tell=lambda _: None)


def figures(found: Trials) -> dict[str, tuple[float, float]]:
    whole = found.trials[0].tried.figures
    assert whole is not None
    return {
        one.tried.chain.name: (
            one.tried.figures.latency_ms / whole.latency_ms,
            one.tried.figures.cost,
        )
        for one in found.trials
        if one.tried.figures is not None
    }


def test_a_number_format_that_is_enough_is_not_pruned() -> None:
    device = Device()
    found = try_all(device, Target(ratio=0.6), max_drop=100.0)
    assert list(figures(found)) == [
        *("as it came", "quantize:float16", "quantize:dynamic8", "quantize:static8"),
    ]
    assert [care for _, care in device.asked] == ["whole"] * 4
    taken = found.taken
    assert taken is not None
    assert taken.changed is not None
    assert taken.tried.chain.words == ("quantize:static8",)
    assert str(taken.changed.model.number_format) == "static8"
    assert taken.changed.real is MODEL


def test_what_a_format_gains_is_not_cut_away() -> None:
    device = Device()
    found = try_all(device, Target(ratio=0.3))
    came_to = figures(found)
    assert list(came_to)[4:] == ["prune", "prune quantize:static8"]
    goal_ms = found.goal.target_ms
    for one in found.trials[4:]:
        assert one.tried.figures is not None
        assert goal_ms is not None
        assert 0.8 * goal_ms <= one.tried.figures.latency_ms <= goal_ms
    alone, joined = (one.changed for one in found.trials[4:])
    assert alone is not None
    assert joined is not None
    # int8 is twice as fast, so that twice as much stays.
    assert cost(joined.model.graph).macs > 1.5 * cost(alone.model.graph).macs
    assert joined.real.quantization is None
    assert joined.real.graph.digest() != MODEL.graph.digest()
    # Tables are timed in real numbers alone, which both chains share.
    assert {number_format for number_format, care in device.asked if care == "table"} == {"float32"}
    # What is handed over is what was timed.
    for made in (alone, joined):
        content = create("tflite").write(made.model)
        assert made.sha256 == hashlib.sha256(content).hexdigest()


def test_what_is_cut_is_trained_where_there_is_something_to_learn_from() -> None:
    truths = np.arange(24) % 5
    task = TASKS.load("classification")()
    lessons = Lessons({"input": IMAGES[:24]}, truths, task, teachers=(MODEL,))
    found = try_all(Device(), Target(ratio=0.3), lessons=lessons)
    assert list(figures(found))[4:] == ["prune finetune", "prune finetune quantize:static8"]
    for one in found.trials[4:]:
        made, told = one.changed, one.tried.figures
        assert made is not None
        assert told is not None
        assert any("finetuned" in line for line in made.model.history)
        assert made.sha256 == hashlib.sha256(create("tflite").write(made.model)).hexdigest()
        assert told.latency_ms <= (found.goal.target_ms or 0)
    unlabelled = replace(lessons, truths=None)
    found = try_all(Device(), Target(ratio=0.3), lessons=unlabelled)
    assert list(figures(found))[4:] == ["prune", "prune quantize:static8"]


def test_a_format_that_is_slower_here_is_not_joined_with_pruning() -> None:
    slow = Device({**SPEED, "static8": 0.8, "dynamic8": 0.5})
    found = try_all(slow, Target(ratio=0.5))
    assert list(figures(found))[4:] == ["prune"]
    assert any("none shows to be faster" in one.why for one in found.skipped)


def test_a_chain_that_fails_is_refused_with_its_reason_and_the_others_go_on() -> None:
    found = try_all(Device(broken="static8"), Target(ratio=0.5))
    failed = found.trials[3]
    assert failed.tried.figures is None
    assert failed.changed is None
    assert failed.tried.refused == "the runtime crashes"
    assert found.trials[4].tried.chain.words == ("prune",)
    narrow = try_all(Device(), Target(ratio=0.001))
    assert all("cannot be met by pruning" in one.tried.refused for one in narrow.trials[4:])
    assert narrow.taken is None
    assert "the closest is quantize:static8" in narrow.choice.why


def test_a_device_that_is_gone_or_fails_at_the_model_itself_ends_it() -> None:
    def gone(model: Model, care: Care) -> Timed:
        if str(model.number_format) != "float32":
            raise DeviceError("the link is lost")
        return Device()(model, care)

    with pytest.raises(DeviceError, match="the link is lost"):
        try_all(gone, None)
    with pytest.raises(NotMeasured):
        try_all(Device(broken="float32"), None)


def test_without_samples_and_without_a_target_formats_are_tried_alone() -> None:
    found = try_all(Device(), None, calibrates=False)
    assert list(figures(found)) == ["as it came", "quantize:float16", "quantize:dynamic8"]
    assert found.taken is not None
    assert found.taken.tried.chain.words == ("quantize:dynamic8",)


def test_layers_stay_real_where_int8_loses_too_much() -> None:
    last = MODEL.graph.outputs[0]
    weight, bias = MODEL.weights[last]
    far = np.array(bias)
    far[4] = -1000.0  # one step of codes holds all other scores
    model = replace(MODEL, weights={**MODEL.weights, last: (weight, far)})
    found = try_all(Device(), Target(ratio=0.6), max_drop=0.0, model=model)
    trial = found.trials[3]
    assert trial.tried.figures is not None, trial.tried.refused
    assert trial.changed is not None
    assert trial.tried.figures.lost_points <= 0.0
    assert last in trial.changed.left
    assert trial.changed.throughout is not None
    assert trial.changed.throughout.sha256 != trial.changed.sha256
    assert set(trial.changed.left) < {op.name for op in model.graph.ops}


def test_a_model_of_codes_is_refused() -> None:
    changed = try_all(Device(), None).trials[3].changed
    assert changed is not None
    with pytest.raises(ConfigError, match="give the float model"):
        try_all(Device(), None, model=changed.model)
