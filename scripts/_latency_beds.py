"""Recorded networks on which latency models are scored; see bench_latency_models.py."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from pipeline.search.estimate.few_shot import (
    Features,
    FewShotModel,
    KnownDevice,
    LatencyPrior,
    choose,
)
from pipeline.search.recorded import fbnet, nasbench201

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Rows = npt.NDArray[np.int64]

CELLS, TEST_CELLS = 900, 1000
CANDIDATES = 400
WHOLE_MS_STDERR = 12**-0.5


@dataclass(frozen=True, slots=True)
class Score:
    """How one model predicts the test networks.

    Attributes:
        rank: Spearman correlation.
        error: mean absolute error, relative.
        covered: share within the 90 % interval.
    """

    rank: float
    error: float
    covered: float

    @classmethod
    def mean(cls, scores: Sequence[Score]) -> Score:
        """Return the mean of each."""
        rows = np.array([(s.rank, s.error, s.covered) for s in scores]).mean(0)
        return cls(*rows.tolist())


@dataclass(frozen=True, slots=True)
class Bench:
    """Recorded networks: what models see of them, and latencies by device."""

    features: Features
    macs: Floats
    latency_ms: dict[str, Floats]

    def score(self, prior: LatencyPrior, device: str, samples: Rows, test: Rows) -> Score:
        """Fit the samples and predict the test."""
        latency, features = self.latency_ms[device], self.features
        stderr = None
        if f"ms_{device}" in fbnet.WHOLE_MS:
            stderr = np.full(len(samples), WHOLE_MS_STDERR)
        model = FewShotModel(prior, features[samples], latency[samples], stderr)
        predicted, truth = model.predict(features[test]), latency[test]
        low, high = predicted.interval_ms()
        return Score(
            rank(predicted.mean_ms, truth),
            float((np.abs(predicted.mean_ms - truth) / truth).mean()),
            float(((low <= truth) & (truth <= high)).mean()),
        )

    def prior(self, device: str, known: Sequence[str], rows: slice) -> LatencyPrior:
        """Return what the other devices teach; counted costs where there are none."""
        features = self.features[rows]
        devices = [
            KnownDevice(name, features, self.latency_ms[name][rows])
            for name in known
            if name != device
        ]
        return LatencyPrior.learnt(devices) if devices else LatencyPrior.counted(features)


def rank(a: Floats, b: Floats) -> float:
    """Return the Spearman correlation."""
    return float(spearmanr(a, b).statistic)


@cache
def cells(path: Path) -> Bench:
    """Return the first NAS-Bench-201 cells."""
    recorded = nasbench201.load(path)
    ops = np.array([cell.ops for cell in recorded.rows])[: CELLS + TEST_CELLS]
    live, one_hot = nasbench201.live_ops(ops), np.eye(len(nasbench201.OPS))
    macs = nasbench201.macs(ops).astype(np.float64)
    counts = [
        one_hot[ops].sum(1),
        one_hot[live].sum(1)[:, 1:],
        recorded.column("live_macs")[: len(ops), None] / 1e7,
        macs[:, None] / 1e7,
    ]
    details = [one_hot[ops].reshape(len(ops), -1), one_hot[live][:, :, 1:].reshape(len(ops), -1)]
    latency = {
        name.removeprefix("ms_"): column[: len(ops)]
        for name, column in recorded.columns.items()
        if name.startswith("ms_")
    }
    return Bench(Features(np.hstack(counts), np.hstack(details)), macs, latency)


@cache
def nets(path: Path) -> Bench:
    """Return the FBNet networks."""
    recorded = fbnet.load(path)
    ops = np.array([net.ops for net in recorded.rows])
    costs = fbnet.costs(ops)
    latency = {name.removeprefix("ms_"): column for name, column in recorded.columns.items()}
    return Bench(Features(costs, fbnet.one_hot(ops)), costs[:, 0] + costs[:, 1], latency)


def middle(latency_ms: Floats, start: int, count: int) -> Rows:
    """Return the rows from `start`, by latency, without the first and last tenth."""
    order = start + np.argsort(latency_ms[start : start + count], kind="stable")
    return order[count // 10 : count - count // 10]


def drawn(bench: Bench, prior: LatencyPrior, device: str, n: int, draws: int) -> Score:
    """Return the mean over draws of n cells, HELP's protocol."""
    pool = middle(bench.latency_ms[device], 0, CELLS)
    test = middle(bench.latency_ms[device], CELLS, TEST_CELLS)
    return Score.mean(
        [
            bench.score(
                prior, device, np.random.default_rng(s).choice(pool, n, replace=False), test
            )
            for s in range(draws)
        ]
    )


def chosen(bench: Bench, prior: LatencyPrior, device: str, n: int, draws: int) -> Score:
    """Return the mean where the n cells are chosen, each time out of 400 random ones."""
    pool = middle(bench.latency_ms[device], 0, CELLS)
    test = middle(bench.latency_ms[device], CELLS, TEST_CELLS)
    scores = []
    for s in range(draws):
        rng = np.random.default_rng(s)
        rng.choice(pool, n, replace=False)  # as published: the candidates come after the draw
        candidates = rng.permutation(pool)[:CANDIDATES]
        picked = choose(prior, bench.features[candidates], n)
        scores.append(bench.score(prior, device, candidates[picked], test))
    return Score.mean(scores)
