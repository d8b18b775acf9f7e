"""Winner against baseline, from what the device made of their files.

What goes wrong with the baseline is not the winner's fault: without a baseline that runs there is
no comparison, but the winner keeps its figures.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from device_agents.api import BenchProtocol, Failure, Measurement
from device_agents.errors import DeviceError
from pipeline.evaluate.baseline import NoBaseline
from pipeline.evaluate.verdict import Contender, judge

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from pipeline.evaluate.baseline import Baseline
    from pipeline.evaluate.finalists import Finalist
    from pipeline.formats.written_file import WrittenFile
    from pipeline.measure.bench import DeviceBench
    from pipeline.measure.form import Form
    from pipeline.recipe.sections import TargetSection
    from pipeline.store.result import Comparison


@dataclass(frozen=True, slots=True)
class Tried:
    """A file with what the device made of it.

    Attributes:
        timed: its latency, interleaved with the other network's file of the same kind.
        right: whether it names each test image rightly, (N,).
        accuracy_float: of its network before export, on the test split, 0..1.
    """

    file: WrittenFile
    timed: Measurement | Failure
    right: npt.NDArray[np.bool_] | Failure
    accuracy_float: float


def beside_headline(protocol: BenchProtocol) -> BenchProtocol:
    """Return the protocol of the files beside the headline pair: five processes, not extended."""
    if protocol.name == "quick":
        return protocol
    return replace(protocol, name="standard", max_processes=5, max_s=0.3, target_half_width=0.02)


def measure_beside(
    bench: DeviceBench, file: WrittenFile, *, beside: WrittenFile | None, protocol: BenchProtocol
) -> Measurement | Failure:
    """Measure a file, in turns with another of the same runtime if one is given."""
    return bench.measure(
        {"model": file.sha256},
        lambda: file.path,
        protocol=protocol,
        beside=beside,
        runtime=file.format,
    )


@dataclass(frozen=True, slots=True)
class Headline:
    """What the comparison is about.

    Attributes:
        form: of the file that would be deployed.
        protocol: of the figures that are shown.
        target: what was asked.
        deployed_name: what the file would be deployed as.
        format_words: why it is in that number format, where the device said so.
        compressed: whether what passes make of the winner is deployed in place of its file.
    """

    form: Form
    protocol: BenchProtocol
    target: TargetSection
    deployed_name: str
    format_words: str = ""
    compressed: bool = False


def compare(
    winner: Finalist,
    baseline: Baseline | NoBaseline,
    *,
    tried: Mapping[str, Mapping[Form, Tried]],
    headline: Headline,
    bench: DeviceBench,
    guessing: float,
) -> tuple[Comparison, Measurement]:
    """Return the comparison and the winner's measurement that it rests on.

    Args:
        winner: with its accuracy on the validation split.
        baseline: likewise, or why there is none.
        tried: the files of ``winner`` and, if there is one, ``baseline``.
        headline: which of them are compared, and how.
        bench: the device.
        guessing: what guessing reaches on the test split, 0..1.

    Raises:
        DeviceError: the winner could not be measured or run.
    """
    form, protocol = headline.form, headline.protocol
    mine = tried["winner"][form]
    timed, missing = mine.timed, ""
    if isinstance(timed, Failure) and "baseline" in tried:
        missing = f"{baseline.name} cannot be measured beside it ({timed.reason})"
        timed = measure_beside(bench, mine.file, beside=None, protocol=protocol)
    if isinstance(timed, Failure):
        raise DeviceError(f"the winner cannot be measured: {timed.reason}")
    if isinstance(mine.right, Failure):
        raise DeviceError(f"the device cannot run the winner on the test images: {mine.right}")
    contender = Contender("the winner", mine.right, winner.accuracy, mine.accuracy_float)
    comparison = judge(
        headline.target,
        contender,
        missing or _held_against(baseline, tried, form, timed),
        timed,
        guessing=guessing,
        cautions=[
            *filter(None, [headline.format_words]),
            *find_faster(bench, tried["winner"], headline, timed),
        ],
    )
    return comparison, timed


def _held_against(
    baseline: Baseline | NoBaseline,
    tried: Mapping[str, Mapping[Form, Tried]],
    form: Form,
    timed: Measurement,
) -> Contender | str:
    """Return the baseline, or why there is nothing to hold the winner against and what to do."""
    if isinstance(baseline, NoBaseline):
        return (
            f"no width of {baseline.name} could be used ({baseline.reason}); choose another "
            "target.baseline or other target.widths, or train it differently ([train])"
        )
    if timed.ratio is None or timed.ratio_ci95 is None or timed.reference_median_ms is None:
        raise DeviceError("the final comparison gave no ratio; measure again")
    theirs = tried["baseline"][form]
    if isinstance(theirs.right, Failure):
        return f"the device cannot run {baseline.name} on the test images ({theirs.right.reason})"
    return Contender(baseline.name, theirs.right, baseline.accuracy, theirs.accuracy_float)


def find_faster(
    bench: DeviceBench, tried: Mapping[Form, Tried], headline: Headline, timed: Measurement
) -> list[str]:
    """Return a caution if another file of the winner is faster than the one to be deployed.

    A file of the same runtime is measured again, in turns with that one; one of another runtime is
    called faster where the two intervals do not touch.
    """
    chosen = tried[headline.form].file
    others = [(t.timed.median_ms, k) for k, t in tried.items() if isinstance(t.timed, Measurement)]
    for median_ms, other in sorted(others):
        if median_ms >= timed.median_ms:
            break
        file = tried[other].file
        figures = _faster(bench, tried[other], chosen, timed, headline.protocol)
        if figures:
            right = tried[other].right
            accuracy = "" if isinstance(right, Failure) else f", {right.mean():.2%} test accuracy"
            version = f"{bench.run_id}-{file.number_format}-{file.format}"
            words = ["edgewright", "deploy", str(file.path), "--device", bench.name]
            command = shlex.join([*words, "--name", headline.deployed_name, "--version", version])
            which = "one of the comparison" if headline.compressed else "one that is deployed"
            said = (
                f"The winner's {file.format} {file.number_format} file is faster on {bench.name} "
                f"than the {chosen.format} {chosen.number_format} {which} "
                f"({figures}{accuracy}); to deploy it: {command}"
            )
            return [said]
    return []


def _faster(
    bench: DeviceBench,
    other: Tried,
    chosen: WrittenFile,
    timed: Measurement,
    protocol: BenchProtocol,
) -> str:
    """Return the figures that show another file to be faster than the chosen one, if any do."""
    if other.file.format == chosen.format:
        again = measure_beside(bench, other.file, beside=chosen, protocol=beside_headline(protocol))
        if isinstance(again, Failure) or again.ratio_ci95 is None or again.ratio_ci95[1] >= 1:
            return ""
        low, high = again.ratio_ci95
        return (
            f"{again.median_ms:.4f} against {again.reference_median_ms:.4f} ms, in turns: "
            f"{again.ratio:.2f} of its latency, 95 % interval {low:.2f} to {high:.2f}"
        )
    if isinstance(other.timed, Failure) or other.timed.ci95_ms[1] >= timed.ci95_ms[0]:
        return ""
    return (
        f"{other.timed.median_ms:.4f} ms, 95 % interval {other.timed.ci95_ms[0]:.4f} to "
        f"{other.timed.ci95_ms[1]:.4f}, against {timed.median_ms:.4f} ms, "
        f"{timed.ci95_ms[0]:.4f} to {timed.ci95_ms[1]:.4f}"
    )
