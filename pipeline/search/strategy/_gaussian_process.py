"""Gaussian-process regression on feature vectors, with its kernel chosen by marginal likelihood.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), algorithm 2.1. The kernel
is a mixture of a squared exponential and a quadratic one,

    k(x, z) = w exp(-|x - z|^2 / (2 l^2 s)) + (1 - w) ((1 + x.z / s) / 2)^2

with s the mean squared norm of the inputs: on one-hot decisions the quadratic part is additive in
decisions and in pairs of them, and the other is local. The mixture w, the length l and the noise
are taken from a small grid and the amplitude in closed form: with tens of points a gradient search
gains nothing and can fail.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_MIXTURES = (0.0, 0.3, 0.7, 1.0)
_LENGTHS = (0.5, 0.8, 1.2, 2.0)
_NOISES = (0.003, 0.02, 0.1)
_LEAST_VARIANCE = 1e-9


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


class GaussianProcess:
    """A posterior given points x: (n, d) and targets y: (n,), which are standardised inside."""

    def __init__(self, x: Floats, y: Floats, kernel: Kernel) -> None:
        self.kernel = kernel
        self._x = x
        self._mean, self._sd = float(y.mean()), float(y.std()) + 1e-6
        targets = (y - self._mean) / self._sd
        covariance = kernel(x, x) + kernel.noise * np.eye(len(x))
        self._factor = cholesky(covariance, lower=True)
        self._weights = cho_solve((self._factor, True), targets)
        # The likeliest amplitude, y' K^-1 y / n, with one pseudo-point of 1.
        self._amplitude = float((targets @ self._weights + 1.0) / (len(y) + 1))
        self.log_likelihood = -0.5 * len(y) * np.log(self._amplitude) - float(
            np.log(np.diag(self._factor)).sum()
        )

    @classmethod
    def fitted(cls, x: Floats, y: Floats) -> GaussianProcess:
        """Return the posterior whose kernel makes the targets likeliest."""
        scale = float((x**2).sum(1).mean()) or 1.0
        grid = itertools.product(_MIXTURES, _LENGTHS, _NOISES)
        return max(
            (cls(x, y, Kernel(*values, scale)) for values in grid),
            key=lambda process: process.log_likelihood,
        )

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation, without noise, of every row, (m,) each."""
        across = self.kernel(self._x, x)
        spread = solve_triangular(self._factor, across, lower=True)
        variance = self._amplitude * (self.kernel.diagonal(x) - (spread**2).sum(0))
        mean = self._mean + self._sd * (across.T @ self._weights)
        return mean, self._sd * np.sqrt(np.maximum(variance, _LEAST_VARIANCE))
