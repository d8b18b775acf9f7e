"""Gaussian-process regression that grows point by point, its kernel chosen by marginal likelihood.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), algorithm 2.1. The kernel
is a mixture of a squared exponential and a quadratic one,

    k(x, z) = w exp(-|x - z|^2 / (2 l^2 s)) + (1 - w) ((1 + x.z / s) / 2)^2

with s the mean squared norm of the inputs: on one-hot decisions the quadratic part is additive in
decisions and in pairs of them, and the other is local. The mixture w, the length l and the noise
are taken from a small grid and the amplitude in closed form: with tens of points a gradient search
gains nothing and can fail.

A search predicts the same candidates after every trial. So a `GaussianProcess` holds its candidates
and keeps, for each, V = L^-1 K(points, candidates): a new point adds one row to the Cholesky factor
L and to V, instead of solving everything anew (the same algorithm, its loop over rows kept open).
Targets come with each prediction, since they are rescaled from trial to trial.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cholesky, solve_triangular

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_MIXTURES = (0.0, 0.3, 0.7, 1.0)
_LENGTHS = (0.5, 0.8, 1.2, 2.0)
_NOISES = (0.003, 0.02, 0.1)
_LEAST_VARIANCE = 1e-9
_LEAST_SD = 1e-6


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel with its noise; `scale` is s above.

    Attributes:
        mixture: w, 0 to 1.
        length: l, in root mean squared norms.
        noise: variance of the noise, as a share of the amplitude.
        scale: mean squared norm of the inputs.
    """

    mixture: float
    length: float
    noise: float
    scale: float

    def __call__(self, a: Floats, b: Floats) -> Floats:
        """Return k of every pair, (n, m), for a: (n, d) and b: (m, d)."""
        products = a @ b.T
        squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2.0 * products
        local = np.exp(-np.maximum(squares, 0.0) / (2.0 * self.length**2 * self.scale))
        values: Floats = self.mixture * local + (1.0 - self.mixture) * _quadratic(
            products / self.scale
        )
        return values

    def diagonal(self, a: Floats) -> Floats:
        """Return k(x, x) of every row, (n,)."""
        values: Floats = self.mixture + (1.0 - self.mixture) * _quadratic(
            (a**2).sum(1) / self.scale
        )
        return values


def _quadratic(products: Floats) -> Floats:
    values: Floats = ((1.0 + products) / 2.0) ** 2
    return values


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is thought of every candidate, (m,) each, in the targets' unit.

    Attributes:
        mean: of the smooth function.
        sd: standard deviation of the smooth function.
        sd_of_value: the same of a value as it would be observed, noise included.
    """

    mean: Floats
    sd: Floats
    sd_of_value: Floats


class GaussianProcess:
    """A posterior over candidates: (m, d), given the points added so far."""

    def __init__(self, kernel: Kernel, candidates: Floats) -> None:
        self.kernel = kernel
        self._candidates = candidates
        self._prior = kernel.diagonal(candidates)
        self._points = np.empty((0, candidates.shape[1]))
        self._factor = np.empty((0, 0))  # L, (n, n)
        self._whitened = np.empty((0, len(candidates)))  # V, (capacity, m); the first n rows count
        self._explained = np.zeros(len(candidates))  # sum of V^2 over points

    def __len__(self) -> int:
        return len(self._points)

    def add(self, points: Floats) -> None:
        """Take in points: (k, d)."""
        n, total = len(self), len(self) + len(points)
        cross = solve_triangular(self._factor, self.kernel(self._points, points), lower=True)
        own = self.kernel(points, points) + self.kernel.noise * np.eye(len(points))
        corner = cholesky(own - cross.T @ cross, lower=True)
        factor = np.zeros((total, total))
        factor[:n, :n], factor[n:, :n], factor[n:, n:] = self._factor, cross.T, corner
        across = self.kernel(points, self._candidates) - cross.T @ self._whitened[:n]
        self._make_room(total)
        self._whitened[n:total] = solve_triangular(corner, across, lower=True)
        self._explained += (self._whitened[n:total] ** 2).sum(0)
        self._factor, self._points = factor, np.vstack([self._points, points])

    def forget(self, count: int) -> None:
        """Take the last `count` points out again."""
        n = len(self) - count
        self._explained -= (self._whitened[n : len(self)] ** 2).sum(0)
        self._factor, self._points = self._factor[:n, :n], self._points[:n]

    def predict(self, targets: Floats) -> Prediction:
        """Return the posterior for the targets of the points, (n,), standardised inside."""
        middle, sd = float(targets.mean()), float(targets.std()) + _LEAST_SD
        whitened = solve_triangular(self._factor, (targets - middle) / sd, lower=True)
        amplitude = _amplitude(whitened)
        variance = amplitude * np.maximum(self._prior - self._explained, _LEAST_VARIANCE)
        return Prediction(
            middle + sd * (whitened @ self._whitened[: len(self)]),
            sd * np.sqrt(variance),
            sd * np.sqrt(variance + amplitude * self.kernel.noise),
        )

    def _make_room(self, total: int) -> None:
        """Double the capacity as needed, so that growing copies each row a few times at most."""
        if total > len(self._whitened):
            grown = np.empty((max(total, 2 * len(self._whitened)), len(self._candidates)))
            grown[: len(self)] = self._whitened[: len(self)]
            self._whitened = grown


def mean_squared_norm(points: Floats) -> float:
    """Return the mean of |x|^2 over points: (n, d); 1 where all are zero."""
    return float((points**2).sum(1).mean()) or 1.0


def likeliest_kernel(points: Floats, targets: Floats, scale: float) -> Kernel:
    """Return the kernel of the grid that makes the targets, (n,), at points, (n, d), likeliest."""
    grid = (Kernel(*values, scale) for values in itertools.product(_MIXTURES, _LENGTHS, _NOISES))
    return max(grid, key=lambda kernel: log_likelihood(kernel, points, targets))


def log_likelihood(kernel: Kernel, points: Floats, targets: Floats) -> float:
    """Return log p(standardised targets | points) at the likeliest amplitude, up to a constant."""
    standard = (targets - targets.mean()) / (targets.std() + _LEAST_SD)
    covariance = kernel(points, points) + kernel.noise * np.eye(len(points))
    factor = cholesky(covariance, lower=True)
    whitened = solve_triangular(factor, standard, lower=True)
    fit = -0.5 * len(points) * np.log(_amplitude(whitened))
    return float(fit - np.log(np.diag(factor)).sum())


def _amplitude(whitened: Floats) -> float:
    """Return the likeliest amplitude, y' K^-1 y / n, with one pseudo-point of 1."""
    return float((whitened @ whitened + 1.0) / (len(whitened) + 1))
