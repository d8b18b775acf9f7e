"""Accuracy by a predictor, learnt from sub-networks of a supernet that were tried on images.

Once-for-all trains a multilayer perceptron on 16,000 sub-networks. This is a Gaussian process on
the same features (squared exponential, length, scale and noise by marginal likelihood): from the
few hundred samples that a run can afford it is as close or closer on Once-for-all's own predictor
as ground truth, takes a second instead of minutes (docs/supernets.md), and says how sure it is.

How good it is, it is asked by cross-validation: each fifth of the samples is predicted from the
rest, with the three numbers of the kernel fitted once for all. The standard errors are scaled so
that those predictions keep what they promise.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from device_agents.errors import ConfigError
from pipeline.search.api import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from device_agents.api import Failure
    from models.spec import ArchSpec

    Array = npt.NDArray[np.float64]
    Features = Callable[[ArchSpec], Array]

FOLDS = 5
LEAST_SAMPLES = 20
_FITTED_ON = 500
"""Samples that length, scale and noise are fitted on; the prediction is from all of them."""
_LEAST_STDERR = 1e-4
"""No accuracy is known better than to 0.01 points."""


@dataclass(frozen=True, slots=True)
class PredictedAccuracy:
    """Estimator of ``accuracy`` (0..1); make one with `fit`.

    Attributes:
        features: what the model sees of a spec.
        samples: how many sub-networks it was fitted to.
        holdout_rmse: root mean square error of the cross-validated predictions, 0..1.
        holdout_spearman: their rank correlation with what was observed.
        stderr_factor: what the model's standard errors are multiplied by.
    """

    features: Features
    samples: int
    holdout_rmse: float
    holdout_spearman: float
    stderr_factor: float
    _model: _Process = field(repr=False)
    metric: str = "accuracy"

    @classmethod
    def fit(
        cls,
        features: Features,
        specs: Sequence[ArchSpec],
        accuracies: Sequence[float],
        *,
        rng: np.random.Generator,
    ) -> PredictedAccuracy:
        """Fit a predictor to sub-networks and their accuracies (0..1).

        Args:
            features: a space's `features`.
            specs: at least 20 sub-networks.
            accuracies: theirs, in order.
            rng: divides the samples into folds.

        Raises:
            ConfigError: too few samples, or an accuracy that is not a number.
        """
        observed = np.asarray(accuracies, np.float64)
        known = int(np.isfinite(observed).sum())
        if known < LEAST_SAMPLES:
            raise ConfigError(
                f"an accuracy predictor needs {LEAST_SAMPLES} sub-networks with an accuracy each, "
                f"it was given {known}; raise search.supernet.predictor_samples or, in a space of "
                'few networks, set search.accuracy = "supernet"'
            )
        if known < len(observed):
            which = specs[int(np.argmin(np.isfinite(observed)))]
            raise ConfigError(f"the accuracy of sub-network {which} is not a number; leave it out")
        seen = np.stack([features(spec) for spec in specs])
        order = rng.permutation(len(observed))
        kernel = _Process.fit(seen[order[:_FITTED_ON]], observed[order[:_FITTED_ON]]).kernel
        predicted, variance = np.empty(len(observed)), np.empty(len(observed))
        for held_out in np.array_split(order, FOLDS):
            rest = np.setdiff1d(order, held_out)
            model = _Process.fit(seen[rest], observed[rest], kernel)
            predicted[held_out], variance[held_out] = model.predict(seen[held_out])
        errors = predicted - observed
        return cls(
            features,
            len(observed),
            float(np.sqrt(np.mean(errors**2))),
            _rank_correlation(predicted, observed),
            float(np.sqrt(np.mean(errors**2 / np.maximum(variance, _LEAST_STDERR**2)))),
            _Process.fit(seen, observed, kernel),
        )

    def estimate(self, specs: Sequence[ArchSpec]) -> list[Estimate | Failure]:
        """Return each spec's predicted accuracy with its error beside one observed on images."""
        if not specs:
            return []
        mean, variance = self._model.predict(np.stack([self.features(spec) for spec in specs]))
        stderr = np.maximum(np.sqrt(variance) * self.stderr_factor, _LEAST_STDERR)
        return [
            Estimate(float(np.clip(value, 0.0, 1.0)), float(error), source="predicted")
            for value, error in zip(mean, stderr, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Process:
    """A Gaussian process on standardised accuracies."""

    model: Any
    mean: float
    scale: float

    @classmethod
    def fit(cls, seen: Array, observed: Array, kernel: Any = None) -> _Process:
        """Fit to features (N, F) and accuracies (N,); with a kernel, that one unchanged."""
        mean, scale = float(observed.mean()), max(float(observed.std()), _LEAST_STDERR)
        free = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(5.0, (0.5, 100.0)) + WhiteKernel(
            0.1, (1e-6, 10.0)
        )
        model = GaussianProcessRegressor(
            free if kernel is None else kernel,
            optimizer="fmin_l_bfgs_b" if kernel is None else None,
        )
        with warnings.catch_warnings():
            # At a bound of the kernel (no noise at all, say) it says so; that is no fault.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(seen, (observed - mean) / scale)
        return cls(model, mean, scale)

    @property
    def kernel(self) -> Any:
        """The kernel as fitted."""
        return self.model.kernel_

    def predict(self, seen: Array) -> tuple[Array, Array]:
        """Return mean and variance (N,) of accuracies as they would be observed.

        The noise is not taken off: it is also what the features do not explain.
        """
        mean, deviation = self.model.predict(seen, return_std=True)
        return self.mean + self.scale * mean, (self.scale * deviation) ** 2


def _rank_correlation(predicted: Array, observed: Array) -> float:
    """Return Spearman's coefficient; 0 where either does not vary, so that it has none."""
    if np.ptp(predicted) == 0 or np.ptp(observed) == 0:
        return 0.0
    return float(spearmanr(predicted, observed).statistic)
