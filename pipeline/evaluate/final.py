"""The final measurements: every file of winner and baseline, on the device, on the test split.

The test split is touched here and nowhere else.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.api import Failure, Measurement
from device_agents.errors import ConfigError, VerificationError
from models.number_format import NAMED
from pipeline.evaluate.baseline import Baseline
from pipeline.evaluate.comparison import Tried, beside_headline, compare, measure_beside
from pipeline.evaluate.files import export, save
from pipeline.formats.verify import run_artifact
from pipeline.measure.latency import shown_protocol
from pipeline.measure.outputs import device_classes
from pipeline.store.result import ArtifactRow, FailedFile
from pipeline.train.loop import accuracy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from models.network import Network
    from pipeline.data.api import Split
    from pipeline.evaluate.baseline import NoBaseline
    from pipeline.evaluate.comparison import Kind
    from pipeline.evaluate.finalists import Finalist
    from pipeline.formats.model_file import ModelFile
    from pipeline.measure.context import Context
    from pipeline.store.result import Comparison


@dataclass(frozen=True, slots=True)
class Final:
    """Rows of the report's table, and the headline."""

    artifacts: tuple[ArtifactRow, ...]
    comparison: Comparison
    deployed: ModelFile
    runtime_version: str
    failed: tuple[FailedFile, ...]


def final(ctx: Context, winner: Finalist, baseline: Baseline | NoBaseline) -> Final:
    """Export, verify and measure everything; a file beside the headline pair may fail.

    Raises:
        VerificationError: a file of the headline pair does not compute what its network computes.
        DeviceError: the device went away, or cannot run the winner.
    """
    networks = {"winner": winner.network}
    if isinstance(baseline, Baseline):
        networks["baseline"] = baseline.network
    kinds = list(itertools.product(ctx.recipe.export.formats, NAMED))
    headline = (ctx.profile.runtime, ctx.recipe.quantize.scheme)
    if headline not in kinds:
        kinds.insert(0, headline)
    files, failed = _export_all(ctx, networks, kinds, headline)
    for name, network in networks.items():
        save(ctx, network, name)
    tried = _try_all(ctx, networks, files, headline)
    comparison, timed = compare(ctx, winner, baseline, tried, headline)
    deployed = files["winner"][headline]
    rows = tuple(_rows(ctx, tried))
    return Final(rows, comparison, deployed, timed.runtime_version, tuple(failed))


def _export_all(
    ctx: Context, networks: Mapping[str, Network], kinds: Sequence[Kind], headline: Kind
) -> tuple[dict[str, dict[Kind, ModelFile]], list[FailedFile]]:
    """Return the files of each network by kind, and those that failed."""
    files: dict[str, dict[Kind, ModelFile]] = {name: {} for name in networks}
    failed: list[FailedFile] = []
    with ctx.progress.task("export and verify", len(networks) * len(kinds)) as task:
        for (name, network), kind in itertools.product(networks.items(), kinds):
            try:
                files[name][kind] = export(ctx, network, name, *kind)
            except (ConfigError, VerificationError) as error:
                if kind == headline:
                    raise
                failed.append(FailedFile(name, *kind, str(error)))
                ctx.progress.say(f"left out, {failed[-1]}")
            task.advance(f"{name} {kind[0]} {kind[1]}")
    return files, failed


def _try_all(
    ctx: Context,
    networks: Mapping[str, Network],
    files: Mapping[str, Mapping[Kind, ModelFile]],
    headline: Kind,
) -> dict[str, dict[Kind, Tried]]:
    """Measure every file beside the other network's of its kind, then run it on the test split."""
    timed: dict[str, Measurement | Failure] = {}
    shown = shown_protocol(ctx)
    count = sum(map(len, files.values()))
    with ctx.progress.task("measure every file", count) as task:
        for name, of_name in files.items():
            others = files.get("baseline" if name == "winner" else "winner", {})
            for kind, file in of_name.items():
                protocol = shown if kind == headline else beside_headline(shown)
                timed[file.sha256] = measure_beside(ctx, file, others.get(kind), protocol)
                task.advance(file.path.name)
    tried: dict[str, dict[Kind, Tried]] = {name: {} for name in files}
    with ctx.progress.task("accuracy on the device", count) as task:
        for name, network in networks.items():
            test = ctx.dataset.at(network.spec.input).test
            plain = accuracy(network.module, test)
            for kind, file in files[name].items():
                named = device_classes(ctx, file)
                right = named if isinstance(named, Failure) else named == test.labels
                tried[name][kind] = Tried(file, timed[file.sha256], right, plain)
                task.advance(file.path.name)
    return tried


def _rows(ctx: Context, tried: Mapping[str, Mapping[Kind, Tried]]) -> list[ArtifactRow]:
    plain = "tflite" if "tflite" in ctx.recipe.export.formats else ctx.recipe.export.formats[0]
    rows: list[ArtifactRow] = []
    for of_name in tried.values():
        whole = of_name.get((plain, "float32"))
        for kind, one in of_name.items():
            file = one.file
            beside = tried.get("baseline", {}).get(kind)
            baseline = None if beside is None else beside.timed
            rate = None if whole is None else whole.file.bytes / file.bytes
            figures = one.timed if isinstance(one.timed, Measurement) else None
            reasons = (one.timed.reason,) if isinstance(one.timed, Failure) else one.timed.reasons
            test = ctx.dataset.at(file.input).test
            rows.append(
                ArtifactRow(
                    network=file.network,
                    format=file.format,
                    scheme=file.scheme,
                    sha256=file.sha256,
                    path=str(file.path),
                    bytes=file.bytes,
                    accuracy_torch=one.accuracy_float,
                    accuracy_host=host_accuracy(file.path, test),
                    accuracy_device=None if isinstance(one.right, Failure) else one.right.mean(),
                    max_abs_error=file.verification.max_abs_error,
                    sqnr_db=file.verification.sqnr_db,
                    argmax_agreement=file.verification.argmax_agreement,
                    latency_ms=figures.median_ms if figures else None,
                    ci95_ms=figures.ci95_ms if figures else None,
                    verdict=figures.verdict if figures else None,
                    reasons=reasons,
                    partitions=figures.partitions if figures else None,
                    compression_rate=rate,
                    space_saving_rate=None if rate is None else 1 - 1 / rate,
                    speed_up_rate=_speed_up(baseline, one.timed),
                )
            )
    return rows


def host_accuracy(path: Path, split: Split) -> float:
    """Return the accuracy (0..1) of a file in its own runtime on the host."""
    return float((run_artifact(path, split.images).argmax(1) == split.labels).mean())


def _speed_up(baseline: Measurement | Failure | None, file: Measurement | Failure) -> float | None:
    """Return baseline over file: the paired ratio where the two were measured interleaved."""
    if not isinstance(file, Measurement) or not isinstance(baseline, Measurement):
        return None
    if baseline is file:
        return 1.0
    return 1 / file.ratio if file.ratio else baseline.median_ms / file.median_ms
