"""What is believed of a device's latencies before it is measured: a Gaussian over linear models.

The relative latency of a network (its latency by a typical one's) is taken as linear in its
features, y = a + w.x. Two sources give the distribution of w:

- `LatencyPrior.counted`, no other device known: every counted cost takes an equal, positive share
  of the time. Costs are never negative, so a zero-mean prior (the plain Gaussian process on such
  features) wastes its few samples on finding the sign, and can rank below plain MACs.
- `LatencyPrior.learnt`, from known devices: w of each by ridge regression, w ~ N(their mean, their
  covariance), the hierarchical prior of empirical Bayes (Gelman et al., "Bayesian Data Analysis",
  chapter 5). The counted covariance enters as one device more: an inverse Wishart prior's mean,
  which keeps the sum of a few known devices from excluding what none of them shows.

Features come in two blocks, each fitted on what the one before leaves: `coarse` are few counted
costs that carry from device to device, `fine` may be hundreds (one-hot decisions) and explain
what counting misses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_COARSE_PENALTIES = np.logspace(-3, 2, 9)
_FINE_PENALTIES = np.logspace(-3, 3, 13)
_PSEUDO_DEVICES = 1.0
_FINE_SHARE = 0.05
_SLOPE_SD = 0.25
_MEAN_SCALE_VARIANCE = 0.05
_USUAL_NOISE = 0.05
_LEAST_LOG_NOISE_SD = 0.5


@dataclass(frozen=True, slots=True)
class Features:
    """What a latency model sees of n networks.

    Attributes:
        coarse: counted costs, none negative, (n, p).
        fine: details, (n, q); q may be 0.
    """

    coarse: Floats
    fine: Floats

    def __post_init__(self) -> None:
        if self.coarse.ndim != 2 or self.fine.ndim != 2 or len(self.coarse) != len(self.fine):
            raise ConfigError(
                f"latency features: coarse {self.coarse.shape} and fine {self.fine.shape} are not "
                "two matrices with one row per network; give fine (n, 0) if there are no details"
            )
        if not (np.isfinite(self.coarse).all() and np.isfinite(self.fine).all()):
            raise ConfigError("latency features: a value is not finite; leave that network out")
        if (self.coarse < 0).any():
            raise ConfigError(
                "latency features: a counted cost is below 0; give what may be negative as fine"
            )

    def __len__(self) -> int:
        return len(self.coarse)

    def __getitem__(self, rows: npt.NDArray[np.intp] | slice) -> Features:
        """Return the features of some of the networks."""
        return Features(self.coarse[rows], self.fine[rows])


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device on which many networks were measured.

    Attributes:
        name: of the device.
        features: of n networks; what they mean must be the same for every device.
        latency_ms: their latencies, (n,).
    """

    name: str
    features: Features
    latency_ms: Floats

    def __post_init__(self) -> None:
        latency = self.latency_ms
        if latency.shape != (len(self.features),) or len(latency) < 3:
            raise ConfigError(
                f"known device {self.name!r}: {latency.shape} latencies for {len(self.features)} "
                "networks; give one latency per network, of three networks at least"
            )
        if not (np.isfinite(latency).all() and (latency > 0).all()):
            raise ConfigError(
                f"known device {self.name!r} has a latency that is no time above 0; "
                "leave out the networks that failed"
            )


@dataclass(frozen=True, slots=True)
class Scaling:
    """Brings features to one scale: coarse to unit variance, fine to unit mean squared length."""

    coarse_mean: Floats
    coarse_sd: Floats
    fine_mean: Floats
    fine_length: float

    @classmethod
    def of(cls, features: Features) -> Scaling:
        """Return the scaling that these networks give; constant columns become zero."""
        sd = features.coarse.std(0)
        fine_mean = features.fine.mean(0)
        length = math.sqrt(float(((features.fine - fine_mean) ** 2).sum(1).mean()))
        usable = np.where(sd > 1e-9 * np.abs(features.coarse).max(0, initial=0.0), sd, np.inf)
        return cls(features.coarse.mean(0), usable, fine_mean, length or 1.0)

    def __call__(self, features: Features) -> Floats:
        """Return the scaled features side by side, (n, p + q)."""
        if features.coarse.shape[1:] != self.coarse_mean.shape or (
            features.fine.shape[1:] != self.fine_mean.shape
        ):
            raise ConfigError(
                f"latency features with {features.coarse.shape[1]} coarse and "
                f"{features.fine.shape[1]} fine columns, where the prior has "
                f"{len(self.coarse_mean)} and {len(self.fine_mean)}; take them from one function"
            )
        coarse = (features.coarse - self.coarse_mean) / self.coarse_sd
        return np.hstack([coarse, (features.fine - self.fine_mean) / self.fine_length])


@dataclass(frozen=True, slots=True)
class LatencyPrior:
    """w ~ N(weights, factor factor') for scaled features; see the module.

    Attributes:
        scaling: of the features.
        weights: mean of w, (p + q,).
        factor: root of the covariance of w, (p + q, k).
        log_noise: mean and standard deviation of ln(noise), the noise relative to a typical
            latency.
    """

    scaling: Scaling
    weights: Floats
    factor: Floats
    log_noise: tuple[float, float]

    @classmethod
    def counted(cls, networks: Features) -> LatencyPrior:
        """Return the prior where no device is known; `networks` are typical ones.

        Raises:
            ConfigError: there is no network.
        """
        if not len(networks):
            raise ConfigError("no network to scale a latency prior by: give some of the space")
        scaling = Scaling.of(networks)
        weights, spread = _shares(scaling)
        # Each of many shares may be off by its own size, but that more of everything takes longer
        # is sure: few noisy samples must not turn the ranking round.
        costs = int((weights > 0).sum())
        spread[: len(scaling.coarse_mean)] *= min(1.0, _SLOPE_SD * math.sqrt(costs))
        factor = np.hstack([np.diag(spread), math.sqrt(_MEAN_SCALE_VARIANCE) * weights[:, None]])
        return cls(scaling, weights, factor, (math.log(_USUAL_NOISE), 1.0))

    @classmethod
    def learnt(cls, devices: Sequence[KnownDevice]) -> LatencyPrior:
        """Return the prior that known devices give.

        Raises:
            ConfigError: there is none, or their features differ in number.
        """
        if not devices:
            raise ConfigError(
                "no known device to learn a latency prior from: use LatencyPrior.counted"
            )
        widths = {
            device.name: (device.features.coarse.shape[1], device.features.fine.shape[1])
            for device in devices
        }
        if len(set(widths.values())) > 1:
            raise ConfigError(
                f"known devices with different numbers of coarse and fine features: {widths}; "
                "take them from one function"
            )
        scaling = Scaling.of(
            Features(
                np.vstack([device.features.coarse for device in devices]),
                np.vstack([device.features.fine for device in devices]),
            )
        )
        fits = [_fit(scaling, device) for device in devices]
        each = np.stack([weights for weights, _ in fits])
        mean = each.mean(0)
        _, spread = _shares(scaling)
        count = len(devices) - 1 + _PSEUDO_DEVICES
        factor = np.hstack(
            [
                (each - mean).T / math.sqrt(count),
                np.diag(spread) * math.sqrt(_PSEUDO_DEVICES / count),
                # The typical latency is known from a few samples only: so is the mean's scale.
                math.sqrt(_MEAN_SCALE_VARIANCE) * mean[:, None],
            ]
        )
        noises = np.log([noise for _, noise in fits])
        sd = max(float(noises.std()), _LEAST_LOG_NOISE_SD)
        return cls(scaling, mean, factor, (float(noises.mean()), sd))

    def mean(self, features: Features) -> Floats:
        """Return the expected relative latency, (n,): 1 where every feature is average."""
        values: Floats = 1.0 + self.scaling(features) @ self.weights
        return values

    def basis(self, features: Features) -> Floats:
        """Return G, (n, k): the covariance of relative latencies is G G', less a constant."""
        values: Floats = self.scaling(features) @ self.factor
        return values


def _shares(scaling: Scaling) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of w if each counted cost takes an equal share."""
    fine = len(scaling.fine_mean)
    present = scaling.coarse_mean > 0
    means = np.where(present, scaling.coarse_mean, 1.0)
    varies = present & np.isfinite(scaling.coarse_sd)
    relative = np.where(varies, scaling.coarse_sd, 0.0) / means
    shares = relative / max(int(varies.sum()), 1)
    return (
        np.concatenate([shares, np.zeros(fine)]),
        np.concatenate([shares, np.full(fine, _FINE_SHARE)]),
    )


def _fit(scaling: Scaling, device: KnownDevice) -> tuple[Floats, float]:
    """Return w of a known device, (p + q,), and the noise that is left, relative."""
    x = scaling(device.features)
    y = device.latency_ms / np.median(device.latency_ms)
    split = len(scaling.coarse_mean)
    coarse, _, left = _ridge(x[:, :split], y, _COARSE_PENALTIES)
    fine, error, _ = _ridge(x[:, split:], left, _FINE_PENALTIES)
    return np.concatenate([coarse, fine]), max(error, 1e-3)


def _ridge(x: Floats, y: Floats, penalties: Floats) -> tuple[Floats, float, Floats]:
    """Return weights, leave-one-out error and residuals, at the penalty with the least error.

    An intercept is fitted and not penalised. A leave-one-out residual of ridge regression is
    exactly residual / (1 - leverage), intercept included (Golub, Heath and Wahba 1979).
    """
    centred, targets = x - x.mean(0), y - y.mean()
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    along = u.T @ targets
    error, weights = math.inf, np.zeros(x.shape[1])
    for penalty in penalties:
        kept = s**2 / (s**2 + penalty)
        leverage = (u**2 * kept).sum(1) + 1.0 / len(y)
        left = (targets - u @ (kept * along)) / np.maximum(1.0 - leverage, 1e-9)
        found = math.sqrt(float((left**2).mean()))
        if found < error:
            error, weights = found, vt.T @ (s / (s**2 + penalty) * along)
    return weights, error, targets - centred @ weights
