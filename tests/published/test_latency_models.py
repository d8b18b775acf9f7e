"""Latency models on published latencies: few samples of a new device, and sums of fitted costs.

The protocol and all figures are in scripts/bench_latency_models.py; here are fewer draws.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_agents.errors import ConfigError
from pipeline.search.estimate.few_shot import LatencyPrior
from pipeline.search.recorded import fbnet
from scripts._additive import AdditiveModel
from scripts._latency_beds import (
    CELLS,
    Bench,
    Score,
    alive,
    bare,
    cells,
    chosen,
    drawn,
    middle,
    nets,
    rank,
)
from scripts.bench_latency_models import KNOWN, NETS, TEST_NETS, within

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def cell_bed() -> Bench:
    return cells(_found("nb201.npz"))


@pytest.fixture(scope="module")
def net_bed() -> Bench:
    return nets(_found("fbnet_4000.npz"))


def _found(name: str) -> Path:
    if not (DATA / name).is_file():
        pytest.skip(f"{DATA / name} is not there: it holds the published latencies")
    return DATA / name


def test_splits_are_those_published(cell_bed: Bench) -> None:
    trimmed, untrimmed = middle(cell_bed, "raspi4"), alive(cell_bed, "raspi4")
    latency = cell_bed.latency_ms["raspi4"]
    assert (len(trimmed.pool), len(trimmed.test)) == (720, 800)
    for rows, begin, count in ((trimmed.pool, 0, 900), (trimmed.test, 900, 1000)):
        assert begin <= rows.min() <= rows.max() < begin + count
        left = np.setdiff1d(np.arange(begin, begin + count), rows)
        inside = (latency[left] > latency[rows].min()) & (latency[left] < latency[rows].max())
        assert not inside.any()
        assert (latency[left] <= latency[rows].min()).sum() == count // 10
    assert (len(untrimmed.pool), untrimmed.pool[-1]) == (900, 920)
    assert (len(untrimmed.test), untrimmed.test[-1]) == (1000, 1937)
    # Plain MACs rank HELP's test as published.
    macs = rank(cell_bed.macs[trimmed.test], latency[trimmed.test])
    assert macs == pytest.approx(0.871, abs=0.0006)


def test_a_new_device_is_ranked_better_than_published_and_intervals_cover(cell_bed: Bench) -> None:
    prior = cell_bed.prior("raspi4", KNOWN, slice(CELLS))
    score = drawn(cell_bed, prior, "raspi4", 10, draws=6)
    assert score.rank >= 0.90  # HELP .890
    assert within(score.covered)


def test_chosen_samples_of_devices_left_out_are_enough(cell_bed: Bench) -> None:
    devices = ("1080ti_256", "silver_4114", "samsung_a50", "samsung_s7")
    scores = [
        chosen(cell_bed, cell_bed.prior(device, KNOWN, slice(CELLS)), device, 10, draws=2)
        for device in devices
    ]
    assert Score.mean(scores).rank >= 0.93


def test_without_known_devices_networks_rank_better_than_by_macs(net_bed: Bench) -> None:
    test = np.arange(NETS, NETS + TEST_NETS)
    counted = bare(net_bed)
    prior = LatencyPrior.counted(counted.features[:NETS])
    for device in ("1080ti_1", "samsung_a50", "essential_ph_1", "samsung_s7"):
        macs = rank(counted.macs[test], counted.latency_ms[device][test])
        for seed in (1, 5):
            samples = np.random.default_rng(seed).choice(NETS, 20, replace=False)
            assert counted.score(prior, device, samples, test).rank > macs - 0.01


def test_without_known_devices_five_samples_are_not_below_macs(cell_bed: Bench) -> None:
    counted = bare(cell_bed)
    prior = LatencyPrior.counted(counted.features[:CELLS])
    for device in ("silver_4210r", "essential_ph_1", "samsung_a50"):
        test = middle(counted, device).test
        macs = rank(counted.macs[test], counted.latency_ms[device][test])
        assert not drawn(counted, prior, device, 5, draws=4).below(macs)


def test_costs_are_those_of_the_published_geometry(net_bed: Bench) -> None:
    """The two columns that are sums of blocks are fitted exactly by one cost per block."""
    fit, test = slice(NETS), slice(NETS, None)
    truth = net_bed.latency_ms["raspi4"]
    model = AdditiveModel.fit(net_bed.features.fine[fit], truth[fit])
    assert model.predict(net_bed.features.fine[test]) == pytest.approx(truth[test], rel=1e-4)
    # Plain MACs rank that column as published.
    assert rank(net_bed.macs[test], truth[test]) == pytest.approx(0.932, abs=0.0015)


@pytest.mark.parametrize(
    ("device", "published"), [("silver_4114", 0.0244), ("samsung_a50", 0.0602), ("1080ti_1", 0.016)]
)
def test_fitted_sums_are_no_worse_than_least_squares(
    net_bed: Bench, device: str, published: float
) -> None:
    latency = net_bed.latency_ms[device]
    model = AdditiveModel.fit(net_bed.features.fine[:NETS], latency[:NETS])
    truth = latency[NETS:]
    error = np.abs(model.predict(net_bed.features.fine[NETS:]) / truth - 1.0).mean()
    assert error < published


def test_points_and_data_agree() -> None:
    recorded = fbnet.load(_found("fbnet_4000.npz"))
    space = fbnet.FBNetSpace()
    first = next(iter(recorded.rows))
    assert first in space
    assert space.decode(space.choices(first)) == first
    assert recorded.column("ms_silver_4114")[0] == pytest.approx(42.5089, abs=1e-3)
    assert fbnet.one_hot(np.array([first.ops]))[0] == pytest.approx(space.encode(first))


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    layers = 22
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04cut")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "single.npz.npy", np.zeros(3))
    for name in ("cut.npz", "empty.npz", "single.npz.npy", "absent.npz"):
        with pytest.raises(ConfigError, match=r"cannot be read as FBNet columns: .*\.npz file$"):
            fbnet.load(tmp_path / name)
    different = np.arange(3 * layers).reshape(3, layers) % 9
    wrong = {
        r"no array 'ops' of shape \(nets, 22\)": {"ops": np.zeros((3, 6), int)},
        "ops outside 0 to 8": {"ops": different + 1},
        r"'ms_x' is of shape \(2,\) for 3": {"ops": different, "ms_x": np.ones(2)},
        r"'ms_x' is of shape \(3,\) for 1": {"ops": 0 * different, "ms_x": np.ones(3)},
    }
    for words, columns in wrong.items():
        np.savez(tmp_path / "wrong.npz", **columns)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=words):
            fbnet.load(tmp_path / "wrong.npz")
