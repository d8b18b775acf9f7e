"""Pruning to a latency, on devices of which it is known what every network takes."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.errors import ConfigError, TargetError
from models.cost import cost
from models.graph import GraphBuilder
from models.lower import lower
from models.model import Model, random_model
from models.ops import BatchNorm, Conv, Dense, Mean
from models.spec import ArchSpec
from models.zoo import get
from pipeline.compress.on_device import times
from pipeline.compress.passes.prune import PruneOptions, rank
from pipeline.compress.to_latency import (
    Fitted,
    Round,
    Target,
    Timed,
    plan_measurements,
    prune_to_latency,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.compress.to_latency import Care

    Truth = Callable[[Model], float]

SPEC = (
    "32x32x3:same:conv_k3_s2_o32:mb_k3_s1_m96_o32_skip:mb_k5_s2_m128_o64:"
    "mb_k3_s1_m192_o64_skip:conv_k1_s1_o128:fc10"
)
OPTIONS = PruneOptions(multiple=8)


def network(spec: str = SPEC) -> Model:
    return random_model(lower(ArchSpec.parse(spec)), np.random.default_rng(0))


def products(model: Model) -> float:
    """A device on which every layer takes its multiply-accumulates, and its start."""
    return sum(0.02 + 1e-6 * op.macs for op in cost(model.graph).per_op)


def steps(model: Model) -> float:
    """One that computes sixteen channels at once and moves maps in a cache of one size."""
    total = 0.0
    for op in cost(model.graph).per_op:
        filled = 16 * -(-op.out_elements // 16)
        total += 0.01 + 1e-6 * op.macs + 2e-6 * filled * (1 + (filled > 20_000))
    return total


@dataclass
class Device:
    """Measures by a truth that no sum over groups can say, and remembers what it was asked."""

    truth: Truth
    noise: float = 0.0
    asked: list[tuple[str, float]] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def __call__(self, model: Model, care: Care) -> Timed:
        spread = self.noise if care == "table" else self.noise / 5
        latency_ms = self.truth(model) * (1 + spread * float(self.rng.standard_normal()))
        self.asked.append((care, latency_ms))
        half = 1.96 * spread * latency_ms
        sha256 = hashlib.sha256(model.digest().encode()).hexdigest()
        return Timed(latency_ms, (latency_ms - half, latency_ms + half), sha256)


def fit(model: Model, device: Device, share: float, **target: float) -> Fitted:
    asked = Target(share * device.truth(model), **target)  # type: ignore[arg-type]
    return prune_to_latency(model, OPTIONS, asked, device, lambda _: None)


@pytest.mark.parametrize("truth", [products, steps])
@pytest.mark.parametrize("share", [0.8, 0.6, 0.4])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_target_is_met_and_used(truth: Truth, share: float, noise: float) -> None:
    model, device = network(), Device(truth, noise)
    found = fit(model, device, share)
    best = found.best
    # Widths of eight leave gaps in so small a network.
    assert 0.9 * found.target.latency_ms <= best.measured.latency_ms <= found.target.latency_ms
    # What is said is what was measured, of the network that is handed over.
    assert (("whole", best.measured.latency_ms)) in device.asked
    assert best.measured.sha256 == Device(truth)(found.model, "whole").sha256
    assert found.measurements == len(device.asked)
    assert found.widths == tuple(
        type(width)(group.name, group.width, width.after)
        for group, width in zip(rank(model, OPTIONS).channels.groups, found.widths, strict=True)
    )
    assert all(width.after % 8 == 0 for width in found.widths)
    left = rank(found.model, OPTIONS).channels.groups
    assert sum(group.width for group in left) == sum(width.after for width in found.widths)


def squared(model: Model) -> float:
    """One that gets slower the more there is to do, so that two savings are no sum of them."""
    return products(model) ** 2 / 8


def test_the_sum_of_a_table_alone_would_miss() -> None:
    model, device = network(), Device(squared)
    found = fit(model, device, 0.3)
    first, last = found.rounds[0], found.best
    assert first.table_ms <= found.target.latency_ms < first.measured.latency_ms
    assert first.table_ms < 0.85 * first.measured.latency_ms
    assert last.measured.latency_ms <= found.target.latency_ms
    assert _off(last) < _off(first)


def _off(one: Round) -> float:
    return abs(one.predicted_ms / one.measured.latency_ms - 1)


def test_more_is_kept_than_by_one_ratio_for_all() -> None:
    model, device = network(), Device(steps)
    found = fit(model, device, 0.6)
    ranked = rank(model, OPTIONS)
    for ratio in np.linspace(0.02, 0.9, 45):
        widths = [
            min(
                ranked.list_widths(place, OPTIONS),
                key=lambda width, whole=group.width: abs(width - whole * (1 - ratio)),  # type: ignore[misc]
            )
            for place, group in _groups(ranked)
        ]
        if steps(ranked.cut_to(widths, done="")) <= found.target.latency_ms:
            break
    kept = sum(ranked.kept(place, width) for place, width in enumerate(widths))
    assert found.best.kept > math.exp(kept / len(widths))


def test_a_narrow_group_is_not_emptied_for_a_wide_one_that_is_cheap() -> None:
    """By the sum of scores 1,024 units outweigh any convolution, of which a quarter was left."""
    model = network("16x16x3:same:conv_k3_s1_o32:conv_k3_s2_o32:fc1024_relu:fc1024_relu:fc10")
    found = fit(model, Device(products), 0.5)
    shares = [width.after / width.before for width in found.widths]
    assert min(shares) >= 0.4
    assert found.best.kept > 0.6


def _groups(ranked: object) -> list[tuple[int, object]]:
    return list(enumerate(ranked.channels.groups))  # type: ignore[attr-defined]


def test_what_will_be_measured_is_known_before() -> None:
    model, target = network(), Target(1.0, points=3, rounds=4)
    plan = plan_measurements(rank(model, OPTIONS), OPTIONS, target)
    widths = {
        group.name: anchors
        for group, anchors in zip(rank(model, OPTIONS).channels.groups, plan.anchors, strict=True)
    }
    assert max(map(len, plan.anchors)) == 3
    assert all(anchors == tuple(sorted(set(anchors))) for anchors in plan.anchors)
    assert plan.most == sum(map(len, plan.anchors)) + 2 + 4
    device = Device(products)
    fit(model, device, 0.6, points=3, rounds=4)
    assert len(device.asked) <= plan.most
    assert widths


def test_layers_that_are_kept_stay_whole() -> None:
    model, device = network(), Device(products)
    first = rank(model, OPTIONS).channels.groups[0]
    options = PruneOptions(multiple=8, keep=(first.name,))
    target = Target(0.7 * products(model))
    found = prune_to_latency(model, options, target, device, lambda _: None)
    assert found.widths[0].before == found.widths[0].after


def test_what_cannot_be_met_says_how_close_one_can_come() -> None:
    model, device = network(), Device(products)
    with pytest.raises(TargetError, match="cannot be met by pruning") as caught:
        fit(model, device, 0.01)
    assert f"{device.asked[1][1]:.4g} ms with every group" in str(caught.value)
    assert len(device.asked) == 2  # nothing was measured in vain


def test_a_network_that_is_fast_enough_is_refused() -> None:
    device = Device(products)
    with pytest.raises(ConfigError, match="before anything is cut"):
        fit(network(), device, 1.01)
    assert len(device.asked) == 1


@pytest.mark.parametrize("latency_ms", [0.0, -1.0, float("nan"), float("inf")])
def test_no_latency_is_refused(latency_ms: float) -> None:
    with pytest.raises(ConfigError, match="is no latency"):
        Target(latency_ms)


def test_groups_too_narrow_to_be_cut_are_refused_before_anything_is_measured() -> None:
    model, device = network("16x16x3:same:conv_k3_s2_o8:fc5"), Device(products)
    with pytest.raises(ConfigError, match="can be narrower"):
        fit(model, device, 0.5)
    assert not device.asked


def test_rounds_end_and_say_so() -> None:
    """A device on which nothing but the narrowest network is fast."""
    model = network()
    calls = iter(range(10_000))

    def measure(narrow: Model, care: Care) -> Timed:
        latency_ms = products(narrow if next(calls) == 1 or care == "table" else model)
        return Timed(latency_ms, (latency_ms, latency_ms), care)

    target = Target(0.5 * products(model), rounds=2)
    with pytest.raises(TargetError, match="no network of 2 rounds met"):
        prune_to_latency(model, OPTIONS, target, measure, lambda _: None)


def test_mobilenet_v2_to_half_its_products() -> None:
    spec = get("mobilenet-v2", width=0.35).with_input(96, 96, 3).with_classes(10)
    model, device = random_model(lower(spec), np.random.default_rng(0)), Device(products, 0.01)
    found = fit(model, device, 0.7)
    assert found.best.measured.latency_ms <= found.target.latency_ms


def test_a_table_of_noise_still_ends_below_the_target() -> None:
    model = network()
    for seed in range(5):
        device = Device(products, 0.3, rng=np.random.default_rng(seed))
        try:
            found = fit(model, device, 0.5, rounds=8)
        except ConfigError:  # the whole network was measured as fast enough
            continue
        assert found.best.measured.latency_ms <= found.target.latency_ms


def test_groups_without_known_scores_stay_whole_and_count_for_nothing() -> None:
    builder, rng = GraphBuilder(), np.random.default_rng(0)
    x = builder.op("conv", "scaled", [builder.input("x", (1, 8, 8, 3))], Conv(out=32))
    names = [builder.constant(f"bn.{part}", (32,)) for part in ("scale", "shift", "mean", "var")]
    x = builder.op("batchnorm", "bn", [x, *names], BatchNorm(), act="relu")
    x = builder.op("conv", "unscaled", [x], Conv(out=16), act="relu")
    builder.op("dense", "head", [builder.op("mean", "mean", [x], Mean(keepdims=False))], Dense(3))
    model = random_model(builder.graph(), rng)
    options = replace(OPTIONS, importance="bn_scale")
    target = Target(0.9 * products(model))
    found = prune_to_latency(model, options, target, Device(products), lambda _: None)
    after = {width.name: width.after for width in found.widths}
    assert after["unscaled"] == 16
    assert 8 < after["scaled"] < 32
    assert after["scaled"] / 32 < found.best.kept < 1


def test_where_little_can_be_saved_no_more_is_cut_than_it_takes() -> None:
    """Any network uses 95 % of the target; most of the channels can stay all the same."""

    def mostly_start(model: Model) -> float:
        return 50 + products(model)

    model = network()
    target = Target(50 + 0.7 * products(model))
    found = prune_to_latency(model, OPTIONS, target, Device(mostly_start), lambda _: None)
    assert found.best.measured.latency_ms <= target.latency_ms
    assert found.best.kept > 0.6


def test_what_the_whole_network_is_off_by_counts_in_every_interval() -> None:
    whole = Timed(10.0, (9.2, 10.4), "whole")
    latency_ms, (low_ms, high_ms) = times(0.5, (0.497, 0.503), whole)
    assert latency_ms == 5.0
    assert low_ms == pytest.approx(5 * (1 - np.hypot(0.006, 0.08)))
    assert high_ms == pytest.approx(5 * (1 + np.hypot(0.006, 0.04)))


def test_a_share_of_the_network_s_own_latency_is_a_target() -> None:
    model, device = network(), Device(products)
    found = prune_to_latency(model, OPTIONS, Target(ratio=0.7), device, lambda _: None)
    assert found.target.latency_ms == pytest.approx(0.7 * products(model))
    assert found.best.measured.latency_ms <= found.target.latency_ms


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.2, float("nan")])
def test_no_share_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="less than 100 %"):
        Target(ratio=ratio)
