"""The exchange search on Once-for-all's Note 10 bed, shorter than scripts/bench_ofa_bed.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_agents.errors import ConfigError
from pipeline.search.recorded.ofa_note10 import Bed, OFANote10Space, load, load_published
from scripts.bench_ofa_bed import FILES, LIMITS, sanity, search

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SPACE = OFANote10Space()
CALLS = 3_000


@pytest.fixture(scope="module")
def bed() -> Bed:
    for name in FILES:
        if not (DATA / name).is_file():
            pytest.skip(f"{DATA / name} is not there: it holds the published models")
    return load(DATA)


def test_single_networks_have_their_published_values(bed: Bed) -> None:
    figures = sanity(bed, DATA)
    assert len(figures) == 6
    assert [figure.what for figure in figures if not figure.met] == []


def test_the_predictor_reads_as_high_as_published_beside_the_labels(bed: Bed) -> None:
    # Predicted less labelled top-1 of the four networks inside the encoding: 3.46 to 3.64.
    names = (
        "flops-389M_top1-79.1_finetune-75",
        "flops-482M_top1-79.6_finetune-75",
        "note10_lat-30ms_top1-78.4_finetune-75",
        "pixel1_lat-79ms_top1-78.7_finetune-75",
    )
    labels = np.array([79.1, 79.6, 78.4, 78.7])
    above = 100 * bed.accuracy([load_published(DATA, name) for name in names]) - labels
    assert (above.min().round(2), above.max().round(2)) == (3.46, 3.64)


def test_random_networks_are_as_fast_as_published(bed: Bed) -> None:
    rng = np.random.default_rng(0)
    latencies = bed.latency_ms([SPACE.sample(rng) for _ in range(5_000)])
    assert np.median(latencies) == pytest.approx(30.6, abs=0.5)


def test_a_network_of_another_space_is_refused(bed: Bed) -> None:
    del bed
    with pytest.raises(ConfigError, match="has other widths than the Note 10 space"):
        load_published(DATA, "note10_lat-22ms_top1-76.6_finetune-25")


def test_three_thousand_calls_come_near_what_fifty_thousand_gave(bed: Bed) -> None:
    limit = LIMITS[3]
    found = search(bed, "exchange", limit.limit_ms, 0, CALLS, free=False)
    assert found.calls == CALLS
    # 82.83 here; the authors' evolution has 82.70 after 50 100 calls, 200 000 random ones 81.78.
    assert found.best > limit.random + 0.7
    assert found.best <= limit.best_known + 0.1
