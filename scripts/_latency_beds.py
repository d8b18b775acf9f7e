"""Recorded networks on which latency models are scored; see bench_latency_models.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Rows = npt.NDArray[np.int64]
    Splitter = Callable[["Bench", str], "Split"]

CELLS, TEST_CELLS = 900, 1000
_READ_CELLS = 2000  # enough for so many that work
CANDIDATES = 400


@dataclass(frozen=True, slots=True)
class Score:
    """How one model predicts the test networks.

    Attributes:
        rank: Spearman correlation.
        error: mean absolute error, relative.
        covered: share within the 90 % interval.
        noise: standard error of the correlation, of a mean over draws.
    """

    rank: float
    error: float
    covered: float
    noise: float = 0.0

    @classmethod
    def mean(cls, scores: Sequence[Score]) -> Score:
        """Return the mean of each over draws or devices."""
        rows = np.array([(s.rank, s.error, s.covered) for s in scores])
        rank, error, covered = rows.mean(0).tolist()
        return cls(rank, error, covered, float(rows[:, 0].std() / np.sqrt(len(rows))))

    def below(self, other: float) -> bool:
        """Return whether the correlation is below another's beyond the noise of the draws."""
        return self.rank + 2.0 * self.noise < other


@dataclass(frozen=True, slots=True)
class Split:
    """Which networks may be measured on the new device, and which are predicted."""

    pool: Rows
    test: Rows


@dataclass(frozen=True, slots=True)
class Bench:
    """Recorded networks: what models see of them, whether they work, and latencies by device."""

    features: Features
    macs: Floats
    alive: npt.NDArray[np.bool_]
    latency_ms: dict[str, Floats]

    def score(self, prior: LatencyPrior, device: str, samples: Rows, test: Rows) -> Score:
        """Fit the samples and predict the test."""
        latency, features = self.latency_ms[device], self.features
        model = FewShotModel(prior, features[samples], latency[samples])
        predicted, truth = model.predict(features[test]), latency[test]
        low, high = predicted.interval_ms()
        return Score(
            rank(predicted.mean_ms, truth),
            float((np.abs(predicted.mean_ms - truth) / truth).mean()),
            float(((low <= truth) & (truth <= high)).mean()),
        )

    def prior(self, device: str, known: Sequence[str], rows: slice | Rows) -> LatencyPrior:
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
    ops = np.array([cell.ops for cell in recorded.rows])[:_READ_CELLS]
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
    works = recorded.column("alive")[: len(ops)] > 0
    return Bench(Features(np.hstack(counts), np.hstack(details)), macs, works, latency)


@cache
def nets(path: Path) -> Bench:
    """Return the FBNet networks."""
    recorded = fbnet.load(path)
    ops = np.array([net.ops for net in recorded.rows])
    costs = fbnet.costs(ops)
    latency = {name.removeprefix("ms_"): column for name, column in recorded.columns.items()}
    works = np.ones(len(ops), bool)
    return Bench(Features(costs, fbnet.one_hot(ops)), costs[:, 0] + costs[:, 1], works, latency)


def bare(bench: Bench) -> Bench:
    """Return the networks as counting alone shows them: MACs, and other counts as details."""
    counts = bench.features.coarse
    details = counts / np.maximum(counts.std(0), 1e-9)
    return replace(bench, features=Features(bench.macs[:, None], details))


def middle(bench: Bench, device: str) -> Split:
    """Return HELP's split: each part by the device's latency, without its first and last tenth."""
    latency_ms = bench.latency_ms[device]

    def trimmed(start: int, count: int) -> Rows:
        order = start + np.argsort(latency_ms[start : start + count], kind="stable")
        return order[count // 10 : count - count // 10]

    return Split(trimmed(0, CELLS), trimmed(CELLS, TEST_CELLS))


def alive(bench: Bench, _: str) -> Split:
    """Return the first cells that work, whatever their latency on the device."""
    rows = np.flatnonzero(bench.alive)
    return Split(rows[:CELLS], rows[CELLS : CELLS + TEST_CELLS])


def drawn(
    bench: Bench, prior: LatencyPrior, device: str, n: int, draws: int, split: Splitter = middle
) -> Score:
    """Return the mean over draws of n cells, HELP's protocol."""
    rows = split(bench, device)
    samples = [np.random.default_rng(s).choice(rows.pool, n, replace=False) for s in range(draws)]
    return Score.mean([bench.score(prior, device, sample, rows.test) for sample in samples])


def chosen(
    bench: Bench, prior: LatencyPrior, device: str, n: int, draws: int, split: Splitter = middle
) -> Score:
    """Return the mean where the n cells are chosen, each time out of 400 random ones."""
    rows, scores = split(bench, device), []
    for s in range(draws):
        rng = np.random.default_rng(s)
        rng.choice(rows.pool, n, replace=False)  # as published: the candidates come after the draw
        candidates = rng.permutation(rows.pool)[:CANDIDATES]
        picked = choose(prior, bench.features[candidates], n)
        scores.append(bench.score(prior, device, candidates[picked], rows.test))
    return Score.mean(scores)
