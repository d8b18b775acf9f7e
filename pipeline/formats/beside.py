"""What two files of one network give of the same inputs, output by output, and the verdict.

Nothing is known here of images or classes: outputs are tensors. Real ones are compared by the
signal-to-quantisation-noise ratio (SQNR), the cosine of the angle between them and the largest
difference; integers and truth values by how many are equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import VerificationError
from pipeline.formats.decibels import NOTHING, to_decibels
from pipeline.formats.pairing import pair_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.formats.api import Numbers
    from pipeline.formats.ends import Array, Arrays, FileEnds
    from pipeline.formats.pairing import Pair, Pairing

FLOAT_SHARE = 1e-3
"""What two files of real numbers may differ by, as a share of an output's range. Right conversions
stay below 1e-5; a wrong axis, constant or padding is beyond it."""

HALF_SHARE = 2e-2
"""The same where one of them computes with half floats."""

INTEGER_DB = 10.0
"""What an int8 file must reach: see `pipeline.formats.limits`."""

EQUAL_SHARE = 0.99
"""Of integers and truth values: near ties turn over where numbers are rounded otherwise."""

INT8_EQUAL_SHARE = 0.5
"""The same where int8 is computed with: class numbers of close classes turn over by right
quantisation, and a file that is wrong names one of many classes by chance only."""

_BEST_DB = 200.0

_MUCH = 10.0
"""Power of the error by which another output must be nearer than the one in its place."""


@dataclass(frozen=True, slots=True)
class OutputFigures:
    """How one output compares.

    Attributes:
        name: in the first file.
        other: in the second.
        sqnr_db: 10 log10 of the power of the first's values over that of the difference; infinite
            if they are equal; None of integers.
        typical_sqnr_db: the same of the median sample.
        cosine: of the angle between both, 1 if they are equal; None of integers.
        max_abs_error: the largest difference.
        value_range: largest less smallest value of the first; its size where all are one.
        equal_share: of values that are equal, 0..1; of integers.
    """

    name: str
    other: str
    sqnr_db: float | None
    typical_sqnr_db: float | None
    cosine: float | None
    max_abs_error: float
    value_range: float
    equal_share: float | None = None

    @property
    def error_share(self) -> float:
        """The largest difference as a share of the range; 0 of equal outputs."""
        if self.max_abs_error <= NOTHING:
            return 0.0
        return self.max_abs_error / self.value_range if self.value_range > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Beside:
    """How the outputs of two files compare.

    Attributes:
        samples: how many were compared.
        outputs: in the order of the first file.
        inputs_moved: ways in which inputs were laid out for the second file, such as
            ``channels last``; empty where they are alike.
    """

    samples: int
    outputs: tuple[OutputFigures, ...]
    inputs_moved: tuple[str, ...] = ()


def compare_files(
    ends: tuple[FileEnds, FileEnds],
    inputs: Arrays,
    first: Callable[[Arrays], Arrays],
    second: Callable[[Arrays], Arrays],
) -> tuple[Beside, dict[str, Array], dict[str, Array]]:
    """Run two files on the same inputs and compare their outputs.

    Args:
        ends: of both.
        inputs: by their names in the first file, (N, *shape) each.
        first: runs the first file.
        second: runs the second, on inputs by its own names.

    Returns:
        How they compare; the outputs of the first, and those of the second under the names and in
        the layout of the first.

    Raises:
        ConfigError: their ends cannot be the same.
        VerificationError: their outputs have shapes that cannot be the same.
    """
    given = first(inputs)
    tried, refused = [], []
    for way in pair_files(*ends):
        try:
            tried.append(_tried(way, given, inputs, second))
        except VerificationError as error:  # what a file leaves open fits more than it can be
            refused.append(error)
    if not tried:
        raise refused[0]
    return max(tried, key=lambda result: _agreement(result[0]))


def _tried(
    way: Pairing, given: Arrays, inputs: Arrays, second: Callable[[Arrays], Arrays]
) -> tuple[Beside, dict[str, Array], dict[str, Array]]:
    got = second(way.move(inputs))
    pairs = _matched(way.outputs, given, got)
    back = {pair.first: _back(pair, got[pair.second], given[pair.first]) for pair in pairs}
    figures = tuple(
        compare_output(pair.first, pair.second, given[pair.first], back[pair.first])
        for pair in pairs
    )
    ways = sorted({pair.way for pair in way.inputs} - {"as it is"})
    count = len(next(iter(inputs.values()))) if inputs else 1
    return Beside(count, figures, tuple(ways)), dict(given), back


def _back(pair: Pair, values: Array, like: Array) -> Array:
    """Lay an output of the second file out as the first's."""
    if values.shape == like.shape and pair.way == "as it is":
        return values
    if pair.way == "reshaped":
        return values.reshape(like.shape) if values.size == like.size else values
    moved = pair.move(like)
    if moved.shape != values.shape:
        return values
    places = np.arange(like.size).reshape(like.shape)
    back = np.empty(like.shape, values.dtype)
    back.reshape(-1)[pair.move(places).reshape(-1)] = values.reshape(-1)
    return back


def _matched(pairs: Sequence[Pair], given: Arrays, got: Arrays) -> list[Pair]:
    """Give each output of the first file the one that agrees best, of those not told apart.

    Outputs of one shape and of other names in both files have no order that is surely the same;
    it is taken unless another is much nearer, for rounding makes outputs alike that are not.
    """
    found = list(pairs)
    unnamed = [place for place, pair in enumerate(pairs) if pair.first != pair.second]
    for place in unnamed:
        pair = found[place]
        alike = [p for p in unnamed if p >= place and found[p].shape == pair.shape]
        error = {
            p: _error(given[pair.first], _back(found[p], got[found[p].second], given[pair.first]))
            for p in alike
        }
        best = min(alike, key=lambda p: error[p])
        if error[best] > error[place] / _MUCH:
            best = place
        ours, theirs = found[place], found[best]
        found[place] = type(ours)(ours.first, theirs.second, theirs.shape, ours.way)
        found[best] = type(ours)(theirs.first, ours.second, ours.shape, theirs.way)
    return found


def _error(first: Array, second: Array) -> float:
    if first.shape != second.shape:
        return math.inf
    difference = np.subtract(second, first, dtype=np.float64)
    return float(np.nan_to_num(np.square(difference), nan=math.inf).sum())


def _agreement(found: Beside) -> float:
    """Return how well outputs agree, for a choice between ways: decibels, and shares of equals."""
    total = 0.0
    for figures in found.outputs:
        if figures.equal_share is not None:
            total += figures.equal_share
        elif figures.sqnr_db is not None and not math.isnan(figures.sqnr_db):
            total += min(figures.sqnr_db, _BEST_DB)
    return total


def compare_output(name: str, other: str, first: Array, second: Array) -> OutputFigures:
    """Return the figures of one output, (N, …) of both files.

    Raises:
        VerificationError: they have other shapes, or no finite number.
    """
    if first.shape != second.shape:
        raise VerificationError(
            f"the output {name!r} has the shape {first.shape[1:]} in one file, and {other!r} has "
            f"{second.shape[1:]} in the other; they are not of one network"
        )
    a, b = (values.astype(np.float64) for values in (first, second))
    finite = a
    if not np.isfinite(a).all():
        # What generated inputs make infinite, or no number, must be so in both, and says no more.
        endless = ((a == b) | (np.isnan(a) & np.isnan(b))) & ~np.isfinite(a)
        if endless.all():
            raise VerificationError(
                f"the output {name!r} holds no finite number in either file on these inputs, so "
                "nothing of it can be compared; give inputs that the model is made for (--data)"
            )
        a, b = (np.where(endless, 0.0, values) for values in (a, b))
        finite = a[np.isfinite(a)]
    error = b - a
    largest = float(np.maximum(error.max(initial=0.0), -error.min(initial=0.0)))
    spread = float(np.ptp(finite) or np.abs(finite).max()) if finite.size else 0.0
    if first.dtype.kind != "f" or second.dtype.kind != "f":
        share = float((a == b).mean()) if a.size else 1.0
        return OutputFigures(name, other, None, None, None, largest, spread, share)
    with np.errstate(invalid="ignore"):  # of what overflowed in one file: 0 times it, inf - inf
        noise, signal = _power(error), _power(a)
        each = [to_decibels(s, n) for s, n in zip(signal.tolist(), noise.tolist(), strict=True)]
        length = math.sqrt(float(signal.sum()) * float(_power(b).sum()))
        product = float(np.einsum("i,i->", a.reshape(-1), b.reshape(-1)))
        typical = float(np.median(each)) if each else math.inf
    return OutputFigures(
        name,
        other,
        sqnr_db=to_decibels(float(signal.sum()), float(noise.sum())),
        typical_sqnr_db=typical,
        cosine=product / length if length else float(largest == 0),
        max_abs_error=largest,
        value_range=spread,
    )


def _power(values: Array) -> Array:
    """Return the sum of squares of each sample, (N,), without a copy of them all."""
    rows = values.reshape(len(values), -1)
    return np.asarray(np.einsum("ij,ij->i", rows, rows))


def check_files(
    found: Beside, numbers: Sequence[Numbers], names: tuple[str, str], *, generated: bool = False
) -> None:
    """Hold two files against what their numbers allow; the coarser of both counts.

    Comparisons are written so that NaN, which compares false with everything, fails.

    Args:
        found: of both, on the same inputs.
        numbers: of either.
        names: of either.
        generated: whether the inputs were; the sentence then says that int8 may fail them. Noise
            lies outside what codes were calibrated for, and most classifiers have no answer to it.

    Raises:
        VerificationError: an output differs by more; names the first that does.
    """
    for output in found.outputs:
        said = _missed(output, numbers)
        if said:
            advice = (
                "; on generated inputs, which int8 may fail: --data compares on real ones"
                if generated and "integers" in numbers
                else ""
            )
            raise VerificationError(
                f"{names[1]} does not compute what {names[0]} computes: the output "
                f"{output.name!r} {said}{advice}"
            )


def _missed(output: OutputFigures, numbers: Sequence[Numbers]) -> str:
    if output.equal_share is not None:
        # Of two values chance alone makes half of them equal.
        many = output.value_range > 1
        share = INT8_EQUAL_SHARE if "integers" in numbers and many else EQUAL_SHARE
        if output.equal_share >= share:
            return ""
        return f"is equal in {output.equal_share:.1%} of its values (at least {share:.0%})"
    if "integers" in numbers:
        typical = output.typical_sqnr_db
        if typical is not None and typical >= INTEGER_DB:
            return ""
        return f"reaches {typical:.1f} dB SQNR in the median sample (at least {INTEGER_DB:g})"
    limit = HALF_SHARE if "halves" in numbers else FLOAT_SHARE
    if output.error_share <= limit:
        return ""
    return (
        f"differs by up to {output.max_abs_error:.3g}, {output.error_share:.2g} of its range "
        f"(at most {limit:g})"
    )
