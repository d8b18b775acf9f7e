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
Targets come with each prediction, since they are rescaled from trial to trial. The mean is linear
in them, so it is kept for the targets as they are and for a constant, and grows with V as well.

A kernel is chosen from the whole grid once, and later along the axes of the grid from the one in
use: each likelihood takes time with the cube of the points, and more points seldom move the
likeliest kernel far.
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
_GRID = (_MIXTURES, _LENGTHS, _NOISES)
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
        return self.of(a @ b.T, (a**2).sum(1), (b**2).sum(1))

    def of(self, products: Floats, a_squares: Floats, b_squares: Floats) -> Floats:
        """Return k of every pair from a.b, (n, m), and |a|^2 and |b|^2, (n,) and (m,)."""
        products = products / self.scale
        if self.mixture == 0.0:
            return _quadratic(products)
        squares = (a_squares[:, None] + b_squares) / self.scale - 2.0 * products
        values = np.exp(np.maximum(squares, 0.0) * (-0.5 / self.length**2))
        if self.mixture == 1.0:
            return values
        values *= self.mixture
        values += (1.0 - self.mixture) * _quadratic(products)
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
        self._squares = (candidates**2).sum(1)
        self._prior = kernel.diagonal(candidates)
        self._points = np.empty((0, candidates.shape[1]))
        self._factor = np.empty((0, 0))  # L, (n, n)
        self._whitened = np.empty((0, len(candidates)))  # V, (capacity, m); the first n rows count
        self._explained = np.zeros(len(candidates))  # sum of V^2 over points
        # Of the targets last predicted from, and of a constant 1: L^-1 y, (2, k), and V' L^-1 y,
        # (2, m), each over their first k points.
        self._targets = np.empty(0)
        self._solved = np.empty((2, 0))
        self._means = np.zeros((2, len(candidates)))

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
        squares = (points**2).sum(1)
        across = self.kernel.of(points @ self._candidates.T, squares, self._squares)
        across -= cross.T @ self._whitened[:n]
        self._make_room(total)
        self._whitened[n:total] = solve_triangular(corner, across, lower=True)
        self._explained += (self._whitened[n:total] ** 2).sum(0)
        self._factor, self._points = factor, np.vstack([self._points, points])

    def forget(self, count: int) -> None:
        """Take the last `count` points out again."""
        n = len(self) - count
        self._explained -= (self._whitened[n : len(self)] ** 2).sum(0)
        self._means -= self._solved[:, n:] @ self._whitened[n : self._solved.shape[1]]
        self._solved, self._targets = self._solved[:, :n], self._targets[:n]
        self._factor, self._points = self._factor[:n, :n], self._points[:n]

    def predict(self, targets: Floats) -> Prediction:
        """Return the posterior for the targets of the points, (n,), standardised inside."""
        middle, sd = float(targets.mean()), float(targets.std()) + _LEAST_SD
        self._solve(targets)
        of_targets, of_one = self._solved
        amplitude = _amplitude((of_targets - middle * of_one) / sd)
        variance = amplitude * np.maximum(self._prior - self._explained, _LEAST_VARIANCE)
        return Prediction(
            middle + self._means[0] - middle * self._means[1],
            sd * np.sqrt(variance),
            sd * np.sqrt(variance + amplitude * self.kernel.noise),
        )

    def _solve(self, targets: Floats) -> None:
        """Bring what is known of the targets up to date: only new ones are added."""
        known = len(self._targets)
        if not np.array_equal(targets[:known], self._targets):
            known = 0
            self._means[:] = 0.0
        both = np.stack([targets, np.ones(len(targets))], axis=1)
        self._solved = solve_triangular(self._factor, both, lower=True).T
        self._means += self._solved[:, known:] @ self._whitened[known : len(self)]
        self._targets = targets.copy()

    def _make_room(self, total: int) -> None:
        """Double the capacity as needed, so that growing copies each row a few times at most."""
        if total > len(self._whitened):
            grown = np.empty((max(total, 2 * len(self._whitened)), len(self._candidates)))
            grown[: len(self)] = self._whitened[: len(self)]
            self._whitened = grown


def mean_squared_norm(points: Floats) -> float:
    """Return the mean of |x|^2 over points: (n, d); 1 where all are zero."""
    return float((points**2).sum(1).mean()) or 1.0


def likeliest_kernel(
    points: Floats, targets: Floats, scale: float, near: Kernel | None = None
) -> Kernel:
    """Return the kernel of the grid that makes the targets, (n,), at points, (n, d), likeliest.

    With `near`, a kernel of the grid, it is the likeliest that is reached from it by changes of one
    number at a time, each to the likeliest value.
    """
    known: dict[tuple[int, ...], float] = {}

    def likelihood(place: tuple[int, ...]) -> float:
        if place not in known:
            known[place] = log_likelihood(_at(place, scale), points, targets)
        return known[place]

    places = list(itertools.product(*(range(len(values)) for values in _GRID)))
    if near is None:
        return _at(max(places, key=likelihood), scale)
    given = (near.mixture, near.length, near.noise)
    best = tuple(values.index(value) for values, value in zip(_GRID, given, strict=True))
    while True:  # every round is likelier than the one before, and the grid is finite
        better = max((p for p in places if _differing(p, best) <= 1), key=likelihood)
        if likelihood(better) <= likelihood(best):
            return _at(best, scale)
        best = better


def _at(place: tuple[int, ...], scale: float) -> Kernel:
    """Return the kernel at a place of the grid."""
    mixture, length, noise = (values[i] for values, i in zip(_GRID, place, strict=True))
    return Kernel(mixture, length, noise, scale)


def _differing(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return sum(i != j for i, j in zip(a, b, strict=True))


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
