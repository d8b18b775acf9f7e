"""Files of LiteRT held against each other: partitions, and latencies in turns with an interval."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = 3
_WARM_UP = 6
_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Ratio:
    """Medians of two files in turns, and their ratio with a 95 % interval by the bootstrap."""

    first_ms: float
    second_ms: float
    ratio: float
    low: float
    high: float


def load(path: Path) -> Any:
    """Return an interpreter of one thread with seeded inputs set."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for source in interpreter.get_input_details():
        values = rng.standard_normal(source["shape"]) * (1 if source["dtype"] == np.float32 else 40)
        interpreter.set_tensor(source["index"], values.astype(source["dtype"]))
    return interpreter


def count_partitions(path: Path) -> int:
    """Return the DELEGATE nodes that LiteRT makes of a file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    # A private call, and the only one that lists ops; partitions are appended to it.
    before = len(interpreter._get_ops_details())  # noqa: SLF001
    interpreter.allocate_tensors()
    return len(interpreter._get_ops_details()) - before  # noqa: SLF001


def compare_latencies(first: Path, second: Path, *, rounds: int) -> Ratio:
    """Time two files in ABBA blocks in one process, one thread; ratio of first to second."""
    runs = [load(path) for path in (first, second)]
    for which in (0, 1, 1, 0) * _WARM_UP:
        _block(runs[which])
    samples: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        pair: tuple[list[float], list[float]] = ([], [])
        for which in (0, 1, 1, 0):
            pair[which].extend(_block(runs[which]))
        for times, found in zip(samples, pair, strict=True):
            times.append(statistics.median(found))
    ratios = np.array(samples[0]) / np.array(samples[1])
    rng = np.random.default_rng(0)
    drawn = np.median(rng.choice(ratios, (_DRAWS, len(ratios))), axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    medians = [statistics.median(times) * 1e3 for times in samples]
    return Ratio(medians[0], medians[1], float(np.median(ratios)), float(low), float(high))


def _block(interpreter: Any) -> list[float]:
    """Return the seconds of a few inferences after one that is not counted."""
    interpreter.invoke()
    times = []
    for _ in range(_BLOCK):
        start = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - start)
    return times
