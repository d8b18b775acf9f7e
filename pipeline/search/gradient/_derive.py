"""From probabilities to networks that land on the target.

The authors take the most likely candidate of each cell and look at the latency afterwards. Here
the latency is part of the question: of all networks within a band of latencies, which does
gradient descent find most likely? Probabilities multiply and latencies add over cells, so the
answer is a knapsack with one item from each cell, solved exactly up to the rounding of latencies
to a grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pipeline.search.gradient.cells import LatencyModel

GRID = 2000
"""Steps of the band's upper end; 20 cells then round off by 0.1 % of it in standard deviation."""


def derive(
    log_probabilities: Sequence[npt.NDArray[np.float64]],
    model: LatencyModel,
    band_ms: tuple[float, float],
    count: int = 1,
) -> list[tuple[int, ...]]:
    """Return choices of up to `count` networks in a band of latencies, the most likely first.

    They are the most likely ones of their latency, so that they differ in it. Empty if the band
    holds none.

    Args:
        log_probabilities: of each cell's candidates, (candidates,) for each cell.
        model: the latencies.
        band_ms: lowest and highest latency, by the model.
        count: networks to return at most.
    """
    low_ms, high_ms = band_ms
    room_ms = high_ms - model.fixed_ms
    if room_ms < 0:
        return []
    step_ms = max(room_ms, 1e-12) / GRID
    best = np.full(GRID + 1, -np.inf)  # of the cells so far, by the latency that they use
    best[0] = 0.0
    taken = []
    for logs, extra_ms in zip(log_probabilities, model.extra_ms, strict=True):
        options = np.full((len(logs), GRID + 1), -np.inf)  # (candidates, latencies)
        # What is out of reach is cut to just that: a step next to nothing would overflow integers.
        used = np.rint(np.minimum(extra_ms / step_ms, GRID + 1)).astype(int)
        for j, steps in enumerate(used):
            if steps <= GRID:
                options[j, steps:] = best[: GRID + 1 - steps] + logs[j]
        taken.append(options.argmax(0))
        best = options.max(0)
    found: list[tuple[int, ...]] = []
    for at in np.argsort(-best, kind="stable"):
        if len(found) == count or best[at] == -np.inf:
            break
        choices = _trace(int(at), taken, model, step_ms)
        if low_ms <= model.of(choices) <= high_ms:
            found.append(choices)
    return found


def _trace(
    at: int, taken: Sequence[npt.NDArray[np.intp]], model: LatencyModel, step_ms: float
) -> tuple[int, ...]:
    """Return the choices that use exactly the latency `at`, in grid steps."""
    choices = []
    for options, extra_ms in zip(reversed(taken), reversed(model.extra_ms), strict=True):
        choice = int(options[at])
        at -= int(np.rint(extra_ms[choice] / step_ms))
        choices.append(choice)
    return tuple(reversed(choices))
