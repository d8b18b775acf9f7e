"""Latency on a new device from 10 to 20 measurements, with intervals that mean what they say.

A linear model of relative latency with the prior of `_latency_prior` is conditioned on the
measurements: a Gaussian process with that covariance, a free constant and noise (Rasmussen and
Williams 2006, chapter 2). Ours:

- The prior may be wrong for this device. Its covariance is multiplied by an amplitude, and the
  amplitude and the noise are integrated over a grid instead of picked: with ten points several
  are likely, and intervals from the likeliest alone are too narrow. The noise of the known devices
  is its prior.
- Phones now and then take twice as long, and one such measurement can turn the ranking round.
  The noise is Student's t with four degrees of freedom, its scale per measurement inferred by
  variational Bayes (Tipping and Lawrence, "Variational inference for Student-t models", 2005).
- A prior of many kinds of devices is too wide for a regular one. So each measurement is predicted
  from the others, and where that comes out nearer than stated, all spreads shrink accordingly. They
  do not grow: where it comes out worse a few slow measurements are the cause, and the tails of the
  noise are there for those.
- Latencies that come in steps (`pipeline.search.rounding`), such as whole milliseconds, are as
  inexact as that: in the samples and in what is predicted, which is a latency as it is recorded.
- What to measure is chosen ahead (`choose`): greedily the network whose measurement takes most
  variance from all the pool, on average (Cohn 1996; "I-optimal"). The prior alone decides, no
  result is needed, so that a batch can be measured in any order and a failed one replaced.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.special import digamma, gammaln, ndtr

from device_agents.errors import ConfigError
from pipeline.search.api import Estimate, Spec
from pipeline.search.estimate._latency_prior import Features, KnownDevice, LatencyPrior
from pipeline.search.rounding import step_of, variance_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from device_agents.api import Failure

    Floats = npt.NDArray[np.float64]

__all__ = ["Features", "FewShotLatency", "FewShotModel", "KnownDevice", "LatencyPrior", "choose"]

_AMPLITUDES = (0.1, 0.3, 1.0, 3.0, 10.0)
_NOISES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
_LOG_AMPLITUDE_SD = 1.0
_CONSTANT_VARIANCE = 1.0
_CHOICE_NOISE_VARIANCE = 0.01
_LEAST_WEIGHT = 1e-3
_BISECTIONS = 25
_FREEDOM = 4.0
# A normal distribution of this standard deviation has the 5 and 95 % points of t with 4 degrees.
_NORMAL_FOR_T = 1.296
_ROUNDS = 6
_DOUBT = 1.0
_LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Prediction:
    """Latencies of n networks: for each a mixture of normal distributions, in milliseconds.

    Attributes:
        weights: of the g components, (g,).
        means_ms: (g, n).
        sds_ms: (g, n), with the noise and rounding of one measurement; without its stderr where
            the model was told those.
    """

    weights: Floats
    means_ms: Floats
    sds_ms: Floats

    @property
    def mean_ms(self) -> Floats:
        """Expected latency, (n,)."""
        values: Floats = self.weights @ self.means_ms
        return values

    @property
    def sd_ms(self) -> Floats:
        """Standard deviation, (n,)."""
        second = self.weights @ (self.means_ms**2 + self.sds_ms**2)
        values: Floats = np.sqrt(np.maximum(second - self.mean_ms**2, 0.0))
        return values

    def probability_below(self, limit_ms: float | Floats) -> Floats:
        """Return the probability that a measurement of each network is at most the limit, (n,)."""
        values: Floats = self.weights @ ndtr((limit_ms - self.means_ms) / self.sds_ms)
        return values

    def quantile_ms(self, probability: float) -> Floats:
        """Return the latency that each network stays below with this probability, (n,).

        Raises:
            ConfigError: the probability is not between 0 and 1.
        """
        if not 0.0 < probability < 1.0:
            raise ConfigError(f"probability is {probability!r}; give one between 0 and 1")
        low = (self.means_ms - 8.0 * self.sds_ms).min(0)
        high = (self.means_ms + 8.0 * self.sds_ms).max(0)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2.0
            below = self.probability_below(middle) < probability
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        values: Floats = (low + high) / 2.0
        return values

    def interval_ms(self, level: float = 0.9) -> tuple[Floats, Floats]:
        """Return the central interval that holds a measurement with this probability."""
        return self.quantile_ms((1.0 - level) / 2.0), self.quantile_ms((1.0 + level) / 2.0)


@dataclass(frozen=True, slots=True)
class _Component:
    """The posterior at one amplitude and noise; `score` is its log evidence and prior."""

    amplitude: float
    noise: float
    root: Floats  # (n, n), lower
    whitened: Floats  # (n,)
    score: float


class FewShotModel:
    """The prior conditioned on measurements of a new device.

    Arguments:
        prior: from known devices or from counted costs.
        features: of the n networks measured.
        latency_ms: their latencies, (n,).
        stderr_ms: of each latency, where known, (n,); what the model itself misses comes on top.

    Attributes:
        stretch: what the spread of every prediction is multiplied by, at most 1.

    Raises:
        ConfigError: no latency, one that is no time above 0, or a stderr below 0.
    """

    def __init__(
        self,
        prior: LatencyPrior,
        features: Features,
        latency_ms: Floats,
        stderr_ms: Floats | None = None,
    ) -> None:
        if not len(features) or latency_ms.shape != (len(features),):
            raise ConfigError(
                f"few-shot latency: {latency_ms.shape} latencies for {len(features)} networks; "
                "give one latency per network, of one network at least"
            )
        if not (np.isfinite(latency_ms).all() and (latency_ms > 0).all()):
            raise ConfigError("few-shot latency: a latency is no time above 0; leave it out")
        if stderr_ms is None:
            stderr_ms = np.zeros(len(features))
        if stderr_ms.shape != latency_ms.shape or not (stderr_ms >= 0).all():
            raise ConfigError(
                f"few-shot latency: standard errors {stderr_ms.tolist()} for {len(features)} "
                "latencies; give one of at least 0 for each, or none"
            )
        self.prior = prior
        self.typical_ms = float(np.median(latency_ms))
        self._rounding = variance_of(step_of(latency_ms) / self.typical_ms)
        self._basis = prior.basis(features)
        residual = latency_ms / self.typical_ms - prior.mean(features)
        known = (stderr_ms / self.typical_ms) ** 2 + self._rounding
        self._components = [
            self._component(amplitude, noise, residual, known)
            for amplitude, noise in itertools.product(_AMPLITUDES, _NOISES)
        ]
        self._weights = self._posterior_weights()
        self.stretch = self._stretch()

    def predict(self, features: Features) -> Prediction:
        """Return the latencies of networks on the device."""
        kept = np.flatnonzero(self._weights)
        basis, mean = self.prior.basis(features), self.prior.mean(features)
        across, own = self._basis @ basis.T, (basis**2).sum(1)
        means, sds = [], []
        for index in kept:
            part = self._components[index]
            spread = solve_triangular(
                part.root, part.amplitude * across + _CONSTANT_VARIANCE, lower=True
            )
            variance = part.amplitude * own + _CONSTANT_VARIANCE - (spread**2).sum(0)
            means.append(mean + spread.T @ part.whitened)
            seen = (_NORMAL_FOR_T * part.noise) ** 2 + self._rounding
            sds.append(np.sqrt(np.maximum(variance, 0.0) + seen))
        weights = self._weights[kept]
        middle = weights @ np.stack(means)
        return Prediction(
            weights,
            (middle + self.stretch * (np.stack(means) - middle)) * self.typical_ms,
            self.stretch * np.stack(sds) * self.typical_ms,
        )

    def _posterior_weights(self) -> Floats:
        """Return how likely each component is, (components,); 0 for what counts for nothing."""
        scores = np.array([component.score for component in self._components])
        weights = np.exp(scores - scores.max())
        weights = np.where(weights < _LEAST_WEIGHT * weights.sum(), 0.0, weights)
        values: Floats = weights / weights.sum()
        return values

    def _stretch(self) -> float:
        """Return what spreads are to be multiplied by, from leave-one-out errors (GPML, 5.12)."""
        squares = 0.0
        for index in np.flatnonzero(self._weights):
            part = self._components[index]
            inverse = cho_solve((part.root, True), np.eye(len(part.root)))
            left = inverse @ (part.root @ part.whitened)  # of the residual, before its root
            squares += float(self._weights[index] * (left**2 / np.diag(inverse)).sum())
        count = len(self._basis)
        chance = 1.0 + 1.0 / math.sqrt(count)  # so much lower may come of the few measurements
        return min(1.0, math.sqrt(chance * (_DOUBT + squares) / (_DOUBT + count)))

    def _component(
        self, amplitude: float, noise: float, residual: Floats, known: Floats
    ) -> _Component:
        covariance = amplitude * (self._basis @ self._basis.T) + _CONSTANT_VARIANCE
        noises = noise**2 + known
        shape = (_FREEDOM + 1.0) / 2.0
        rate = np.full(len(residual), shape)
        for _ in range(_ROUNDS):
            precision = shape / rate
            root = cholesky(covariance + np.diag(noises / precision), lower=True)
            # What the model leaves of each measurement: its mean and variance given all of them.
            inverse = cho_solve((root, True), np.eye(len(residual)))
            own = noises / precision
            left = own * (inverse @ residual)
            variance = own - own**2 * np.diag(inverse)
            rate = (_FREEDOM + (left**2 + variance) / noises) / 2.0
        whitened = solve_triangular(root, residual, lower=True)
        evidence = -0.5 * float(whitened @ whitened) - float(np.log(np.diag(root)).sum())
        evidence += float(_scale_evidence(shape / precision).sum())
        usual, sd = self.prior.log_noise
        improbability = (math.log(amplitude) / _LOG_AMPLITUDE_SD) ** 2
        improbability += ((math.log(noise) - usual) / sd) ** 2
        return _Component(amplitude, noise, root, whitened, evidence - 0.5 * improbability)


def _scale_evidence(rate: Floats) -> Floats:
    """Return what a measurement's precision adds to the bound on the evidence.

    The precision is Gamma((f + 1) / 2, rate) a posteriori and Gamma(f / 2, f / 2) a priori: minus
    their divergence, and (E log precision - log E precision) / 2 from the likelihood.
    """
    shape, prior = (_FREEDOM + 1.0) / 2.0, _FREEDOM / 2.0
    mean, log_mean = shape / rate, digamma(shape) - np.log(rate)
    divergence = (
        (shape - prior) * log_mean
        - gammaln(shape)
        + shape * np.log(rate)
        + gammaln(prior)
        - prior * math.log(prior)
        + (prior - rate) * mean
    )
    values: Floats = -divergence + 0.5 * (log_mean - np.log(mean))
    return values


def choose(prior: LatencyPrior, pool: Features, n: int) -> list[int]:
    """Return the rows of the pool to measure, best first; all of it if it has no more than n.

    Each takes most variance from the pool, given that the ones before it are measured.
    """
    basis = np.hstack([prior.basis(pool), np.full((len(pool), 1), math.sqrt(_CONSTANT_VARIANCE))])
    covariance = basis @ basis.T
    chosen: list[int] = []
    for _ in range(min(n, len(pool))):
        spread = np.diag(covariance) + _CHOICE_NOISE_VARIANCE
        gain = (covariance**2).mean(0) / spread
        gain[chosen] = -1.0
        best = int(gain.argmax())
        chosen.append(best)
        column = covariance[:, best]
        covariance = covariance - np.outer(column, column) / spread[best]
    return chosen


@dataclass(slots=True)
class FewShotLatency(Generic[Spec]):
    """Estimator of ``latency_ms`` on a device that was measured a few times.

    Attributes:
        model: see `FewShotModel`.
        features: of networks, as the prior was made with.
    """

    model: FewShotModel
    features: Callable[[Sequence[Spec]], Features]
    metric: str = "latency_ms"

    def estimate(self, specs: Sequence[Spec]) -> list[Estimate | Failure]:
        """Return each network's latency with its standard deviation, in milliseconds."""
        if not specs:
            return []
        predicted = self.model.predict(self.features(specs))
        # A line goes below 0 for networks far smaller than any measured; a latency does not, and
        # an objective would reject it.
        least_ms = _LEAST_SHARE * self.model.typical_ms
        means_ms = np.maximum(predicted.mean_ms, least_ms)
        pairs = zip(means_ms.tolist(), predicted.sd_ms.tolist(), strict=True)
        return [Estimate(mean, sd, source="predicted") for mean, sd in pairs]
