"""What a chain of passes came to, step by step, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class LayerRow:
    """What is left of a layer.

    Attributes:
        name: of its op; one that a later pass put into another has nothing after it.
        kind: of the op.
        before: weights and biases of the model as it came.
        after: those at the end.
        nonzero: of those, the ones that are no weights of zero.
    """

    name: str
    kind: str
    before: int
    after: int
    nonzero: int


@dataclass(frozen=True, slots=True)
class StepRow:
    """The model as it came, or what it is after a pass, as a file of one format.

    Attributes:
        name: the pass as it was asked for; of the first, what it is.
        done: what it did; empty of the first.
        changed: whether the pass changed anything.
        bytes: of the file.
        packed_bytes: of the file packed without loss.
        macs: multiply-accumulates of one inference.
        params: trained numbers.
        agreement: with the model as it came, 0..1.
        sqnr_db: beside it, of the worst output; None of outputs without real numbers.
        score: of the task on the samples that judge, as `shown` says it; None without labels.
        score_ci95: its interval, of shares of samples.
        shown: the score with its unit.
        lost_points: hundredths of the score, or of agreement, that were lost since it came.
        left_in_float32: ops that were left so for it.
        latency_ms: on the device; None where it was not timed.
        ci95_ms: its interval.
        ratio: of its latency to that of the model as it came, in turns; None of the first.
        ratio_ci95: its interval.
        verdict: on the measurement: valid, suspect, invalid.
        reasons: of the verdict, or why there is no measurement.
    """

    name: str
    done: str
    changed: bool
    bytes: int
    packed_bytes: int | None
    macs: int
    params: int
    agreement: float
    sqnr_db: float | None
    score: float | None
    score_ci95: tuple[float, float] | None
    shown: str
    lost_points: float
    left_in_float32: tuple[str, ...] = ()
    latency_ms: float | None = None
    ci95_ms: tuple[float, float] | None = None
    ratio: float | None = None
    ratio_ci95: tuple[float, float] | None = None
    verdict: str | None = None
    reasons: tuple[str, ...] = ()

    @property
    def speed_up(self) -> float | None:
        """How many times as fast as the model as it came."""
        return 1 / self.ratio if self.ratio else None

    @property
    def speed_up_ci95(self) -> tuple[float, float] | None:
        """Its interval."""
        if self.ratio_ci95 is None or not all(self.ratio_ci95):
            return None
        return 1 / self.ratio_ci95[1], 1 / self.ratio_ci95[0]


@dataclass(frozen=True, slots=True)
class Compression:
    """A chain of passes.

    Attributes:
        source: what was compressed, as its user calls it.
        format: of the files.
        device: where they were timed; empty if nowhere.
        metric: what scores are; None without labels.
        samples: how many judge.
        split: where those are from.
        steps: the model as it came, and after each pass.
        layers: those with parameters, in the order of the network.
    """

    source: str
    format: str
    device: str
    metric: str | None
    samples: int
    split: str
    steps: tuple[StepRow, ...]
    layers: tuple[LayerRow, ...] = ()

    @property
    def unit(self) -> str:
        """What points are hundredths of."""
        return self.metric or "agreement"

    def compression_rate(self, step: StepRow) -> float:
        """Return old bytes over new ones."""
        return self.steps[0].bytes / step.bytes

    def packed_rate(self, step: StepRow) -> float | None:
        """Return old bytes over those of the file packed."""
        return None if step.packed_bytes is None else self.steps[0].bytes / step.packed_bytes

    def space_saving_rate(self, step: StepRow) -> float:
        """Return the share of the old bytes that is saved."""
        return 1 - 1 / self.compression_rate(step)

    def remarks(self) -> Iterator[str]:
        """Say which passes did not pay, and which measurements are to be doubted."""
        for before, step in zip(self.steps, self.steps[1:], strict=False):
            if not step.changed:
                yield f"{step.name} changed nothing."
            elif (sentence := self._unpaid(before, step)) is not None:
                yield sentence
            if step.reasons:
                what = "could not be taken" if step.verdict is None else f"is {step.verdict}"
                yield f"The time after {step.name} {what}: {'; '.join(step.reasons)}."

    def _unpaid(self, before: StepRow, step: StepRow) -> str | None:
        """Return a sentence on a pass that made nothing smaller or faster, nor better."""
        smaller = step.bytes < before.bytes or (
            step.packed_bytes is not None
            and before.packed_bytes is not None
            and step.packed_bytes < before.packed_bytes
        )
        last = (1.0, 1.0) if before.ratio_ci95 is None else before.ratio_ci95
        timed = step.ratio_ci95 is not None
        faster = step.ratio_ci95 is not None and step.ratio_ci95[1] < last[0]
        better = step.lost_points < before.lost_points
        if faster or better:
            return None
        if smaller:
            slow = f"{step.name} does not show to be faster on {self.device} than without it."
            return slow if timed else None
        fast = f" nor faster on {self.device}" if timed else ""
        return (
            f"{step.name} did not pay: the file is neither smaller ({before.bytes:,} to "
            f"{step.bytes:,} bytes){fast}, and no {self.unit} was got back."
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, rates included."""
        plain = asdict(self)
        for step, values in zip(self.steps, plain["steps"], strict=True):
            values |= {
                "compression_rate": self.compression_rate(step),
                "packed_rate": self.packed_rate(step),
                "space_saving_rate": self.space_saving_rate(step),
                "speed_up_rate": step.speed_up,
            }
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Compression:
        """Read what `to_json` wrote, also after a trip through JSON text."""
        rates = {"compression_rate", "packed_rate", "space_saving_rate", "speed_up_rate"}
        steps = [
            StepRow(**{name: _tuple(value) for name, value in step.items() if name not in rates})
            for step in data["steps"]
        ]
        layers = tuple(LayerRow(**layer) for layer in data["layers"])
        return cls(**{**data, "steps": tuple(steps), "layers": layers})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
