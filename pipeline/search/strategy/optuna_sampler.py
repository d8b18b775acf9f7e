"""Optuna's samplers: TPE and Gaussian-process search as the Optuna project wrote them.

Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework" (2019). Every
decision of the space is a categorical parameter; Optuna is asked for its values and told the score
(its own ask-and-tell interface). They know nothing of latency limits: the score is all they see.

- A network that Optuna suggests again is told to it at once with the score it had, `tries` times at
  most; then the repeat is handed out.
- Failed candidates, and those that a budget left out, are told as failed: no sampler learns from
  them.
- ``gp`` needs torch, takes seconds for tens of trials, and is at its best below a hundred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState

from device_agents.errors import ConfigError
from device_agents.plain_values import bounds
from pipeline.search.api import Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial as OptunaTrial

    from pipeline.search.api import SearchSpace, Trial


@dataclass(frozen=True, slots=True)
class OptunaSamplerOptions:
    """Options of `OptunaSampler`.

    Attributes:
        sampler: which of Optuna's. ``tpe`` models decisions jointly.
        startup: random trials before ``tpe`` and ``gp`` learn.
        tries: suggestions to find a network that was not evaluated before.
    """

    sampler: Literal["tpe", "gp"] = field(
        default="tpe",
        metadata=bounds(gone={"random": "the strategy 'random-search' draws at random"}),
    )
    startup: int = 10
    tries: int = 20

    def __post_init__(self) -> None:
        for name in ("startup", "tries"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Optuna sampler, {name}: {getattr(self, name)} is below 1")


class OptunaSampler(Generic[Spec]):
    """An Optuna study behind the strategy's face; see the module."""

    Options = OptunaSamplerOptions

    def __init__(
        self,
        space: SearchSpace[Spec],
        rng: np.random.Generator,
        options: OptunaSamplerOptions = OptunaSamplerOptions(),
    ) -> None:
        self.space, self.options = space, options
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # or it prints a line a trial
        self._study = optuna.create_study(
            direction="maximize", sampler=_sampler(options, int(rng.integers(2**31)))
        )
        # Names are numbered: decisions of a space need not have different names.
        self._parameters: dict[str, BaseDistribution] = {
            f"{i}": CategoricalDistribution(tuple(range(count)))
            for i, count in enumerate(space.cardinalities)
        }
        self._scores: dict[Spec, float] = {}
        self._asked: list[tuple[Spec, OptunaTrial]] = []

    def ask(self, n: int) -> Sequence[Spec]:
        """Return n suggestions, new ones as far as `tries` suggestions each find any."""
        self._asked = []
        for _ in range(n):
            self._asked.append(self._suggested())
        return [spec for spec, _ in self._asked]

    def tell(self, trials: Sequence[Trial[Spec]]) -> None:
        """Tell Optuna the scores."""
        told = iter(trials)
        trial = next(told, None)
        for spec, suggestion in self._asked:
            if trial is None or spec != trial.spec:
                self._tell(suggestion, -math.inf)  # left out: the budget ended before it
                continue
            self._scores[spec] = trial.score
            self._tell(suggestion, trial.score)
            trial = next(told, None)
        self._asked = []

    def _suggested(self) -> tuple[Spec, OptunaTrial]:
        waiting = {spec for spec, _ in self._asked}
        for left in reversed(range(self.options.tries)):
            suggestion = self._study.ask(self._parameters)
            chosen = tuple(suggestion.params[name] for name in self._parameters)
            spec = self.space.decode(chosen)
            if left == 0 or (spec not in self._scores and spec not in waiting):
                break
            self._tell(suggestion, self._scores.get(spec, -math.inf))
        return spec, suggestion

    def _tell(self, suggestion: OptunaTrial, score: float) -> None:
        if math.isfinite(score):
            self._study.tell(suggestion, score)
        else:
            self._study.tell(suggestion, state=TrialState.FAIL)


def _sampler(options: OptunaSamplerOptions, seed: int) -> BaseSampler:
    if options.sampler == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=options.startup)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=options.startup, multivariate=True
    )
