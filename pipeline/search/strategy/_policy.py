"""The controller of MnasNet in plain numpy: an LSTM that writes a choice vector token by token.

The step of decision t reads the embedding of the option taken at t - 1, and a softmax head of its
own turns the state into the probabilities of its options (Zoph and Le 2017, section 3.1, as in
NASNet, whose controller MnasNet uses). Decisions may have different numbers of options: heads are
as wide as the widest, and what does not exist has probability 0. Gradients are written out by
hand, backwards through time; a test holds them against finite differences.

Shapes: B sequences, D decisions, C options of the widest, E embedding, H state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int64]
Parameters = dict[str, Floats]

_IMPOSSIBLE = -1e30


@dataclass(frozen=True, slots=True)
class _Step:
    """What one step of the LSTM leaves for the way back."""

    rows: Tokens  # (B,) rows of the embedding that were read
    previous: Floats  # (B, H) state before
    cell_before: Floats  # (B, H)
    gates: Floats  # (B, 4H) input, forget, output gates and candidate, after their functions
    tanh_cell: Floats  # (B, H)
    state: Floats  # (B, H)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A batch of sequences under the policy.

    `log_prob` and `entropy` are (B, D): of the token taken, and of the distribution it was
    taken from, in nats.
    """

    log_prob: Floats
    entropy: Floats
    tokens: Tokens  # (B, D)
    steps: list[_Step]
    log_probs: Floats  # (B, D, C)


class Policy:
    """An autoregressive distribution over choice vectors."""

    def __init__(
        self,
        cardinalities: Sequence[int],
        rng: np.random.Generator,
        *,
        hidden: int = 64,
        embedding: int = 32,
    ) -> None:
        self.counts = counts = np.array(cardinalities, np.int64)
        self.depth, self.widest, self.hidden = len(counts), int(counts.max()), hidden
        # Row 0 of the embedding starts a sequence; option c of decision d is row offsets[d] + c.
        self.offsets = 1 + np.concatenate([[0], np.cumsum(counts)[:-1]])
        self.mask = np.where(np.arange(self.widest) < counts[:, None], 0.0, _IMPOSSIBLE)  # (D, C)

        def uniform(*shape: int) -> Floats:
            return rng.uniform(-0.1, 0.1, shape)

        self.parameters: Parameters = {
            "embedding": uniform(1 + int(counts.sum()), embedding),
            "from_input": uniform(embedding, 4 * hidden),
            "from_state": uniform(hidden, 4 * hidden),
            "bias": np.concatenate([np.zeros(hidden), np.ones(hidden), np.zeros(2 * hidden)]),
            "head": uniform(self.depth, hidden, self.widest),
            "head_bias": np.zeros((self.depth, self.widest)),
        }

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Floats]:
        """Draw n choice vectors: tokens (n, D) and their log-probabilities (n, D)."""
        tokens = np.zeros((n, self.depth), np.int64)
        taken = np.zeros((n, self.depth))
        state, cell = np.zeros((n, self.hidden)), np.zeros((n, self.hidden))
        for d in range(self.depth):
            step, cell = self._step(self._rows(tokens, d), state, cell)
            state = step.state
            log_probs = self._head(d, state)
            cumulated = np.exp(log_probs).cumsum(axis=1)
            draws = rng.random((n, 1)) * cumulated[:, -1:]
            # Rounding may put a draw on the very end: the last option there is, then.
            tokens[:, d] = np.minimum((cumulated <= draws).sum(axis=1), self.counts[d] - 1)
            taken[:, d] = log_probs[np.arange(n), tokens[:, d]]
        return tokens, taken

    def evaluate(self, tokens: Tokens) -> Evaluation:
        """Return log-probabilities and entropies of given choice vectors (B, D)."""
        batch = len(tokens)
        state, cell = np.zeros((batch, self.hidden)), np.zeros((batch, self.hidden))
        steps: list[_Step] = []
        for d in range(self.depth):
            step, cell = self._step(self._rows(tokens, d), state, cell)
            state = step.state
            steps.append(step)
        log_probs = np.stack([self._head(d, s.state) for d, s in enumerate(steps)], axis=1)
        taken = np.take_along_axis(log_probs, tokens[:, :, None], axis=2)[:, :, 0]
        entropy = -(np.exp(log_probs) * log_probs).sum(axis=2)
        return Evaluation(taken, entropy, tokens, steps, log_probs)

    def gradients(self, at: Evaluation, d_log_prob: Floats, d_entropy: Floats) -> Parameters:
        """Return the gradient of a loss whose derivatives by `log_prob` and `entropy` are given."""
        p, grads = self.parameters, {k: np.zeros_like(v) for k, v in self.parameters.items()}
        probs = np.exp(at.log_probs)
        one_hot = np.arange(self.widest) == at.tokens[:, :, None]
        d_logits = d_log_prob[:, :, None] * (one_hot - probs)
        d_logits -= d_entropy[:, :, None] * probs * (at.log_probs + at.entropy[:, :, None])
        d_next, d_cell = np.zeros_like(at.steps[0].state), np.zeros_like(at.steps[0].state)
        for d in reversed(range(self.depth)):
            step = at.steps[d]
            grads["head"][d] = step.state.T @ d_logits[:, d]
            grads["head_bias"][d] = d_logits[:, d].sum(axis=0)
            d_state = d_next + d_logits[:, d] @ p["head"][d].T
            d_gates, d_cell = _back_through_cell(step, d_state, d_cell)
            inputs = p["embedding"][step.rows]
            grads["from_input"] += inputs.T @ d_gates
            grads["from_state"] += step.previous.T @ d_gates
            grads["bias"] += d_gates.sum(axis=0)
            np.add.at(grads["embedding"], step.rows, d_gates @ p["from_input"].T)
            d_next = d_gates @ p["from_state"].T
        return grads

    def _rows(self, tokens: Tokens, d: int) -> Tokens:
        if d == 0:
            return np.zeros(len(tokens), np.int64)
        rows: Tokens = self.offsets[d - 1] + tokens[:, d - 1]
        return rows

    def _step(self, rows: Tokens, state: Floats, cell: Floats) -> tuple[_Step, Floats]:
        p, h = self.parameters, self.hidden
        z = p["embedding"][rows] @ p["from_input"] + state @ p["from_state"] + p["bias"]
        # tanh for both: sigmoid(z) = (1 + tanh(z / 2)) / 2 cannot overflow.
        z[:, : 3 * h] *= 0.5
        gates = np.tanh(z)
        gates[:, : 3 * h] = 0.5 + 0.5 * gates[:, : 3 * h]
        new_cell = gates[:, h : 2 * h] * cell + gates[:, :h] * gates[:, 3 * h :]
        tanh_cell = np.tanh(new_cell)
        new_state = gates[:, 2 * h : 3 * h] * tanh_cell
        return _Step(rows, state, cell, gates, tanh_cell, new_state), new_cell

    def _head(self, d: int, state: Floats) -> Floats:
        """Return the log-probabilities (B, C) of decision d."""
        logits = state @ self.parameters["head"][d] + self.parameters["head_bias"][d]
        logits += self.mask[d]
        logits -= logits.max(axis=1, keepdims=True)
        log_probs: Floats = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return log_probs


def _back_through_cell(step: _Step, d_state: Floats, d_cell: Floats) -> tuple[Floats, Floats]:
    """Return the gradients by the gates before their functions (B, 4H) and by the cell before."""
    h = step.state.shape[1]
    write, keep = step.gates[:, :h], step.gates[:, h : 2 * h]
    show, candidate = step.gates[:, 2 * h : 3 * h], step.gates[:, 3 * h :]
    d_cell = d_cell + d_state * show * (1.0 - step.tanh_cell**2)
    d_gates = np.concatenate(
        [
            d_cell * candidate * write * (1.0 - write),
            d_cell * step.cell_before * keep * (1.0 - keep),
            d_state * step.tanh_cell * show * (1.0 - show),
            d_cell * write * (1.0 - candidate**2),
        ],
        axis=1,
    )
    return d_gates, d_cell * keep


@dataclass(slots=True)
class Adam:
    """Kingma and Ba 2015, algorithm 1, after scaling the gradient down to norm `max_norm`."""

    learning_rate: float
    max_norm: float = 1.0
    _count: int = 0
    _mean: Parameters = field(default_factory=dict)
    _square: Parameters = field(default_factory=dict)

    def update(self, parameters: Parameters, grads: Parameters) -> None:
        """Move `parameters` in place, against the gradient."""
        norm = float(np.sqrt(sum(float((g * g).sum()) for g in grads.values())))
        scale = min(1.0, self.max_norm / (norm + 1e-12))
        self._count += 1
        rate = self.learning_rate * np.sqrt(1 - 0.999**self._count) / (1 - 0.9**self._count)
        for name, grad in grads.items():
            mean = self._mean.setdefault(name, np.zeros_like(grad))
            square = self._square.setdefault(name, np.zeros_like(grad))
            mean += 0.1 * (scale * grad - mean)
            square += 0.001 * ((scale * grad) ** 2 - square)
            parameters[name] -= rate * mean / (np.sqrt(square) + 1e-8)
