"""What a run found, as plain values: written by the run, read by the report and the store.

Accuracies are fractions (0.987), latencies milliseconds, sizes bytes. Everything here survives a
trip through JSON (`dataclasses.asdict` and `RunResult.from_json`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from pipeline.store.compression import Compression

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RunOutcome = Literal["met", "missed", "not told apart", "no comparison", "learnt nothing"]
"""What a run came to; `pipeline.evaluate.verdict` says when it is which."""


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One candidate of the search, in the order in which it was told to the strategy."""

    index: int
    spec: str
    digest: str
    params: int
    macs: int
    accuracy: float | None
    latency_ms: float | None
    latency_ci95_ms: tuple[float, float] | None
    ratio: float | None
    """Latency over that of the interleaved reference model."""
    verdict: str | None
    score: float | None
    elapsed_s: float
    """Since the start of the search, of the first run that evaluated it."""
    reused: bool
    """The strategy asked for it again; nothing was trained or measured again."""
    failure: str | None = None
    latency_source: str = "measured"
    """measured | table | predicted | counted: what `latency_ms` comes from."""
    by_device_ms: Mapping[str, float] = field(default_factory=dict)
    """Latency on each device, of a search for several; `latency_ms` then stands for all."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """One exported file: what it is, whether it was verified, how it does on the device."""

    network: str
    """winner | baseline."""
    format: str
    """tflite | onnx."""
    scheme: str
    """float32 | static8."""
    sha256: str
    path: str
    bytes: int
    accuracy_torch: float
    """Of the float torch network on the test split, on the host."""
    accuracy_host: float
    """Of this file in its own runtime on the host, on the test split."""
    accuracy_device: float | None
    """Of this file on the device, on the test split."""
    max_abs_error: float
    sqnr_db: float
    argmax_agreement: float
    latency_ms: float | None
    ci95_ms: tuple[float, float] | None
    verdict: str | None
    reasons: tuple[str, ...]
    partitions: int | None
    compression_rate: float | None
    """Bytes of the float32 TFLite file of the same network over bytes of this file."""
    space_saving_rate: float | None
    """1 - 1 / compression_rate."""
    speed_up_rate: float | None
    """Latency of the baseline's file of the same format and scheme over this file's."""


@dataclass(frozen=True, slots=True)
class FailedFile:
    """A file beside the deployed one that could not be written or does not compute what it should.

    It is nowhere in the table of files, and nothing was measured with it.
    """

    network: str
    """winner | baseline."""
    format: str
    scheme: str
    reason: str

    def __str__(self) -> str:
        return f"{self.network} as {self.format} {self.scheme}: {self.reason}"


def what_failed(run_id: str, failed: Sequence[FailedFile]) -> str:
    """Return the sentence that ends a run some of whose files failed."""
    return (
        f"of run {run_id} {len(failed)} file{'s' if len(failed) > 1 else ''} beside the deployed "
        f"one failed and {'are' if len(failed) > 1 else 'is'} left out, everything else is kept: "
        f"{'; '.join(map(str, failed))}"
    )


@dataclass(frozen=True, slots=True)
class OpRow:
    """One op of the winner's deployed graph."""

    name: str
    kind: str
    key: str
    macs: int
    params: int
    activation_bytes: int
    latency_ms: float | None
    """Measured alone on the device in the same number format, less what an empty model takes."""
    latency_ci95_ms: tuple[float, float] | None = None
    """None of runs that measured ops without an interval."""
    pointwise: bool = False
    """Whether it is a convolution with a 1x1 window."""
    block: str = ""
    """The part of the network that it belongs to."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Winner against baseline, measured in one interleaved run.

    What is the baseline's, or between the two, is None where there is no baseline to compare with.
    """

    outcome: RunOutcome
    winner_ms: float
    baseline_ms: float | None
    ratio: float | None
    """Winner over baseline: below 1 is faster."""
    ratio_ci95: tuple[float, float] | None
    target_ratio: float | None
    winner_accuracy_validation: float
    baseline_accuracy_validation: float | None
    winner_accuracy_test: float
    baseline_accuracy_test: float | None
    test_images: int
    sentence: str
    winner_ci95_ms: tuple[float, float] | None = None
    target_ms: float | None = None
    """Where milliseconds were asked for; `target_ratio` is then this over `baseline_ms`."""
    accuracy_tolerance: float = 0.0
    accuracy_gain_ci95: tuple[float, float] | None = None
    """Of the winner's test accuracy less the baseline's, paired image by image."""
    guessing_accuracy: float | None = None
    """What always naming the commonest class of the test split would reach."""
    verdict: str | None = None
    """Of the interleaved measurement, with its `reasons`."""
    reasons: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    """Sentences on what the figures alone would hide."""

    @property
    def met(self) -> bool:
        """Whether the target is met, beyond doubt."""
        return self.outcome == "met"

    @property
    def gain_in_words(self) -> str:
        """The winner's accuracy less the baseline's with its interval, in points."""
        low, high = self.accuracy_gain_ci95 or (math.nan, math.nan)
        gain = self.winner_accuracy_test - (self.baseline_accuracy_test or 0.0)
        return f"{100 * gain:+.2f} points, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}"


@dataclass(frozen=True, slots=True)
class RunResult:
    """All that a report shows."""

    run_id: str
    recipe: Mapping[str, Any]
    device: Mapping[str, Any]
    """name, model, machine, runtime, runtime_version, threads, protocol, …"""
    started_at: str
    duration_s: float
    """Work done, breaks between interrupted starts not counted."""
    candidates: tuple[CandidateRow, ...]
    front: tuple[int, ...]
    """Indices of candidates on the accuracy-latency Pareto front, by latency."""
    chosen: int
    """Index of the winner among the candidates."""
    winner_spec: str
    baseline_name: str
    baseline_spec: str
    baseline_candidates: tuple[Mapping[str, Any], ...]
    """Baseline widths tried: name, accuracy_validation, latency_ms."""
    finalists: tuple[Mapping[str, Any], ...]
    """Finalists: index, accuracy_validation (static8), latency_ms (measured after the search),
    latency_ci95_ms, predicted_ms (what the search went by), predicted_source, by_device_ms."""
    artifacts: tuple[ArtifactRow, ...]
    ops: tuple[OpRow, ...]
    comparison: Comparison
    deployed: Mapping[str, Any]
    """name, version, path on the device, sha256."""
    device_busy_s: float
    device_timed_s: float
    """Timed inference and warm-up; the rest of busy is overhead."""
    versions: Mapping[str, str]
    failed_files: tuple[FailedFile, ...] = ()
    compression: Compression | None = None
    """What the passes of [[compress]] came to on the winner; None without any."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = asdict(self)
        if self.compression is None:
            del plain["compression"]
        else:
            plain["compression"] = self.compression.to_json()
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunResult:
        """Read what `to_json` wrote, also after a trip through JSON text."""
        rows: dict[str, Any] = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        rows["failed_files"] = tuple(FailedFile(**r) for r in data.get("failed_files", ()))
        rows["candidates"] = tuple(CandidateRow(**_tuples(r)) for r in data["candidates"])
        rows["artifacts"] = tuple(ArtifactRow(**_tuples(r)) for r in data["artifacts"])
        rows["ops"] = tuple(map(_op_row, data["ops"]))
        rows["comparison"] = _comparison(data["comparison"])
        if "compression" in data:
            rows["compression"] = Compression.from_json(data["compression"])
        for name in ("front", "baseline_candidates", "finalists"):
            rows[name] = tuple(data[name])
        return cls(**rows)


def _op_row(data: Mapping[str, Any]) -> OpRow:
    known = _tuples(data)
    # Rows written before had these in their keys and names alone.
    known.setdefault("pointwise", data["kind"] == "conv" and ":k1s" in data["key"])
    known.setdefault("block", _block_of(data["name"]))
    return OpRow(**known)


def _block_of(name: str) -> str:
    """Return the part of an op by its name: "blocks.3.se.reduce" -> "block 3", "pool" -> "pool"."""
    head, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    return f"{head.removesuffix('s')} {number}" if number.isdigit() else head


def _comparison(data: Mapping[str, Any]) -> Comparison:
    known = _tuples(data)
    if "met" in known:  # written before outcomes had more than two names
        known["outcome"] = "met" if known.pop("met") else "missed"
    return Comparison(**known)


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}
