"""What a run came to, from its figures: target met, missed, or why neither can be said.

Speed is judged by the interval of the latency's ratio (or of milliseconds), accuracy by the paired
interval of the difference on the test images: a loss is within the tolerance only if the whole
interval is, and beyond it only if the whole interval is. In between, the images cannot tell, and
neither "met" nor "missed" would be true. A network that does no better than guessing is compared
with nothing, however fast it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.data.proportions import Paired, enough, wilson
from pipeline.store.result import Comparison

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from device_agents.api import Measurement
    from pipeline.recipe.sections import TargetSection
    from pipeline.store.result import RunOutcome

_NO_MATCH = 0.02
"""A baseline shown to be so much less accurate is no match, whatever the tolerance."""

_WORTH_NAMING = 0.01
"""A baseline that loses so much accuracy in quantisation is weak for that reason."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Winner or baseline, as its file did on the device.

    Attributes:
        right: whether it names each test image rightly, (N,).
        accuracy_validation: of its file, 0..1.
        accuracy_float: of its float network on the test split, 0..1.
    """

    name: str
    right: npt.NDArray[np.bool_]
    accuracy_validation: float
    accuracy_float: float

    @property
    def accuracy(self) -> float:
        """On the test split, 0..1."""
        return float(self.right.mean())


def judge(
    target: TargetSection,
    winner: Contender,
    baseline: Contender | str,
    timed: Measurement,
    *,
    guessing: float,
    cautions: Sequence[str] = (),
) -> Comparison:
    """Return the comparison of winner and baseline: outcome, figures and sentences.

    Args:
        target: what was asked.
        winner: what would be deployed.
        baseline: what it is held against, or a sentence on why there is nothing.
        timed: the winner's file, interleaved with the baseline's if there is one.
        guessing: what the task reaches by guessing on the test split, 0..1.
        cautions: what else a reader ought to know, as sentences.
    """
    other = None if isinstance(baseline, str) else baseline
    paired = None if other is None else Paired.of(winner.right, other.right)
    reference_ms = None if other is None else timed.reference_median_ms
    target_ratio: float | None = target.latency_ratio
    if target.latency_ms is not None:
        target_ratio = target.latency_ms / reference_ms if reference_ms else None
    found = Comparison(
        outcome="no comparison",
        winner_ms=timed.median_ms,
        baseline_ms=reference_ms,
        ratio=None if other is None else timed.ratio,
        ratio_ci95=None if other is None else timed.ratio_ci95,
        target_ratio=target_ratio,
        winner_accuracy_validation=winner.accuracy_validation,
        baseline_accuracy_validation=None if other is None else other.accuracy_validation,
        winner_accuracy_test=winner.accuracy,
        baseline_accuracy_test=None if other is None else other.accuracy,
        test_images=len(winner.right),
        sentence="",
        winner_ci95_ms=timed.ci95_ms,
        target_ms=target.latency_ms,
        accuracy_tolerance=target.accuracy_tolerance,
        accuracy_gain_ci95=None if paired is None else paired.interval(),
        guessing_accuracy=guessing,
        verdict=timed.verdict,
        reasons=timed.reasons,
        cautions=tuple(cautions),
    )
    guessers = [c.name for c in (winner, other) if c is not None and _guesses(c, guessing)]
    if guessers:
        found, ending = replace(found, outcome="learnt nothing"), _learnt_nothing(found, guessers)
    elif isinstance(baseline, str) or paired is None:
        ending = f"no comparison, for {baseline}"
    else:
        weak = _weak(target, baseline, found)
        found = replace(found, outcome=_outcome(found), cautions=(*weak, *cautions))
        ending = _ending(found, paired)
    return replace(found, sentence=f"{_figures(found, other)}: {ending}.")


def _outcome(found: Comparison) -> RunOutcome:
    if not _fast(found):
        return "missed"
    low, high = found.accuracy_gain_ci95 or (-1.0, 1.0)
    if low >= -found.accuracy_tolerance:
        return "met"
    return "missed" if high < -found.accuracy_tolerance else "not told apart"


def _fast(found: Comparison) -> bool:
    """Tell whether the upper end of the latency's interval is within what was asked."""
    if found.target_ms is not None:
        return found.winner_ci95_ms is not None and found.winner_ci95_ms[1] <= found.target_ms
    if found.ratio_ci95 is None or found.target_ratio is None:
        return False
    return found.ratio_ci95[1] <= found.target_ratio


def _guesses(contender: Contender, guessing: float) -> bool:
    """Tell whether an accuracy cannot be told from guessing, by its own interval."""
    bounds = wilson(contender.accuracy, len(contender.right))
    return bounds is None or bounds[0] <= guessing


def _weak(target: TargetSection, baseline: Contender, found: Comparison) -> list[str]:
    """Return why a target may look met: a baseline that is no match for the winner."""
    low, high = found.accuracy_gain_ci95 or (0.0, 0.0)
    if low <= min(target.accuracy_tolerance, _NO_MATCH):
        return []
    lost = baseline.accuracy_float - baseline.accuracy
    where = ""
    if lost > _WORTH_NAMING:
        where = (
            f"; quantisation took {100 * lost:.2f} of them ({baseline.accuracy_float:.2%} before)"
        )
    said = (
        f"The baseline is weak, which may be why the target looks met: {baseline.name} has "
        f"{baseline.accuracy:.2%} test accuracy, {100 * low:.2f} to {100 * high:.2f} points less "
        f"than the winner{where}; train longer (train.epochs) or offer other widths "
        "(target.widths)."
    )
    return [said]


def _figures(found: Comparison, baseline: Contender | None) -> str:
    """Return what was measured, in words."""
    doubt = "" if found.verdict == "valid" else f", {found.verdict}: {'; '.join(found.reasons)}"
    mine, images = found.winner_accuracy_test, f"{found.test_images:,} test images"
    if baseline is None or found.ratio is None:
        low, high = wilson(mine, found.test_images) or (0.0, 1.0)
        return (
            f"The winner takes {found.winner_ms:.4f} ms{doubt and f' ({doubt[2:]})'} at {mine:.2%} "
            f"accuracy on {images} (95 % interval {low:.2%} to {high:.2%})"
        )
    return (
        f"The winner takes {found.ratio:.2f} of the latency of {baseline.name} "
        f"({found.winner_ms:.4f} against {found.baseline_ms:.4f} ms, interleaved{doubt}) "
        f"at {mine:.2%} against {baseline.accuracy:.2%} accuracy on {images} "
        f"({found.gain_in_words})"
    )


def asked_in_words(found: Comparison) -> str:
    """Return what the target asks."""
    tolerance = f"within {100 * found.accuracy_tolerance:g} points"
    if found.target_ms is not None:
        return f"at most {found.target_ms:g} ms, {tolerance}"
    return f"at most {found.target_ratio:g}, {tolerance}"


def _ending(found: Comparison, paired: Paired) -> str:
    if found.outcome != "not told apart":
        return f"target {found.outcome} ({asked_in_words(found)})"
    needed = enough(paired, -found.accuracy_tolerance)
    more = "" if needed is None else f"; about {needed:,} would, if the difference stays"
    return (
        f"fast enough, but whether the target is met ({asked_in_words(found)}) cannot be told from "
        f"{found.test_images:,} images{more}"
    )


def _learnt_nothing(found: Comparison, guessers: Sequence[str]) -> str:
    who = " and ".join(guessers)
    return (
        f"{who} cannot be told from guessing (always naming the commonest class is right for "
        f"{found.guessing_accuracy:.2%}), so nothing is compared and nothing deployed"
    )
