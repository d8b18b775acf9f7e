"""Bayesian optimisation under a latency limit: expected improvement times probable feasibility.

Gardner et al., "Bayesian Optimization with Inequality Constraints" (2014): two Gaussian processes,
one of the accuracy and one of the logarithm of the latency, and the next network is the one with
the largest EI(x) P(latency(x) <= limit), where EI is over the best network known to be within the
limit. Without a limit the objective's score is modelled alone.

What is ours:

- The accuracy is modelled as -log(error), where the difference between 90 and 91 % counts as much
  as that between 80 and 82 %; the worst quarter counts as its best member, so that networks that
  fail to train do not stretch the scale.
- A failed candidate counts as inaccurate and slow as the worst one known, so that the search leaves
  that region.
- Of a batch each network is chosen as if the ones before it had come out as predicted (kriging
  believer: Ginsbourger et al. 2010).
- In spaces too large to list, the candidates are random networks and mutations of the best known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

import numpy as np
from scipy.special import ndtr

from device_agents.errors import ConfigError
from pipeline.search.api import Spec
from pipeline.search.strategy._gaussian_process import GaussianProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.search.api import SearchSpace, Trial
    from pipeline.search.strategy._gaussian_process import Floats, Kernel

_LEAST_ERROR = 1e-3
_PARENTS = 10


@dataclass(frozen=True, slots=True)
class ConstrainedGPOptions:
    """Options of `ConstrainedGP`.

    Attributes:
        latency_limit_ms: networks above it are not wanted; None: the objective's score alone
            counts. A recipe's search sets it to its target unless it is given.
        initial: random networks before the first model.
        pool: candidates that each batch is chosen from.
        refit: trials after which the kernels are chosen anew.
        tries: draws to find a network that was not asked for before; then a repeat is handed out.
    """

    latency_limit_ms: float | None = None
    initial: int = 20
    pool: int = 1000
    refit: int = 10
    tries: int = 100

    def __post_init__(self) -> None:
        for name, low in (("initial", 2), ("pool", 1), ("refit", 1), ("tries", 1)):
            if getattr(self, name) < low:
                raise ConfigError(f"constrained GP, {name}: {getattr(self, name)} is below {low}")
        if self.latency_limit_ms is not None and not 0 < self.latency_limit_ms < math.inf:
            raise ConfigError(
                f"constrained GP, latency_limit_ms: {self.latency_limit_ms} is not above 0"
            )


class ConstrainedGP(Generic[Spec]):
    """Expected improvement within a latency limit; see the module."""

    Options = ConstrainedGPOptions

    def __init__(
        self,
        space: SearchSpace[Spec],
        rng: np.random.Generator,
        options: ConstrainedGPOptions = ConstrainedGPOptions(),
    ) -> None:
        self.space, self.rng, self.options = space, rng, options
        self._told: dict[Spec, Trial[Spec]] = {}
        self._features: dict[Spec, Floats] = {}
        self._asked: set[Spec] = set()
        self._kernels: list[Kernel] = []
        self._fitted_at = 0

    def ask(self, n: int) -> Sequence[Spec]:
        """Return the n networks that promise most; random ones to begin with."""
        if len(self._told) < self.options.initial:
            return [self._draw() for _ in range(n)]
        pool = self._pool()
        chosen = self._most_promising(pool, min(n, len(pool))) if pool else []
        self._asked.update(chosen)
        return [*chosen, *(self._draw() for _ in range(n - len(chosen)))]

    def tell(self, trials: Sequence[Trial[Spec]]) -> None:
        """Learn from the trials."""
        self._told.update({trial.spec: trial for trial in trials})

    def _draw(self) -> Spec:
        spec = self.space.sample(self.rng)
        for _ in range(self.options.tries - 1):
            if spec not in self._asked:
                break
            spec = self.space.sample(self.rng)
        self._asked.add(spec)
        return spec

    def _pool(self) -> list[Spec]:
        """Return candidates that were not asked for: half random, half mutations of the best."""
        best = sorted(self._told.values(), key=self._rank, reverse=True)[:_PARENTS]
        found: dict[Spec, None] = {}
        for i in range(self.options.pool):
            if i % 2:
                spec = self.space.mutate(best[(i // 2) % len(best)].spec, self.rng)
            else:
                spec = self.space.sample(self.rng)
            if spec not in self._asked:
                found[spec] = None
        return list(found)

    def _rank(self, trial: Trial[Spec]) -> float:
        return trial.score if math.isfinite(trial.score) else -math.inf

    def _most_promising(self, pool: list[Spec], n: int) -> list[Spec]:
        x = np.stack([self._encoded(spec) for spec in self._told])
        candidates = np.stack([self.space.encode(spec) for spec in pool])
        targets = self._targets()
        if not self._kernels or len(x) - self._fitted_at >= self.options.refit:
            self._kernels = [GaussianProcess.fitted(x, y).kernel for y in targets]
            self._fitted_at = len(x)
        left, chosen = np.ones(len(pool), dtype=bool), []
        for _ in range(n):
            predicted = [
                GaussianProcess(x, y, kernel).predict(candidates)
                for y, kernel in zip(targets, self._kernels, strict=True)
            ]
            value = np.where(left, self._acquisition(targets, predicted), -1.0)
            index = int(value.argmax())
            left[index] = False
            chosen.append(pool[index])
            x = np.vstack([x, candidates[index]])
            targets = [
                np.append(y, mean[index]) for y, (mean, _) in zip(targets, predicted, strict=True)
            ]
        return chosen

    def _targets(self) -> list[Floats]:
        """Return what is modelled, one value per told network: the merit, and log latency."""
        trials = list(self._told.values())
        limit_ms = self.options.latency_limit_ms
        if limit_ms is None:
            scores = np.array([trial.score for trial in trials])
            finite = np.isfinite(scores)
            worst = scores[finite].min() if finite.any() else 0.0
            return [np.where(finite, scores, worst)]
        accuracies = np.array([_value(trial, "accuracy") for trial in trials])
        latencies = np.array([_value(trial, "latency_ms") for trial in trials])
        known = np.isfinite(accuracies) & np.isfinite(latencies) & (latencies > 0)
        if not known.any():
            return [np.zeros(len(trials)), np.full(len(trials), math.log(limit_ms))]
        floor = np.quantile(accuracies[known], 0.25)
        merits = -np.log(
            np.maximum(1.0 - np.where(known, accuracies, floor).clip(min=floor), _LEAST_ERROR)
        )
        slowest = max(latencies[known].max(), limit_ms)
        return [merits, np.log(np.where(known, latencies, slowest))]

    def _acquisition(self, targets: list[Floats], predicted: list[tuple[Floats, Floats]]) -> Floats:
        """Return EI times the probability to be within the limit, (candidates,)."""
        limit_ms = self.options.latency_limit_ms
        merits = targets[0]
        within = (
            np.ones(len(merits), dtype=bool)
            if limit_ms is None
            else targets[1] <= math.log(limit_ms)
        )
        best = merits[within].max() if within.any() else merits.min()
        value = expected_improvement(*predicted[0], best)
        if limit_ms is not None:
            mean, sd = predicted[1]
            value = value * ndtr((math.log(limit_ms) - mean) / sd)
        return value

    def _encoded(self, spec: Spec) -> Floats:
        if spec not in self._features:
            self._features[spec] = self.space.encode(spec)
        return self._features[spec]


def expected_improvement(mean: Floats, sd: Floats, best: float) -> Floats:
    """Return E[max(f - best, 0)] for f ~ N(mean, sd^2); Jones et al. 1998, equation 15."""
    z = (mean - best) / sd
    density = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    value: Floats = sd * (z * ndtr(z) + density)
    return value


def _value(trial: Trial[Spec], metric: str) -> float:
    """Return an estimate's value; NaN for a failed candidate or one without it."""
    if trial.failure is not None or metric not in trial.estimates:
        return math.nan
    return trial.estimates[metric].value
