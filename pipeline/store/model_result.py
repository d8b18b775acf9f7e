"""What a run of a user's own model came to, as plain values; scores are as the task shows them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.store.compression import Compression

if TYPE_CHECKING:
    from collections.abc import Mapping

AS_IT_CAME = "as it came"
"""The name of the file that the user brought, where it is one that a runtime takes."""

KIND = "model"
"""What tells such a result from a search's, in JSON."""


@dataclass(frozen=True, slots=True)
class ModelFileRow:
    """One file: the model as it came, or written again.

    Attributes:
        name: as the page calls it: ``as it came``, or format and number format.
        score_host: on the test samples, in its runtime here; None where it could not be scored.
        score_device: likewise on the device.
        sqnr_db: of the output that compares worst with the source's; None of the source itself, and
            of outputs without real numbers.
        error_share: the largest difference from the source as a share of an output's range.
        ratio: latency over that of `beside`, in turns, with its interval.
        drop_points: hundredths of the score that it loses; None where that was not asked.
        left_in_float32: the ops that were left so for it.
        drop_words: a sentence on both.
    """

    name: str
    format: str
    scheme: str
    sha256: str
    path: str
    bytes: int
    score_host: str | None = None
    score_device: str | None = None
    sqnr_db: float | None = None
    error_share: float | None = None
    latency_ms: float | None = None
    ci95_ms: tuple[float, float] | None = None
    verdict: str | None = None
    reasons: tuple[str, ...] = ()
    partitions: int | None = None
    beside: str = ""
    ratio: float | None = None
    ratio_ci95: tuple[float, float] | None = None
    drop_points: float | None = None
    left_in_float32: tuple[str, ...] = ()
    drop_words: str = ""


@dataclass(frozen=True, slots=True)
class ModelResult:
    """All that the page of such a run shows.

    Attributes:
        source: what the model was: file, sha256, inputs, outputs, ops, parameters, MACs, history.
        unsupported: why no graph could be made of it; empty if one could.
        metric: what scores are: accuracy, mIoU, MAE, agreement.
        samples: how many it was scored on.
        data: what was said of the samples.
        failed: name of a file that could not be written, measured or trusted -> why.
        deployed: name, version, path on the device, sha256, which file.
        cautions: sentences on what the figures alone would hide.
        compression: what the passes of [[compress]] came to; None without any.
    """

    run_id: str
    recipe: Mapping[str, Any]
    device: Mapping[str, Any]
    started_at: str
    duration_s: float
    source: Mapping[str, Any]
    unsupported: str
    metric: str
    samples: int
    data: str
    files: tuple[ModelFileRow, ...]
    failed: Mapping[str, str]
    deployed: Mapping[str, Any]
    versions: Mapping[str, str]
    cautions: tuple[str, ...] = field(default=())
    compression: Compression | None = None

    @property
    def in_use(self) -> ModelFileRow | None:
        """The file that was put in use, if one was."""
        return next((row for row in self.files if row.sha256 == self.deployed.get("sha256")), None)

    @property
    def sentence(self) -> str:
        """What it came to: which file is in use, how fast and how good it is."""
        row = self.in_use
        if row is None:
            return f"{self.source['file']}: nothing could be put in use"
        fast = "" if row.latency_ms is None else f", {row.latency_ms:.4g} ms"
        if row.ratio is not None and row.ratio_ci95 is not None:
            low, high = row.ratio_ci95
            interval = f"95 % interval {low:.2f} to {high:.2f}"
            fast += f", {row.ratio:.2f} of the latency of {_called(row.beside)} ({interval})"
        good = row.score_device or row.score_host
        scored = "" if good is None else f", {self.metric} {good} on {self.samples} samples"
        return f"{self.source['file']}: {_called(row.name)} is in use{fast}{scored}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = {"kind": KIND, **asdict(self)}
        if self.compression is None:
            del plain["compression"]
        else:
            plain["compression"] = self.compression.to_json()
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelResult:
        """Read what `to_json` wrote, also after a trip through JSON text."""
        values = {key: value for key, value in data.items() if key != "kind"}
        values["files"] = tuple(ModelFileRow(**_tuples(row)) for row in values["files"])
        values["cautions"] = tuple(values["cautions"])
        if "compression" in values:
            values["compression"] = Compression.from_json(values["compression"])
        return cls(**values)


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}


def _called(name: str) -> str:
    """Return a file by its name, as in a sentence."""
    return "the file as it came" if name == AS_IT_CAME else f"the {name} file"
