"""The ranges of a network's tensors that scales are made of: all that was seen, or less of it.

The least and the largest value are found first. To cut them, the values between are counted in
bins, which takes a second pass over the samples and bounded memory whatever their number.
"""

from __future__ import annotations

import math
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from models.codes import QParams, QuantizationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from models.graph import Graph

    Counts = npt.NDArray[np.float64]

RangeRule = Literal["minmax", "percentile", "mse", "kl"]
Range = tuple[float, float]

_BINS = 2048
"""Eight for each of 256 codes: as fine as a cut can matter."""

_SHRINKS = np.linspace(1.0, 0.2, 81)
"""Shares of an end of a range that are tried for the least squared error, steps of a hundredth."""

_UNSAID = 1e-4

_KL_STEP = 16
"""Bins between the thresholds that are tried: a hundredth of the largest value."""

_UNSEEN = 16.0
"""A score that is so much below the largest has a share of exp(-16), which is no code."""

_BEYOND = 1e8
"""Numbers this large come from masks, and leave no codes for what else is in a tensor."""


class Ranges:
    """Observes the least and the largest value of every tensor of real numbers.

    Of the scores of a softmax, only as far down as has a share of it: where masks hide scores by
    adding a large negative number, the others would have one code.
    """

    def __init__(self, graph: Graph) -> None:
        self.found: dict[str, tuple[float, float]] = {}
        self._alone = Lock()
        self._graph = graph
        self._scores = _scores_of(graph)
        self._constants = {tensor.name for tensor in graph.constants}

    def observe(self, name: str, tensor: Any) -> None:
        """See a tensor of a batch. Raises QuantizationError for one that is not finite."""
        if not tensor.is_floating_point() or not tensor.numel():
            return
        low, high = (float(value) for value in tensor.aminmax())
        finite = math.isfinite(low) and math.isfinite(high)
        if not finite and (name not in self._constants or math.isnan(low + high)):
            raise QuantizationError(
                f"tensor {name!r} is not finite on the calibration images: check images and weights"
            )
        if name in self._scores:
            largest = tensor.amax(self._scores[name])
            if (seen := largest[largest > -_BEYOND]).numel():
                low = max(low, float(seen.min()) - _UNSEEN)
        with self._alone:  # batches are run side by side
            if name in self.found:
                low, high = min(low, self.found[name][0]), max(high, self.found[name][1])
            self.found[name] = (low, high)

    def beyond(self) -> frozenset[str]:
        """Return the ops that read or give what no code can hold beside other values."""
        far = {name for name, limits in self.found.items() if max(map(abs, limits)) > _BEYOND}
        return frozenset(
            op.name for op in self._graph.ops if not far.isdisjoint((*op.inputs, op.name))
        )


def _scores_of(graph: Graph) -> dict[str, int]:
    """Return what softmaxes alone read -> the axis, of torch's tensor, that they are over."""
    found: dict[str, int] = {}
    others = set(graph.outputs)
    for op in graph.ops:
        if op.kind != "softmax":
            others.update(op.inputs)
            continue
        axis = op.attributes.axis
        # Maps are observed with their channels first.
        place = (0, 2, 3, 1)[axis] if len(op.in_shapes[0]) == 4 else axis
        if found.setdefault(op.inputs[0], place) != place:
            others.add(op.inputs[0])
    return {name: place for name, place in found.items() if name not in others}


class Histograms:
    """Counts the values of every tensor whose range may be cut, in bins over what was seen.

    Results of the network keep their range: nothing after them gains from finer codes, and where
    two scores are cut to one the largest is not known any more. So do constants, which are exact.
    """

    def __init__(self, graph: Graph, found: dict[str, Range]) -> None:
        from pipeline.compress.simulated import find_results

        self.counts: dict[str, Counts] = {}
        self._alone = Lock()
        whole = {*graph.outputs, *find_results(graph), *(one.name for one in graph.constants)}
        self._found = {
            name: bounds
            for name, bounds in found.items()
            if name not in whole and math.isfinite(bounds[1] - bounds[0]) and bounds[0] < bounds[1]
        }

    def observe(self, name: str, tensor: Any) -> None:
        """Count a tensor of a batch; values below its range, which masks hide, are not counted."""
        if name not in self._found:
            return
        import torch

        low, high = self._found[name]
        counts = torch.histc(tensor.float(), _BINS, low, high).numpy().astype(np.float64)
        with self._alone:  # whole numbers: the order of batches does not show
            self.counts[name] = self.counts.get(name, 0.0) + counts

    def ranges(self, rule: RangeRule, percentile: float) -> Iterator[tuple[str, Range]]:
        """Yield the range of each tensor by a rule; never wider than what was seen."""
        for name, counts in self.counts.items():
            yield name, choose_range(self._found[name], counts, rule, percentile)


def choose_range(bounds: Range, counts: Counts, rule: RangeRule, percentile: float) -> Range:
    """Return the range for int8 codes of values that were counted.

    Args:
        bounds: the least and the largest value.
        counts: (bins,), of values between, in bins of one width.
        rule: ``minmax`` all; ``percentile`` what is left with as much cut at either end;
            ``mse`` the least mean squared error of rounding and cutting; ``kl`` the least
            divergence of what codes can say from what there was (Migacz 2017).
        percentile: share that is left, in percent, of ``percentile``.
    """
    if rule == "minmax" or not counts.sum():
        return bounds
    if rule == "percentile":
        return _percentile(bounds, counts, percentile)
    return _least_error(bounds, counts) if rule == "mse" else _least_divergence(bounds, counts)


def _percentile(bounds: Range, counts: Counts, percentile: float) -> Range:
    edges = np.linspace(*bounds, len(counts) + 1)
    cut = counts.sum() * (1 - percentile / 100) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])
    low = edges[np.searchsorted(below, cut, side="right")]
    high = edges[len(counts) - np.searchsorted(above, cut, side="right")]
    return (float(low), float(high)) if low < high else bounds


def rounding_error(bounds: Range, values: Counts, counts: Counts) -> float:
    """Return the mean squared error of values as codes for a range."""
    params = QParams.of_range(*bounds)
    least, most = params.limits
    codes = np.clip(np.rint(values / params.scale) + params.zero_point, least, most)
    wrong = (codes - params.zero_point) * params.scale - values
    return float(np.square(wrong) @ counts / counts.sum())


def _least_error(bounds: Range, counts: Counts) -> Range:
    """Shrink one end after the other, twice; the whole range is among those tried."""
    edges = np.linspace(*bounds, len(counts) + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    best = bounds
    for _ in range(2):
        for end in (1, 0):
            if best[end] == 0:
                continue
            tried = [
                (best[0], bounds[1] * share) if end else (bounds[0] * share, best[1])
                for share in _SHRINKS.tolist()
            ]
            fitting = [one for one in (best, *tried) if one[0] < one[1]]
            best = min(fitting, key=lambda one: rounding_error(one, middles, counts))
    return best


def _least_divergence(bounds: Range, counts: Counts) -> Range:
    """Return the range whose codes say most, by the calibration of TensorRT (Migacz 2017).

    There it is the threshold of magnitudes, which have 128 codes; values of one sign have all 256
    here. The bin of zeros counts as much as the next, as in NVIDIA's own calibrator: what is
    exactly 0, as behind a ReLU, costs no code.
    """
    low, high = bounds
    reach = max(-low, high)
    levels = 128 if low < 0 < high else 256
    edges, below = np.linspace(low, high, len(counts) + 1), np.r_[0.0, np.cumsum(counts)]
    ends = np.linspace(0.0, reach, _BINS + 1)
    # Bins of magnitudes do not fall on those of values: counts between are taken from the line.
    magnitudes: Counts = np.diff(np.interp(ends, edges, below) - np.interp(-ends, edges, below))
    magnitudes[0] = magnitudes[1]
    divergences = {
        stop: _divergence(magnitudes, stop, levels) for stop in range(levels, _BINS + 1, _KL_STEP)
    }
    best = min(divergences, key=lambda stop: (divergences[stop], -stop))
    threshold = reach * best / _BINS
    return max(low, -threshold), min(high, threshold)


def _divergence(counts: Counts, stop: int, levels: int) -> float:
    """Return KL(p‖q) of the first `stop` bins, the rest put into the last, and their codes."""
    kept = counts[:stop]
    p = kept.copy()
    p[-1] += counts[stop:].sum()
    if not p.sum() or not kept.sum():
        return math.inf
    codes = np.arange(stop) * levels // stop
    filled = kept > 0
    sums, sizes = np.bincount(codes, kept, levels), np.bincount(codes, filled, levels)
    q = np.where(filled, (sums / np.maximum(sizes, 1))[codes], 0.0)
    p, q = p / p.sum(), q / q.sum()
    there = p > 0
    # Where nothing but what was cut off is, codes say nothing: not never, as MXNet smooths it.
    q = np.where(there & (q == 0), _UNSAID, q)
    q /= q.sum()
    return float((p[there] * np.log(p[there] / q[there])).sum())
