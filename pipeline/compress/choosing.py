"""Which passes a model is put through where nobody says: what is tried, and what is taken of it.

Nothing is measured or written here: chains are proposed, and one is chosen by what others found
out about them. Number formats come first, since one of them costs a measurement each and pruning
costs dozens; what a format alone reaches is not pruned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.plural import number_of
from models.number_format import DYNAMIC8, FLOAT16, STATIC8, NumberFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

USUAL_DROP = 1.0
"""Points that a number format may lose without pruning being tried too, where nobody says."""

_ALIKE = 0.02
"""A difference of milliseconds below this is no reason to choose a number format."""

PRUNING_CHAINS = 2
"""That are proposed at most: in real numbers, and with the fastest number format."""

PRUNE = "prune"
FINETUNE = "finetune"
QUANTIZE = "quantize"

_WHY = {
    FLOAT16: "weights of half the size, read as real numbers",
    DYNAMIC8: "weights of a quarter of the size, activations rounded as they come",
    STATIC8: "integer arithmetic throughout",
}
FORMATS = tuple(_WHY)
"""Number formats that are tried."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Passes that are tried, as a command line spells them, and why; none: as it came."""

    words: tuple[str, ...]
    why: str

    @property
    def name(self) -> str:
        """What it is called."""
        return " ".join(self.words) or "as it came"

    @property
    def prunes(self) -> bool:
        """Whether it cuts channels."""
        return PRUNE in self.words

    @property
    def number_format(self) -> NumberFormat | None:
        """What its last pass brings the model into; None where that is none of a number format."""
        name, _, number_format = (self.words[-1] if self.words else "").partition(":")
        return NumberFormat.parse(number_format) if name == QUANTIZE else None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A chain that is not tried, and why not."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What the file of a chain takes and costs.

    Attributes:
        latency_ms: median on the device.
        ci95_ms: its 95 % interval.
        verdict: of the measurement.
        bytes: size of the file.
        lost_points: hundredths of the task's score, or of agreement, that it loses.
        score: by the task; None where there are no truths.
    """

    latency_ms: float
    ci95_ms: tuple[float, float]
    verdict: str
    bytes: int
    lost_points: float
    score: float | None = None

    @property
    def cost(self) -> float:
        """Points that count: what a file gains on a few hundred samples is chance, and 0 here."""
        return max(self.lost_points, 0.0)


@dataclass(frozen=True, slots=True)
class Tried:
    """A chain and what came of it.

    Attributes:
        figures: None where there is no file, or none that the device runs.
        refused: why it is not to be had whatever is asked; empty if it is.
    """

    chain: Chain
    figures: Figures | None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted.

    Attributes:
        target_ms: that the file may take; None for as fast as can be.
        max_drop: points that it may lose; None to ask nothing.
    """

    target_ms: float | None
    max_drop: float | None

    @property
    def allowed(self) -> float:
        """Points that are little enough to look no further."""
        return USUAL_DROP if self.max_drop is None else self.max_drop

    def meets(self, figures: Figures) -> bool:
        """Tell whether a file is fast enough."""
        return self.target_ms is None or figures.latency_ms <= self.target_ms

    def refusal(self, tried: Tried) -> str:
        """Return why a chain cannot be taken; empty if it can."""
        if tried.refused or tried.figures is None:
            return tried.refused or "it was not measured"
        most = self.allowed if self.target_ms is None else self.max_drop
        lost = tried.figures.lost_points
        if math.isnan(lost):
            return "what it loses is no number"
        if most is not None and lost > most:
            return f"it loses {lost:.2f} points, more than {most:g}"
        if not self.meets(tried.figures):
            return f"it takes {tried.figures.latency_ms:.4g} ms, more than {self.target_ms:.4g}"
        return ""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is taken.

    Attributes:
        taken: None where no chain reaches what is wanted.
        why: a sentence: why that one, or which came closest.
    """

    taken: Tried | None
    why: str


def propose_formats(
    held: Sequence[NumberFormat], *, calibrates: bool
) -> tuple[tuple[Chain, ...], tuple[Skipped, ...]]:
    """Return the chains without pruning, the model as it came first, and those left out.

    Args:
        held: number formats that the file format holds.
        calibrates: whether there are samples to calibrate on.
    """
    chains, skipped = [Chain((), "what all others are held against")], []
    for one, why in _WHY.items():
        if one not in held:
            skipped.append(Skipped(f"{QUANTIZE}:{one}", "the file format does not hold it"))
        elif one.is_static and not calibrates:
            skipped.append(
                Skipped(f"{QUANTIZE}:{one}", "it needs samples to calibrate on; give --data")
            )
        else:
            chains.append(Chain((f"{QUANTIZE}:{one}",), why))
    return tuple(chains), tuple(skipped)


def propose_pruning(
    tried: Sequence[Tried], goal: Goal, *, trains: bool
) -> tuple[tuple[Chain, ...], tuple[Skipped, ...]]:
    """Return the chains that prune, by what came of those that do not, and those left out.

    Args:
        tried: of `propose_formats`, in their order.
        goal: what is wanted.
        trains: whether a pruned network can be trained.
    """
    if goal.target_ms is None:
        return (), (Skipped(PRUNE, "without --target-ms nothing says how far to cut"),)
    whole = tried[0].figures
    enough = [
        one for one in tried if not goal.refusal(one) and one.figures and _lost(one) <= goal.allowed
    ]
    if enough:
        best = choose(enough, goal).taken or enough[0]
        why = f"{best.chain.name} alone meets the target and loses at most {goal.allowed:g} points"
        return (), (Skipped(PRUNE, why),)
    training = (FINETUNE,) if trains else ()
    chains = [Chain((PRUNE, *training), "real numbers, cut to the target")]
    fast = fastest_format(tried, goal)
    if fast is None or fast.figures is None or whole is None:
        none = Skipped(f"{PRUNE} with a number format", "none shows to be faster than float32 here")
        return tuple(chains), (none,)
    (words,) = fast.chain.words
    times = whole.latency_ms / fast.figures.latency_ms
    if goal.meets(fast.figures):
        name = f"{PRUNE} {words}"
        why = "that number format alone meets the target, and pruning would add to what it loses"
        return tuple(chains), (Skipped(name, why),)
    why = f"{words} makes it {times:.2f} times as fast here, so that less has to be cut"
    return (*chains, Chain((PRUNE, *training, words), why)), ()


def fastest_format(tried: Sequence[Tried], goal: Goal) -> Tried | None:
    """Return the number format that is surely faster than the model as it came, and most so.

    One that loses more than may be lost is none.
    """
    whole = tried[0].figures
    found = [
        (one.figures.latency_ms, one)
        for one in tried[1:]
        if one.figures is not None and not one.refused and not one.chain.prunes
        if whole is not None and one.figures.ci95_ms[1] < (1 - _ALIKE) * whole.latency_ms
        if goal.max_drop is None or one.figures.lost_points <= goal.max_drop
    ]
    return min(found, key=lambda pair: pair[0])[1] if found else None


def find_front(tried: Sequence[Tried]) -> tuple[Tried, ...]:
    """Return those that no other dominates, in their order.

    One dominates another if it takes no more milliseconds, loses no more points, is no larger, and
    is better in one of the three.
    """
    there = [(one, _axes(one)) for one in tried if one.figures is not None and not one.refused]
    return tuple(
        one for one, axes in there if not any(_dominates(other, axes) for _, other in there)
    )


def choose(tried: Sequence[Tried], goal: Goal) -> Choice:
    """Return what is taken: of what meets the target the one that loses least, then the fastest.

    Without a target the fastest that loses no more than is allowed; of those within 2 % of it,
    which a measurement hardly tells apart, the one that loses least, then the smallest.
    """
    able = [one for one in tried if not goal.refusal(one)]
    if not able:
        return Choice(None, _closest(tried, goal))
    if goal.target_ms is None:
        return _choose_fastest(able)
    best = min(able, key=lambda one: (_axes(one)[1], _axes(one)[0]))
    takes = _takes(best)
    lost = _axes(best)[1]
    if len(able) == 1:
        return Choice(best, f"{takes}: the only one that can be taken")
    same = [one for one in able if _axes(one)[1] == lost]
    least = "the fastest of those that lose least" if len(same) > 1 else "it loses least"
    return Choice(best, f"{takes}: of {len(able)} chains that meet the target {least}")


def _choose_fastest(able: Sequence[Tried]) -> Choice:
    least_ms = min(_axes(one)[0] for one in able)
    alike = [one for one in able if (1 - _ALIKE) * _axes(one)[0] <= least_ms]
    best = min(alike, key=lambda one: _axes(one)[1:])
    among = f"of {number_of(len(able), 'chain')} that lose no more than is allowed"
    if len(alike) == 1:
        return Choice(best, f"{_takes(best)}: the fastest {among}")
    return Choice(
        best,
        f"{_takes(best)}: {among} {len(alike)} are as fast within {_ALIKE:.0%}, and it loses least "
        "of these, or is the smallest that loses so little",
    )


def _takes(one: Tried) -> str:
    latency_ms, lost, _ = _axes(one)
    return f"it takes {latency_ms:.4g} ms and loses {lost:.2f} points"


def _closest(tried: Sequence[Tried], goal: Goal) -> str:
    """Say which chain came closest to the target, of those that lose no more than may be lost."""
    there = [one for one in tried if one.figures is not None and not one.refused]
    kept = [one for one in there if goal.max_drop is None or _lost(one) <= goal.max_drop]
    if not there:
        return "none of them gave a file that the device runs"
    if goal.target_ms is None or not kept:
        best = min(there, key=_lost)
        return f"the one that loses least is {_told(best)}"
    best = min(kept, key=lambda one: _axes(one)[0])
    return f"the closest is {_told(best)}"


def _told(one: Tried) -> str:
    latency_ms, _, _ = _axes(one)
    return f"{one.chain.name} with {latency_ms:.4g} ms, which loses {_lost(one):.2f} points"


def _lost(one: Tried) -> float:
    lost = math.inf if one.figures is None else one.figures.lost_points
    return math.inf if math.isnan(lost) else lost


def _axes(one: Tried) -> tuple[float, float, float]:
    """Return milliseconds, points and bytes, all to be small; infinite where there are none."""
    if one.figures is None:
        return math.inf, math.inf, math.inf
    return one.figures.latency_ms, max(_lost(one), 0.0), float(one.figures.bytes)


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
