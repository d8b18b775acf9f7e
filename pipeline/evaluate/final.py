"""The final measurements: every file of winner and baseline, on the device, on the test split.

The test split is touched here and nowhere else.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from device_agents.api import Failure, Measurement
from device_agents.errors import ConfigError, VerificationError
from models.number_format import FLOAT32, STATIC8
from pipeline.evaluate.baseline import Baseline
from pipeline.evaluate.comparison import Tried, beside_headline, compare, measure_beside
from pipeline.evaluate.files import export, save
from pipeline.formats import create
from pipeline.formats.files import run_file
from pipeline.measure.form import Form
from pipeline.measure.outputs import infer_answers
from pipeline.store.result import ArtifactRow, FailedFile
from pipeline.train.loop import evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.network import Network
    from pipeline.data.api import Data
    from pipeline.evaluate.baseline import NoBaseline
    from pipeline.evaluate.comparison import Headline
    from pipeline.evaluate.files import Exports
    from pipeline.evaluate.finalists import Finalist
    from pipeline.formats.written_file import WrittenFile
    from pipeline.store.result import Comparison


@dataclass(frozen=True, slots=True)
class Final:
    """Rows of the report's table, and the headline."""

    artifacts: tuple[ArtifactRow, ...]
    comparison: Comparison
    deployed: WrittenFile
    runtime_version: str
    failed: tuple[FailedFile, ...]


def measure_final(
    winner: Finalist,
    baseline: Baseline | NoBaseline,
    *,
    headline: Headline,
    formats: Sequence[str],
    to: Exports,
) -> Final:
    """Export, verify and measure everything; a file beside the headline pair may fail.

    Args:
        winner: of the finalists.
        baseline: what it is held against, or why there is nothing.
        headline: which pair of files is compared, and how.
        formats: that both are written in.
        to: where the files go.

    Raises:
        VerificationError: a file of the headline pair does not compute what its network computes.
        DeviceError: the device went away, or cannot run the winner.
    """
    networks = {"winner": winner.network}
    if isinstance(baseline, Baseline):
        networks["baseline"] = baseline.network
    forms = list_forms(formats, headline.form)
    files, failed = _export_all(networks, forms, headline.form, to)
    for name, network in networks.items():
        save(network, name, to=to)
    tried = _try_all(networks, files, headline, to)
    truth = np.asarray(to.data.dataset.test.labels)
    comparison, timed = compare(
        winner,
        baseline,
        tried=tried,
        headline=headline,
        bench=to.bench,
        guessing=to.data.task.guessing(truth),
    )
    deployed = files["winner"][headline.form]
    plain = Form("tflite" if "tflite" in formats else formats[0], FLOAT32)
    rows = tuple(_rows(tried, plain, to.data))
    return Final(rows, comparison, deployed, timed.runtime_version, tuple(failed))


_SHOWN = (FLOAT32, STATIC8)
"""Number formats of the final table: the others only hold the weights of a network smaller."""


def list_forms(formats: Sequence[str], deployed: Form) -> list[Form]:
    """Return what networks are written as: those of `_SHOWN` that each format writes.

    The deployed form is among them, whatever `formats` are.
    """
    forms = [
        Form(name, number_format)
        for name in formats
        for number_format in create(name).number_formats
        if number_format in _SHOWN
    ]
    return forms if deployed in forms else [deployed, *forms]


def _export_all(
    networks: Mapping[str, Network], forms: Sequence[Form], headline: Form, to: Exports
) -> tuple[dict[str, dict[Form, WrittenFile]], list[FailedFile]]:
    """Return the files of each network by form, and those that failed."""
    files: dict[str, dict[Form, WrittenFile]] = {name: {} for name in networks}
    failed: list[FailedFile] = []
    with to.bench.events.task("export and verify", len(networks) * len(forms)) as task:
        for (name, network), form in itertools.product(networks.items(), forms):
            try:
                files[name][form] = export(network, name, form=form, to=to)
            except (ConfigError, VerificationError) as error:
                if form == headline:
                    raise
                failed.append(FailedFile(name, form.runtime, str(form.number_format), str(error)))
                to.bench.events.say(f"left out, {failed[-1]}")
            task.advance(f"{name} {form}")
    return files, failed


def _try_all(
    networks: Mapping[str, Network],
    files: Mapping[str, Mapping[Form, WrittenFile]],
    headline: Headline,
    to: Exports,
) -> dict[str, dict[Form, Tried]]:
    """Measure every file beside the other network's of its form, then run it on the test split."""
    bench, task_of = to.bench, to.data.task
    timed: dict[str, Measurement | Failure] = {}
    count = sum(map(len, files.values()))
    with bench.events.task("measure every file", count) as task:
        for name, of_name in files.items():
            others = files.get("baseline" if name == "winner" else "winner", {})
            for form, file in of_name.items():
                shown = headline.protocol
                protocol = shown if form == headline.form else beside_headline(shown)
                timed[file.sha256] = measure_beside(
                    bench, file, beside=others.get(form), protocol=protocol
                )
                task.advance(file.path.name)
    tried: dict[str, dict[Form, Tried]] = {name: {} for name in files}
    with bench.events.task("accuracy on the device", count) as task:
        for name, network in networks.items():
            test = to.data.at(network.spec.input).test
            plain = evaluate(network.module, test, task_of)
            for form, file in files[name].items():
                answers = infer_answers(bench, file, to.data)
                truth = np.asarray(test.labels)
                right = answers if isinstance(answers, Failure) else task_of.right(answers, truth)
                tried[name][form] = Tried(file, timed[file.sha256], right, plain)
                task.advance(file.path.name)
    return tried


def _rows(tried: Mapping[str, Mapping[Form, Tried]], plain: Form, data: Data) -> list[ArtifactRow]:
    """Return the table; compression is against the `plain` file of the same network."""
    rows: list[ArtifactRow] = []
    for of_name in tried.values():
        whole = of_name.get(plain)
        for form, one in of_name.items():
            file = one.file
            beside = tried.get("baseline", {}).get(form)
            baseline = None if beside is None else beside.timed
            rate = None if whole is None else whole.file.bytes / file.bytes
            figures = one.timed if isinstance(one.timed, Measurement) else None
            reasons = (one.timed.reason,) if isinstance(one.timed, Failure) else one.timed.reasons
            test = data.at(file.input).test
            outputs = run_file(file.path, test.images)
            rows.append(
                ArtifactRow(
                    network=file.network,
                    format=file.format,
                    scheme=str(file.number_format),
                    sha256=file.sha256,
                    path=str(file.path),
                    bytes=file.bytes,
                    accuracy_torch=one.accuracy_float,
                    accuracy_host=data.task.score(outputs, np.asarray(test.labels)),
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


def _speed_up(baseline: Measurement | Failure | None, file: Measurement | Failure) -> float | None:
    """Return baseline over file: the paired ratio where the two were measured interleaved."""
    if not isinstance(file, Measurement) or not isinstance(baseline, Measurement):
        return None
    if baseline is file:
        return 1.0
    return 1 / file.ratio if file.ratio else baseline.median_ms / file.median_ms
