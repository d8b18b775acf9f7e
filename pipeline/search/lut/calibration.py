"""From ops timed alone, and a few networks timed whole, to entries whose sums are right.

Alone in a loop an op is faster than inside a network: its weights and its input stay in the
nearest cache, and the branch predictor learns its data. How much faster is much the same for ops
of one kind, so the networks correct a factor common to all ops, a factor for each kind, and each
op a little. This is linear regression with a Gaussian prior:

    y = A x + noise        y: networks' latencies, A: how often each op occurs, x: entries
    x ~ N(m, C)            m: ops as timed alone

    C = (s_all m)(s_all m)' + sum over kinds of (s_kind m_kind)(s_kind m_kind)'
        + diag((s_op m)^2 + stderr^2)

The overhead of an inference is one more entry, of a kind of its own and without the common factor.
All is solved in the space of the networks, which are few (Rasmussen & Williams 2006, equations 2.11
and 5.12: leaving one network out has a closed form, so every network both corrects the table and,
left out, tests it).

A network whose measurement was disturbed must not spoil the table: noise is Student's t, fitted by
giving each network the more noise the farther it lies from what the others say of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from profiles.table import Additivity, TableEntry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FACTOR_ALL = 0.3
FACTOR_KIND = 0.1
FACTOR_OP = 0.05
"""Prior standard deviations of what an op takes in a network over what it takes alone, minus 1."""

NOISE = 0.03
"""What a network is off by though all its ops are known: caches, layout, the measurement's day."""

_FREEDOM = 4.0
"""Degrees of freedom of the noise: few, so that one bad measurement in ten does no harm."""

_ROUNDS = 10
_OVERHEAD = "overhead"

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Whole:
    """A network that was measured whole: the keys of its ops, with repeats, and its latency."""

    keys: tuple[str, ...]
    latency_ms: float
    stderr_ms: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Entries and overhead, corrected; `additivity` and `relative_error` by leaving one out."""

    entries: Mapping[str, TableEntry]
    overhead: TableEntry
    additivity: Additivity
    relative_error: float


def calibrate(
    alone: Mapping[str, TableEntry],
    overhead: TableEntry,
    networks: Sequence[Whole],
    kinds: Mapping[str, str],
) -> Calibrated:
    """Correct entries by networks of their ops.

    Args:
        alone: ops by key as timed alone, the overhead taken off.
        overhead: of one inference.
        networks: two or more, every op of theirs in `alone`.
        kinds: of the ops, by key: those of one kind have a factor in common.
    """
    names = [*alone, _OVERHEAD]
    given = [*alone.values(), overhead]
    mean = np.array([entry.latency_ms for entry in given])
    stderrs = np.array([entry.stderr_ms for entry in given])
    covariance = _prior([*(kinds[key] for key in alone), _OVERHEAD], mean, stderrs)
    counts = _counts(names, networks)
    measured = np.array([network.latency_ms for network in networks])
    noise = np.array([network.stderr_ms for network in networks]) ** 2 + (NOISE * measured) ** 2

    fitted = noise
    for _ in range(_ROUNDS):
        inverse = np.linalg.inv(counts @ covariance @ counts.T + np.diag(fitted))
        off = inverse @ (measured - counts @ mean)
        residual = off / np.diag(inverse)  # of each network against a table without it
        spread = 1 / np.diag(inverse) - fitted + noise
        fitted = noise * (_FREEDOM + residual**2 / spread) / (_FREEDOM + 1)
    gain = covariance @ counts.T
    latency = np.maximum(mean + gain @ off, 0.0)
    variance = np.diag(covariance) - np.einsum("ij,jk,ik->i", gain, inverse, gain)
    stderr = np.sqrt(np.maximum(variance, 0.0))
    corrected = {
        name: replace(entry, latency_ms=float(value), stderr_ms=float(error))
        for name, entry, value, error in zip(names, given, latency, stderr, strict=True)
    }
    left_out = measured - residual
    return Calibrated(
        entries={name: corrected[name] for name in alone},
        overhead=corrected[_OVERHEAD],
        additivity=additivity(left_out, measured),
        relative_error=float(np.sqrt(np.mean((left_out / measured - 1) ** 2))),
    )


def additivity(sums: Array, measured: Array) -> Additivity:
    """Compare sums with networks measured whole: two or more, milliseconds both."""
    error = sums / measured - 1
    varied = min(len(set(sums)), len(set(measured))) > 1  # else there is no rank
    from scipy.stats import spearmanr  # takes a second to import, which few runs need

    ranked = float(spearmanr(sums, measured).statistic) if varied else 0.0
    return Additivity(
        networks=len(measured),
        mape=float(np.mean(np.abs(error))),
        within_10=float(np.mean(np.abs(error) <= 0.1)),
        spearman=ranked,
        bias=float(np.mean(error)),
    )


def _prior(kinds: Sequence[str], mean: Array, stderr: Array) -> Array:
    """Return the prior covariance of the entries, (entries, entries)."""
    same_kind = np.array([[a == b for b in kinds] for a in kinds])
    is_op = np.array([kind != _OVERHEAD for kind in kinds])
    factors = FACTOR_ALL**2 * np.outer(is_op, is_op) + FACTOR_KIND**2 * same_kind
    covariance: Array = np.outer(mean, mean) * factors
    covariance += np.diag((FACTOR_OP * mean) ** 2 + stderr**2)
    return covariance


def _counts(names: Sequence[str], networks: Sequence[Whole]) -> Array:
    """Return how often each entry counts in each network, (networks, entries)."""
    place = {name: index for index, name in enumerate(names)}
    counts = np.zeros((len(networks), len(names)))
    counts[:, place[_OVERHEAD]] = 1.0
    for row, network in enumerate(networks):
        for key in network.keys:
            counts[row, place[key]] += 1.0
    return counts
