"""The probabilities of every cell's candidates, and how a binarised path's gradient moves them.

Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware" (2019),
section 3.2. Probabilities are p = softmax(alpha). Everything here is numpy in double precision: a
cell has a handful of numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Vector = npt.NDArray[np.float64]

INITIAL_SD = 1e-3
SQUARES_DECAY = 0.999
EPSILON = 1e-8


def softmax(alpha: Vector) -> Vector:
    """Return the probabilities (n,) of logits (n,)."""
    raised = np.exp(alpha - alpha.max())
    return np.asarray(raised / raised.sum())


def entropy_bits(probabilities: Vector) -> float:
    """Return the entropy of probabilities (n,)."""
    some = probabilities[probabilities > 0]
    return float(-(some * np.log2(some)).sum())


def chain(gate_gradient: Vector, probabilities: Vector) -> Vector:
    """Return dL/dalpha_i = sum_j dL/dg_j p_j (delta_ij - p_i), all (n,): the softmax's Jacobian.

    It serves the expected latency as well, whose dE/dp_j is the latency of candidate j.
    """
    return np.asarray(probabilities * (gate_gradient - probabilities @ gate_gradient))


def draw(probabilities: Vector, rng: np.random.Generator) -> int:
    """Draw one candidate."""
    return int(rng.choice(len(probabilities), p=probabilities))


def draw_two(probabilities: Vector, rng: np.random.Generator) -> tuple[int, int]:
    """Draw two different candidates, the second by the probabilities that the first leaves."""
    first = draw(probabilities, rng)
    rest = probabilities.copy()
    rest[first] = 0.0
    if rest.sum() == 0.0:  # the probabilities of one have rounded to 1
        rest[:] = 1.0
        rest[first] = 0.0
    return first, draw(rest / rest.sum(), rng)


def rescale(old: Vector, new: Vector, pair: Sequence[int]) -> Vector:
    """Return `new` shifted so that the pair's share of the sum is what it was under `old`.

    A step that saw two candidates may move probability between the two, not to or from others.
    """
    at = list(pair)
    shifted = new.copy()
    shifted[at] -= np.logaddexp.reduce(new[at]) - np.logaddexp.reduce(old[at])
    return shifted


class Adam:
    """Adam (Kingma and Ba 2015) with beta1 = 0: what has no gradient in this step does not move.

    With momentum a candidate that was not drawn would still follow its last gradient.
    """

    def __init__(self, rate: float, sizes: Sequence[int]) -> None:
        self.rate = rate
        self.steps = 0
        self.squares = [np.zeros(size) for size in sizes]

    def step(self, alphas: Sequence[Vector], gradients: Sequence[Vector]) -> list[Vector]:
        """Return the alphas one step down their gradients."""
        self.steps += 1
        moved = []
        for index, (alpha, gradient) in enumerate(zip(alphas, gradients, strict=True)):
            kept = SQUARES_DECAY * self.squares[index] + (1 - SQUARES_DECAY) * gradient**2
            self.squares[index] = kept
            root = np.sqrt(kept / (1 - SQUARES_DECAY**self.steps))
            moved.append(alpha - self.rate * gradient / (root + EPSILON))
        return moved
