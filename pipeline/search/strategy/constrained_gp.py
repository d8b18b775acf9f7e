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
- What is measured must be within the limit and better, not a smooth mean of it: the probability and
  EI are of values with the model's noise, which is mostly what a smooth model does not see of a
  network. In the paper they are of the smooth part.
- What is over twice as fast as the limit, or twice as slow, counts as that: how much more says
  nothing of networks near the limit, and would stretch the scale.
- Latencies that come in steps (`pipeline.search.rounding`) are within the limit up to half a step
  above the last step that is: a cell predicted at 14.3 ms reads 14 on a phone that counts whole
  milliseconds.
- Latency is modelled on the space's `latency_features`, which hold what is known of other devices.
- In a space small enough to list, every network not tried yet is a candidate; in larger ones
  random networks and mutations of the best known are.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

import numpy as np
from scipy.special import ndtr

from device_agents.errors import ConfigError
from pipeline.search.api import Spec
from pipeline.search.rounding import least_above, step_of
from pipeline.search.strategy._gaussian_process import (
    GaussianProcess,
    likeliest_kernel,
    mean_squared_norm,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from pipeline.search.api import SearchSpace, Trial
    from pipeline.search.strategy._gaussian_process import Floats, Kernel, Prediction

_LEAST_ERROR = 1e-3
_PARENTS = 10
_REFIT_SHARE = 0.1
_NEAR = 0.7  # in logarithms of latency: a factor of two
_SAME = 1e-9  # two ways to the logarithm of the limit itself


@dataclass(frozen=True, slots=True)
class ConstrainedGPOptions:
    """Options of `ConstrainedGP`.

    Attributes:
        latency_limit_ms: networks above it are not wanted; None: the objective's score alone
            counts. A recipe's search sets it to its target unless it is given.
        initial: random networks before the first model.
        listed: spaces of at most so many choice vectors are searched whole.
        pool: candidates that each batch is chosen from in larger ones.
        refit: trials after which the kernels are chosen anew, at least; later a tenth of all.
        tries: draws to find a network that was not asked for before; then a repeat is handed out.
    """

    latency_limit_ms: float | None = None
    initial: int = 20
    listed: int = 20_000
    pool: int = 1000
    refit: int = 10
    tries: int = 100

    def __post_init__(self) -> None:
        for name, low in (("initial", 2), ("listed", 0), ("pool", 1), ("refit", 1), ("tries", 1)):
            if getattr(self, name) < low:
                raise ConfigError(f"constrained GP, {name}: {getattr(self, name)} is below {low}")
        if self.latency_limit_ms is not None and not 0 < self.latency_limit_ms < math.inf:
            raise ConfigError(
                f"constrained GP, latency_limit_ms: {self.latency_limit_ms} is not above 0"
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates(Generic[Spec]):
    """Networks to choose from, and what each model sees of them, (networks, d)."""

    specs: list[Spec]
    rows: dict[Spec, int]
    features: list[Floats]


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
        self._asked: set[Spec] = set()
        # What is modelled: the merit, and with a limit the latency, each with features of its own.
        self._views = [space.features]
        if options.latency_limit_ms is not None:
            self._views.append(space.latency_features)
        self._seen: list[dict[Spec, Floats]] = [{} for _ in self._views]
        self._kernels: list[Kernel] = []
        self._scales: list[float] = []
        self._fitted_at = 0
        self._rounded_limit_ms = math.inf
        self._all: _Candidates[Spec] | None = None
        self._processes: list[GaussianProcess] = []

    def ask(self, n: int) -> Sequence[Spec]:
        """Return the n networks that promise most; random ones to begin with."""
        if len(self._told) < self.options.initial:
            return [self._draw() for _ in range(n)]
        candidates = self._candidates()
        new = np.ones(len(candidates.specs), dtype=bool)
        new[[candidates.rows[spec] for spec in self._asked if spec in candidates.rows]] = False
        chosen = self._most_promising(candidates, new, min(n, int(new.sum())))
        self._asked.update(chosen)
        return [*chosen, *(self._draw() for _ in range(n - len(chosen)))]

    def tell(self, trials: Sequence[Trial[Spec]]) -> None:
        """Learn from the trials."""
        self._told.update({trial.spec: trial for trial in trials})
        self._asked.update(trial.spec for trial in trials)

    def probability_within(self, specs: Sequence[Spec]) -> Floats:
        """Return how probable it is that each network's latency is within the limit, (specs,).

        Raises:
            ConfigError: the search has no limit, or nothing was told yet.
        """
        if self.options.latency_limit_ms is None or not self._told:
            raise ConfigError(
                "constrained GP: the probability to be within the limit needs a latency_limit_ms "
                "and at least one trial"
            )
        points, targets = self._fitted()
        process = GaussianProcess(self._kernels[1], self._rows(1, specs))
        process.add(points[1])
        return self._within(process.predict(targets[1]))

    def _draw(self) -> Spec:
        spec = self.space.sample(self.rng)
        for _ in range(self.options.tries - 1):
            if spec not in self._asked:
                break
            spec = self.space.sample(self.rng)
        self._asked.add(spec)
        return spec

    def _candidates(self) -> _Candidates[Spec]:
        if self.space.size > self.options.listed:
            return self._with_features(self._pool())
        if self._all is None:
            vectors = itertools.product(*(range(count) for count in self.space.cardinalities))
            self._all = self._with_features(
                dict.fromkeys(self.space.decode(vector) for vector in vectors)
            )
        return self._all

    def _with_features(self, specs: Iterable[Spec]) -> _Candidates[Spec]:
        listed = list(specs)
        rows = {spec: row for row, spec in enumerate(listed)}
        views = [np.stack([view(spec) for spec in listed]) for view in self._views]
        return _Candidates(listed, rows, views)

    def _pool(self) -> dict[Spec, None]:
        """Return networks, half random, half mutations of the best."""
        best = sorted(self._told.values(), key=self._rank, reverse=True)[:_PARENTS]
        found: dict[Spec, None] = {}
        for i in range(self.options.pool):
            if i % 2:
                spec = self.space.mutate(best[(i // 2) % len(best)].spec, self.rng)
            else:
                spec = self.space.sample(self.rng)
            found[spec] = None
        return found

    def _rank(self, trial: Trial[Spec]) -> float:
        return trial.score if math.isfinite(trial.score) else -math.inf

    def _most_promising(
        self, candidates: _Candidates[Spec], new: npt.NDArray[np.bool_], n: int
    ) -> list[Spec]:
        points, targets = self._fitted()
        self._update_processes(candidates, points)
        left, chosen = new.copy(), list[Spec]()
        for i in range(n):
            predicted = [
                process.predict(y) for process, y in zip(self._processes, targets, strict=True)
            ]
            index = int(np.where(left, self._acquisition(targets, predicted), -1.0).argmax())
            left[index] = False
            chosen.append(candidates.specs[index])
            if i + 1 < n:  # go on as if it had come out as predicted
                for process, rows in zip(self._processes, candidates.features, strict=True):
                    process.add(rows[index : index + 1])
                targets = [
                    np.append(y, prediction.mean[index])
                    for y, prediction in zip(targets, predicted, strict=True)
                ]
        for process in self._processes:
            process.forget(len(process) - len(self._told))
        return chosen

    def _points(self) -> list[Floats]:
        """Return what each model sees of the told networks, (told, d)."""
        return [self._rows(model, list(self._told)) for model in range(len(self._views))]

    def _rows(self, model: int, specs: Sequence[Spec]) -> Floats:
        seen, view = self._seen[model], self._views[model]
        for spec in specs:
            if spec not in seen:
                seen[spec] = view(spec)
        return np.stack([seen[spec] for spec in specs])

    def _fitted(self) -> tuple[list[Floats], list[Floats]]:
        """Return the points and targets of each model, and choose the kernels where it is time."""
        after = max(self.options.refit, _REFIT_SHARE * self._fitted_at)
        due = not self._kernels or len(self._told) - self._fitted_at >= after
        if due:
            self._fitted_at = len(self._told)
            latencies = np.array([_value(trial, "latency_ms") for trial in self._told.values()])
            limit_ms = self.options.latency_limit_ms or math.inf
            self._rounded_limit_ms = least_above(limit_ms, step_of(latencies))
        points, targets = self._points(), self._targets()
        if not self._kernels:  # once: a kernel that is chosen again is the same
            self._scales = [mean_squared_norm(rows) for rows in points]
        if due:
            near: Sequence[Kernel | None] = self._kernels or [None] * len(points)
            self._kernels = [
                likeliest_kernel(*model)
                for model in zip(points, targets, self._scales, near, strict=True)
            ]
        return points, targets

    def _update_processes(self, candidates: _Candidates[Spec], points: list[Floats]) -> None:
        """Have one process per model over the candidates; those of a listed space only grow."""
        known = self._processes if candidates is self._all else []
        self._processes = [
            known[model]
            if known and known[model].kernel == kernel
            else GaussianProcess(kernel, candidates.features[model])
            for model, kernel in enumerate(self._kernels)
        ]
        for process, rows in zip(self._processes, points, strict=True):
            process.add(rows[len(process) :])

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
        # Of the trials that the kernels were chosen by: targets that stay cost little to add to.
        first = slice(self._fitted_at if known[: self._fitted_at].any() else None)
        floor = np.quantile(accuracies[first][known[first]], 0.25)
        merits = -np.log(
            np.maximum(1.0 - np.where(known, accuracies, floor).clip(min=floor), _LEAST_ERROR)
        )
        slowest = max(latencies[known].max(), limit_ms)
        logs = np.log(np.where(known, latencies, slowest))
        nearest = max(math.log(limit_ms), float(logs.min()))
        return [merits, logs.clip(math.log(limit_ms) - _NEAR, nearest + _NEAR)]

    def _acquisition(self, targets: list[Floats], predicted: list[Prediction]) -> Floats:
        """Return EI times the probability to be within the limit, (candidates,)."""
        limit_ms = self.options.latency_limit_ms
        merits = targets[0]
        within = (
            np.ones(len(merits), dtype=bool)
            if limit_ms is None
            else targets[1] <= math.log(limit_ms) + _SAME
        )
        best = merits[within].max() if within.any() else merits.min()
        value = expected_improvement(predicted[0].mean, predicted[0].sd_of_value, best)
        return value if limit_ms is None else value * self._within(predicted[1])

    def _within(self, log_latency: Prediction) -> Floats:
        """Return the probability that a latency is recorded as within the limit, (candidates,)."""
        margin = math.log(self._rounded_limit_ms) - log_latency.mean
        probability: Floats = ndtr(margin / log_latency.sd_of_value)
        return probability


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
