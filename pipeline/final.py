"""The final measurements: every file of winner and baseline, on the device, on the test split.

The test split is touched here and nowhere else.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from device_agents.api import BenchProtocol, Failure, Measurement
from device_agents.errors import DeviceError
from pipeline.deploy.on_device import device_accuracy
from pipeline.export.api import SCHEMES
from pipeline.export.verify import run_artifact
from pipeline.measure import measure
from pipeline.outputs import ModelFile, export, save
from pipeline.result import ArtifactRow, Comparison
from pipeline.train.loop import accuracy

if TYPE_CHECKING:
    from pathlib import Path

    from models.network import Network
    from pipeline.baseline import Baseline
    from pipeline.context import Context
    from pipeline.data.api import Split
    from pipeline.finalists import Finalist

STANDARD = replace(
    BenchProtocol.thorough(), name="standard", max_processes=5, max_s=0.3, target_half_width=0.02
)
"""For the files beside the headline pair: five processes, not extended."""


@dataclass(frozen=True, slots=True)
class Final:
    """Rows of the report's table, and the headline."""

    artifacts: tuple[ArtifactRow, ...]
    comparison: Comparison
    deployed: ModelFile
    runtime_version: str


def final(ctx: Context, winner: Finalist, baseline: Baseline) -> Final:
    """Export, verify and measure everything.

    Raises:
        VerificationError: a file does not compute what its network computes.
        DeviceError: the device went away.
    """
    networks = {"winner": winner.network, "baseline": baseline.network}
    kinds = list(itertools.product(ctx.recipe.export.formats, SCHEMES))
    headline = (ctx.profile.runtime, ctx.recipe.quantize.scheme)
    if headline not in kinds:
        kinds.insert(0, headline)
    files: dict[tuple[str, str, str], ModelFile] = {}
    with ctx.progress.task("export and verify", len(networks) * len(kinds)) as task:
        for (name, network), kind in itertools.product(networks.items(), kinds):
            files[(name, *kind)] = export(ctx, network, name, *kind)
            task.advance(files[(name, *kind)].path.name)
    for name, network in networks.items():
        save(ctx, network, name)
    measured: dict[tuple[str, str, str], Measurement | Failure] = {}
    with ctx.progress.task("measure every file", len(files)) as task:
        for (name, format_, scheme), file in files.items():
            kind = (format_, scheme)
            other = files[("baseline" if name == "winner" else "winner", *kind)]
            protocol = BenchProtocol.thorough() if kind == headline else STANDARD
            measured[(name, *kind)] = measure(
                ctx,
                {"model": file.sha256},
                lambda path=file.path: path,  # type: ignore[misc]
                protocol,
                reference=other.path,
                reference_sha256=other.sha256,
                runtime=file.format,
            )
            task.advance(file.path.name)
    rows = _rows(ctx, networks, files, measured)
    pair = (measured[("winner", *headline)], measured[("baseline", *headline)])
    by_file = {(row.network, row.format, row.scheme): row for row in rows}
    accuracies = tuple(by_file[(name, *headline)].accuracy_device for name in networks)
    comparison = compare(ctx, winner, baseline, pair, accuracies)
    runtime_version = getattr(pair[0], "runtime_version", "")
    return Final(tuple(rows), comparison, files[("winner", *headline)], runtime_version)


def _rows(
    ctx: Context,
    networks: dict[str, Network],
    files: dict[tuple[str, str, str], ModelFile],
    measured: dict[tuple[str, str, str], Measurement | Failure],
) -> list[ArtifactRow]:
    tests = {name: ctx.dataset.at(net.spec.input).test for name, net in networks.items()}
    torch_accuracy = {name: accuracy(net.module, tests[name]) for name, net in networks.items()}
    plain = "tflite" if "tflite" in ctx.recipe.export.formats else ctx.recipe.export.formats[0]
    float_bytes = {name: files[(name, plain, "float32")].bytes for name in networks}
    rows: list[ArtifactRow] = []
    with ctx.progress.task("accuracy on the device", len(files)) as task:
        for key, file in files.items():
            outcome = measured[key]
            on_device = device_accuracy(ctx, file)
            baseline = measured[("baseline", file.format, file.scheme)]
            figures = outcome if isinstance(outcome, Measurement) else None
            reasons = figures.reasons if figures else (getattr(outcome, "reason", ""),)
            rows.append(
                ArtifactRow(
                    network=file.network,
                    format=file.format,
                    scheme=file.scheme,
                    sha256=file.sha256,
                    path=str(file.path),
                    bytes=file.bytes,
                    accuracy_torch=torch_accuracy[file.network],
                    accuracy_host=host_accuracy(file.path, tests[file.network]),
                    accuracy_device=None if isinstance(on_device, Failure) else on_device,
                    max_abs_error=file.verification.max_abs_error,
                    sqnr_db=file.verification.sqnr_db,
                    argmax_agreement=file.verification.argmax_agreement,
                    latency_ms=figures.median_ms if figures else None,
                    ci95_ms=figures.ci95_ms if figures else None,
                    verdict=figures.verdict if figures else None,
                    reasons=tuple(reasons),
                    partitions=figures.partitions if figures else None,
                    compression_rate=float_bytes[file.network] / file.bytes,
                    space_saving_rate=1 - file.bytes / float_bytes[file.network],
                    speed_up_rate=_speed_up(baseline, outcome),
                )
            )
            task.advance(file.path.name)
    return rows


def host_accuracy(path: Path, split: Split) -> float:
    """Return the accuracy (0..1) of a file in its own runtime on the host."""
    return float((run_artifact(path, split.images).argmax(1) == split.labels).mean())


def _speed_up(baseline: Measurement | Failure, file: Measurement | Failure) -> float | None:
    """Return baseline over file: the paired ratio where the two were measured interleaved."""
    if isinstance(file, Failure) or isinstance(baseline, Failure):
        return None
    if baseline is file:
        return 1.0
    return 1 / file.ratio if file.ratio else baseline.median_ms / file.median_ms


def compare(
    ctx: Context,
    winner: Finalist,
    baseline: Baseline,
    pair: tuple[Measurement | Failure, Measurement | Failure],
    accuracies: tuple[float | None, ...],
) -> Comparison:
    """Return the headline: winner against baseline, from one interleaved measurement.

    Raises:
        DeviceError: one of the two could not be measured or run.
    """
    first, second = pair
    if isinstance(first, Failure) or isinstance(second, Failure):
        failure = first if isinstance(first, Failure) else second
        raise DeviceError(f"the final comparison cannot be measured: {failure}")
    if first.ratio is None or first.ratio_ci95 is None or first.reference_median_ms is None:
        raise DeviceError("the final comparison gave no ratio; measure again")
    mine, theirs = accuracies
    if mine is None or theirs is None:
        raise DeviceError("the device could not run the winner or the baseline on the test images")
    target = ctx.recipe.target
    in_ms = target.latency_ms is not None
    limit = target.latency_ms or target.latency_ratio
    fast = (first.ci95_ms if in_ms else first.ratio_ci95)[1] <= limit
    met = fast and theirs - mine <= target.accuracy_tolerance + 1e-9
    doubt = "" if first.verdict == "valid" else f" ({first.verdict}: {'; '.join(first.reasons)})"
    sentence = (
        f"The winner takes {first.ratio:.2f} of the latency of {baseline.name} "
        f"({first.median_ms:.4f} against {first.reference_median_ms:.4f} ms, interleaved{doubt}) "
        f"at {mine:.2%} against {theirs:.2%} test accuracy: target "
        f"{'met' if met else 'missed'} (at most {limit:g}{' ms' if in_ms else ''}, "
        f"within {100 * target.accuracy_tolerance:g} points)."
    )
    return Comparison(
        winner_ms=first.median_ms,
        baseline_ms=first.reference_median_ms,
        ratio=first.ratio,
        ratio_ci95=first.ratio_ci95,
        target_ratio=limit / first.reference_median_ms if in_ms else limit,
        winner_accuracy_validation=winner.accuracy,
        baseline_accuracy_validation=baseline.accuracy,
        winner_accuracy_test=mine,
        baseline_accuracy_test=theirs,
        test_images=len(ctx.dataset.test),
        met=met,
        sentence=sentence,
        winner_ci95_ms=first.ci95_ms,
        target_ms=target.latency_ms,
    )
