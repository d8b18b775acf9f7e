"""Times invokes: of one model, or of one interleaved with a reference.

Blocks of a few milliseconds alternate A B B A, then B A A B (A the model, B the reference), so
that a drift of the clock or the temperature hits both alike. Only invokes stand between the two
readings of the clock, one of them as a rule; all figures go back raw, statistics are the host's.

A clock that moves in steps (the ticks of an old kernel or a virtual machine) cannot time a short
invoke. There as many invokes stand between two readings as make a step of the clock small, and a
sample is their mean.

`how` is what jobs/bench.py orders: max_ns, block_ns, min_samples, max_samples, target_half_width,
seed, and begun_ns and spent_ns, of what getting ready has cost.
"""

import math
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import clock
from .wire import Refused

_WARMUP_INVOKES = 3  # at least, however slow the model
_WINDOW = 40  # invokes that the two-halves test looks at
_BLOCK_INVOKES = 100  # at most in one block, so that the answer stays short for tiny models
_CHECK_QUADS = 4  # A B B A rounds before the precision is believed
_LEAST_STEPS = 8  # of a coarse clock, before it tells how long an invoke takes
_HALF_STEPS = 40  # of a coarse clock, before it tells to 2.5 % how long half the warm-up takes
_LONGEST_SAMPLE = 4  # times `max_ns`: what a coarse clock may ask for one sample
_MARGIN = 1.2  # a sample may turn out shorter than the warm-up told
_COARSE = 0.01  # a step of the clock that is more of an invoke spoils the median


class Batch:
    """Several invokes that are timed as one, between two readings of the clock."""

    def __init__(self, invoke: Callable[[], None], count: int) -> None:
        self.count = count
        self.run = invoke if count == 1 else self._several
        self._invoke = invoke

    def _several(self) -> None:
        for _ in range(self.count):
            self._invoke()


def invokes_per_sample(typical_ns: int, step_ns: int, how: Dict[str, Any]) -> int:
    """Return how many invokes make a step of the clock as small as the precision asked for."""
    wanted_ns = _MARGIN * step_ns / how["target_half_width"]
    wanted_ns = min(wanted_ns, _LONGEST_SAMPLE * how["max_ns"])
    return int(max(1, math.ceil(wanted_ns / max(1, typical_ns))))


def time_each(run: Callable[[], None], count: int) -> List[int]:
    """Run `count` times; nanoseconds of each."""
    now_ns, samples = clock.current().now_ns, []
    for _ in range(count):
        start = now_ns()
        run()
        samples.append(now_ns() - start)
    if min(samples) < 0:
        raise Refused("invoke_failed", "the device's clock ran backwards; it cannot time a model")
    return samples


def warm_up(
    invoke: Callable[[], None], least_ns: int, most_ns: int, step_ns: int = 0
) -> Dict[str, Any]:
    """Invoke until the times stand still: the two-halves test of pyperf, simplified.

    `settled` is None when the model, or the clock with its steps of `step_ns`, is too slow for the
    test within `most_ns`.
    """
    least_ns = max(least_ns, _LEAST_STEPS * step_ns)
    most_ns = max(most_ns, least_ns)
    begin = clock.current().now_ns()
    samples = time_each(invoke, _WARMUP_INVOKES)
    settled: Optional[bool] = None
    while True:
        spent = clock.current().now_ns() - begin
        coarse = step_ns * len(samples) > _COARSE * spent
        window = samples if coarse else samples[-_WINDOW:]
        known = not coarse or spent >= 2 * _HALF_STEPS * step_ns
        if known and spent >= least_ns and len(samples) >= 2 * _WARMUP_INVOKES:
            settled = halves_agree(window, mean if coarse else median)
        if settled or spent >= most_ns:
            break
        # A quarter of the least time per step: the test must not cost more than the warm-up.
        step = int(max(1, least_ns // 4 // max(1, step_ns, samples[-1])))
        samples += time_each(invoke, min(step, _WINDOW * 25))
    return {
        "invokes": len(samples),
        "ns": clock.current().now_ns() - begin,
        "settled": settled,
        "first_ns": samples[0],
        "typical_ns": time_by_steps(invoke, step_ns) if coarse else int(median(window)),
    }


def time_by_steps(invoke: Callable[[], None], step_ns: int) -> int:
    """Return an invoke's mean time in ns, over many steps of a coarse clock; `step_ns` above 0."""
    now_ns, count = clock.current().now_ns, 1
    while True:
        start = now_ns()
        Batch(invoke, count).run()
        took_ns = now_ns() - start
        if took_ns >= _LEAST_STEPS * step_ns:
            return max(1, took_ns // count)
        count *= 2


def halves_agree(samples: List[int], middle_of: Callable[[List[int]], float]) -> bool:
    """Tell whether the first half is at most 10 % slower, 5 % faster than the second."""
    middle = len(samples) // 2
    before, after = middle_of(samples[:middle]), middle_of(samples[middle:])
    return 0.95 * after <= before <= 1.10 * after


def limits_ns(how: Dict[str, Any], warmup_ns: int) -> Tuple[int, int]:
    """Return the least and the most time to spend in timed invokes.

    On a slow device receiving the model, forking and loading take longer; measuring then lasts up
    to three times longer too, so that well over three quarters of its time go into warm-up and
    timing: six times what was spent so far, since answering and ending the process come on top.
    """
    overhead_ns = how["spent_ns"] + clock.current().now_ns() - how["begun_ns"] - warmup_ns
    wanted = max(how["max_ns"] // 2, 6 * overhead_ns - warmup_ns)
    least = min(wanted, 3 * how["max_ns"])
    return least, max(least, how["max_ns"])


def time_blocks(
    batches: List[Batch],
    typical_ns: List[int],
    how: Dict[str, Any],
    limits: Tuple[int, int],
) -> List[Tuple[int, List[int]]]:
    """Return (subject, samples) of every block in the order they ran; `typical_ns` of a batch.

    A sample is the mean of its batch's invokes.
    """
    counts = [int(min(_BLOCK_INVOKES, max(1, how["block_ns"] // max(1, ns)))) for ns in typical_ns]
    blocks: List[Tuple[int, List[int]]] = []
    taken, spent, order = 0, 0, how["seed"] % 2
    ratios: List[float] = []
    while taken < how["max_samples"]:
        if taken >= how["min_samples"]:
            if spent >= limits[1]:
                break
            precise = spread_of_mean(ratios) <= how["target_half_width"] / 3.0
            if len(ratios) >= _CHECK_QUADS and precise and spent >= limits[0]:
                break
        round_blocks = []
        pattern = [order, 1 - order, 1 - order, order] if len(batches) == 2 else [0]
        for subject in pattern:
            batch = batches[subject]
            samples = time_each(batch.run, counts[subject])
            round_blocks.append((subject, [ns // batch.count for ns in samples]))
            spent += sum(samples)
            taken += len(samples) * batch.count if subject == 0 else 0
        blocks += round_blocks
        if len(batches) == 2:
            ratios.append(log_ratio(round_blocks))
        order = 1 - order
    return blocks


def log_ratio(quad: List[Tuple[int, List[int]]]) -> float:
    """Return ln(model / reference) of one A B B A round, from the medians of its blocks."""
    signs = {0: 0.5, 1: -0.5}
    return sum(signs[subject] * math.log(max(1.0, median(ns))) for subject, ns in quad)


def spread_of_mean(values: List[float]) -> float:
    """Return 1.96 standard errors of the mean; infinite for fewer than two values."""
    if len(values) < 2:
        return math.inf
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return 1.96 * math.sqrt(variance / len(values))


def mean(values: List[int]) -> float:
    """Return the mean of a non-empty list; by a coarse clock it is finer than a median."""
    return sum(values) / len(values)


def median(values: List[int]) -> float:
    """Return the median of a non-empty list."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[middle])
    return (ordered[middle - 1] + ordered[middle]) / 2.0
