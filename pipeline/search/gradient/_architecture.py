"""The architecture step of ProxylessNAS, in its three modes, with a latency term that holds.

With E the expected latency of the networks that the probabilities draw, T the latency to land on
and w the weight of latency, what is descended is one of

    mul-log       ln(CE (E / T)^w)
    add-linear    CE + w (E / T - 1)

and in the mode `reinforce` the reward of a network drawn is ACC (LAT / T)^-w.

How this differs from the authors' code. Their mul-log is a CE (ln E / ln T)^b with a = 0.2 and
b = 0.3: at E = T its elasticity is b / ln T, 0.0685 at their 80 ms, but 0.0266 if the same latency
is written in microseconds, and it has no value for E <= 1. Ours has the elasticity w in any unit;
w starts at 0.07, MnasNet's. The logarithm and the factor a change the length of a gradient, not
its direction; far from the target the power itself would change that length by orders of
magnitude, and Adam, which remembers the longest, would stand still after.

Their weights are fixed, so a target is a wish: asked for 25 the search ends wherever it does. Here
w = u + DAMPING ln(E / T), where u <- u + GAIN ln(E / T) after every step: the method of
multipliers for the constraint E = T. So w is below 0 where the task by itself would go to networks
faster than asked, as it does early in training, when small ones learn faster.

Their REINFORCE baseline is 99 % the newest batch and is updated before it is subtracted, and its
accuracy is taken with batch statistics. Ours is an average over steps, each network is judged by
those of earlier steps (in the first by the others beside it), and accuracy uses running statistics,
which a warm-up must have settled: some fifty steps for each candidate.

As in the authors' code, a cell whose active path is Zero takes no gradient in that step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.search.gradient._gates import (
    INITIAL_SD,
    Adam,
    chain,
    draw,
    draw_two,
    entropy_bits,
    rescale,
    softmax,
)

if TYPE_CHECKING:
    from models.supernet.paths import PathNet
    from pipeline.data.task import Task
    from pipeline.search.gradient._gates import Vector
    from pipeline.search.gradient.cells import LatencyModel

PRESSURES = {"mul-log": 0.07, "add-linear": 0.1, "reinforce": 0.1}
"""Where the weight of the latency term starts: the published constants."""
GAIN = 0.02
DAMPING = 1.0
MAX_PRESSURE = 10.0
SAMPLES = 10
"""Networks drawn for one step of REINFORCE."""
BASELINE_DECAY = 0.9
LEAST_LOSS = 1e-6
"""A batch that is learnt by heart has a cross-entropy of 0, of which there is no logarithm."""

Gates = list[tuple[int, ...]]


@dataclass(slots=True)
class Architecture:
    """The probabilities of all cells and what moves them.

    Attributes:
        mode: full_v2 | two | reinforce.
        loss: mul-log | add-linear.
        task: what networks are to do.
        alphas: logits of the probabilities, (candidates,) for each cell.
        pressure: u, the weight of latency on target.
        baseline: of REINFORCE; None before its first step.
    """

    mode: str
    loss: str
    task: Task
    model: LatencyModel
    alphas: list[Vector]
    optimizer: Adam
    pressure: float
    baseline: float | None = None

    @classmethod
    def start(
        cls,
        mode: str,
        loss: str,
        *,
        task: Task,
        model: LatencyModel,
        rate: float,
        rng: np.random.Generator,
    ) -> Architecture:
        """Start from nearly equal probabilities."""
        sizes = [len(ms) for ms in model.extra_ms]
        alphas = [rng.normal(0.0, INITIAL_SD, size) for size in sizes]
        first = PRESSURES["reinforce" if mode == "reinforce" else loss]
        return cls(mode, loss, task, model, alphas, Adam(rate, sizes), first)

    @property
    def probabilities(self) -> list[Vector]:
        """The probabilities of each cell's candidates."""
        return [softmax(alpha) for alpha in self.alphas]

    @property
    def log_probabilities(self) -> list[Vector]:
        """Their logarithms."""
        return [alpha - np.logaddexp.reduce(alpha) for alpha in self.alphas]

    @property
    def expected_ms(self) -> float:
        """Mean latency of the networks that the probabilities draw."""
        return self.model.expected(self.probabilities)

    def entropy_bits(self) -> float:
        """Return the mean entropy of the cells that have a choice."""
        found = [
            entropy_bits(probabilities)
            for probabilities in self.probabilities
            if len(probabilities) > 1
        ]
        return float(np.mean(found)) if found else 0.0

    def sample(self, rng: np.random.Generator) -> tuple[int, ...]:
        """Draw one network."""
        return tuple(draw(probabilities, rng) for probabilities in self.probabilities)

    def step(
        self,
        net: PathNet,
        images: torch.Tensor,
        labels: torch.Tensor,
        goal_ms: float,
        rng: np.random.Generator,
    ) -> float:
        """Move the probabilities once, by one batch that the weights are not trained on.

        Returns:
            The mean cross-entropy of the networks that were run. It is not finite if that or a
            gradient was not; the probabilities are then as before.

        Args:
            net: its weights stay as they are.
            images: (N, C, H, W).
            labels: (N,).
            goal_ms: T, the expected latency to come to, by the model.
            rng: draws paths.
        """
        if self.mode == "reinforce":
            pairs = [tuple(range(len(probabilities))) for probabilities in self.probabilities]
            task, gradients = self._reinforce(net, images, labels, goal_ms, rng)
        else:
            pairs = [self._compared(probabilities, rng) for probabilities in self.probabilities]
            task, gradients = self._binarised(net, images, labels, goal_ms, pairs, rng)
        # Weights off the active paths can have diverged while the loss is still a number.
        if not (math.isfinite(task) and all(np.isfinite(each).all() for each in gradients)):
            return math.nan
        moved = self.optimizer.step(self.alphas, gradients)
        self.alphas = [
            rescale(old, new, pair) if len(pair) < len(old) else new
            for old, new, pair in zip(self.alphas, moved, pairs, strict=True)
        ]
        pressure = self.pressure + GAIN * math.log(self.expected_ms / goal_ms)
        self.pressure = min(max(pressure, -MAX_PRESSURE), MAX_PRESSURE)
        return task

    def weight(self, goal_ms: float) -> float:
        """Return w, the weight of latency at this distance from the target."""
        return self.pressure + DAMPING * math.log(self.expected_ms / goal_ms)

    def _compared(self, probabilities: Vector, rng: np.random.Generator) -> tuple[int, ...]:
        """Return the candidates of a cell that this step compares."""
        if self.mode == "two" and len(probabilities) > 2:
            return draw_two(probabilities, rng)
        return tuple(range(len(probabilities)))

    def _binarised(
        self,
        net: PathNet,
        images: torch.Tensor,
        labels: torch.Tensor,
        goal_ms: float,
        pairs: Gates,
        rng: np.random.Generator,
    ) -> tuple[float, list[Vector]]:
        """Return CE and dL/dalpha of every cell: one path is run, the compared are recomputed."""
        shares = [softmax(alpha[list(p)]) for alpha, p in zip(self.alphas, pairs, strict=True)]
        active = tuple(p[draw(q, rng)] for p, q in zip(pairs, shares, strict=True))
        net.select(active)
        moving = [
            len(pair) > 1 and bool(net.candidates[cell][active[cell]])
            for cell, pair in enumerate(pairs)
        ]
        wanted = [pair if moves else () for pair, moves in zip(pairs, moving, strict=True)]
        task, slopes = net.gate_gradients(
            images, lambda outputs: self.task.loss(outputs, labels), wanted
        )
        extra_ms = [ms[list(p)] for ms, p in zip(self.model.extra_ms, pairs, strict=True)]
        expected_ms = self.model.fixed_ms + sum(
            float(q @ ms) for q, ms in zip(shares, extra_ms, strict=True)
        )
        of_task, of_latency = self._slopes(task, expected_ms, goal_ms)
        gradients = []
        for cell, (pair, q) in enumerate(zip(pairs, shares, strict=True)):
            gradient = np.zeros_like(self.alphas[cell])
            if moving[cell]:
                gate = of_task * np.array(slopes[cell]) + of_latency * extra_ms[cell]
                gradient[list(pair)] = chain(gate, q)
            gradients.append(gradient)
        return task, gradients

    def _slopes(self, task: float, expected_ms: float, goal_ms: float) -> tuple[float, float]:
        """Return (dL/dCE, dL/dE) of the loss form."""
        weight = self.weight(goal_ms)
        if self.loss == "add-linear":
            return 1.0, weight / goal_ms
        return 1.0 / max(task, LEAST_LOSS), weight / expected_ms

    def _reinforce(
        self,
        net: PathNet,
        images: torch.Tensor,
        labels: torch.Tensor,
        goal_ms: float,
        rng: np.random.Generator,
    ) -> tuple[float, list[Vector]]:
        """Return the mean of CE and of (R - b) d(-log p)/dalpha over networks drawn."""
        drawn = [self.sample(rng) for _ in range(SAMPLES)]
        rewards, tasks = [], []
        net.eval()
        with torch.inference_mode():
            for choices in drawn:
                net.select(choices)
                outputs = net(images)
                tasks.append(float(self.task.loss(outputs, labels)))
                accuracy = self.task.score(outputs.numpy(), labels.numpy())
                slowness = self.model.of(choices) / goal_ms
                rewards.append(accuracy * slowness ** -self.weight(goal_ms))
        mean = float(np.mean(rewards))
        baseline = mean if self.baseline is None else self.baseline
        self.baseline = BASELINE_DECAY * baseline + (1 - BASELINE_DECAY) * mean
        gradients = []
        for cell, probabilities in enumerate(self.probabilities):
            gradient = np.zeros_like(probabilities)
            for choices, reward in zip(drawn, rewards, strict=True):
                towards = probabilities.copy()
                towards[choices[cell]] -= 1.0  # d(-log p)/dalpha
                gradient += (reward - baseline) * towards / SAMPLES
            gradients.append(gradient)
        return float(np.mean(tasks)), gradients
