"""Which points of a run stand out, worked out once for figures and tables alike.

A search goes by a quick look at its candidates (a short training, a supernet); finalists, winner
and baselines have their final weights, and finalists are measured once more. The two points of one
network are therefore different ones, and both are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.cost import Cost, cost
from models.spec import ArchSpec, SpecError
from pipeline.report.markup import TIMES, finite, percent, plot_text, unit
from pipeline.search.objective import LIMITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.store.result import ArtifactRow, CandidateRow, OpRow, RunResult

Point = tuple[float, float]
"""(latency in ms, accuracy in percent)."""


@dataclass(frozen=True, slots=True)
class FinalistMark:
    """A candidate with its final weights: its two points and what is known of it.

    `predicted_ms` is the latency that the search went by, `latency_ms` the one measured after it.
    """

    index: int
    spec: str | None
    proxy_accuracy: float | None
    accuracy: float | None
    latency_ms: float | None
    latency_ci95_ms: tuple[float, float] | None
    predicted_ms: float | None
    predicted_source: str
    by_device_ms: Mapping[str, float]
    proxy: Point | None
    trained: Point | None
    winner: bool

    @property
    def text(self) -> str:
        """Hover text."""
        role = "winner" if self.winner else "finalist"
        return (
            f"<b>{role}, candidate {self.index}, final weights</b><br>"
            f"validation accuracy {percent(self.accuracy)} "
            f"(in the search {percent(self.proxy_accuracy)})<br>"
            f"latency {unit(self.latency_ms, 'ms')} "
            f"(in the search {unit(self.predicted_ms, 'ms')})"
        )


@dataclass(frozen=True, slots=True)
class BaselineMark:
    """A baseline network trained in full."""

    name: str
    accuracy: float | None
    latency_ms: float | None
    chosen: bool

    @property
    def point(self) -> Point | None:
        """Its point, if both figures are known."""
        return _point(self.latency_ms, self.accuracy)

    @property
    def text(self) -> str:
        """Hover text."""
        role = "the baseline" if self.chosen else "baseline tried"
        return (
            f"<b>{plot_text(self.name)}</b>, {role}, fully trained<br>"
            f"validation accuracy {percent(self.accuracy)}<br>"
            f"latency {unit(self.latency_ms, 'ms')}"
        )


class Marks:
    """The run's front, chosen candidate, finalists and baselines; unknown indices are left out."""

    def __init__(self, result: RunResult) -> None:
        by_index = {c.index: c for c in result.candidates}
        self.chosen: CandidateRow | None = by_index.get(result.chosen)
        self.front = [by_index[i] for i in result.front if i in by_index]
        self.baseline_name = result.baseline_name
        self.baseline_proxy = next(
            (c for c in result.candidates if c.spec == result.baseline_spec), None
        )
        self.finalists = [self._finalist(f, by_index, result.chosen) for f in result.finalists]
        self.baselines = [
            BaselineMark(
                str(b.get("name", "")),
                _float(b.get("accuracy_validation")),
                _float(b.get("latency_ms")),
                b.get("name") == result.baseline_name,
            )
            for b in result.baseline_candidates
        ]

    @staticmethod
    def point(row: CandidateRow) -> Point | None:
        """Return the point of a candidate with the search's accuracy, if both figures are known."""
        return _point(row.latency_ms, row.accuracy)

    @staticmethod
    def _finalist(
        data: Mapping[str, Any], by_index: Mapping[int, CandidateRow], chosen: int
    ) -> FinalistMark:
        row = by_index.get(data.get("index", -1))
        accuracy = _float(data.get("accuracy_validation"))
        latency_ms = _float(data.get("latency_ms"))
        interval_ms = data.get("latency_ci95_ms")
        searched_ms = None if row is None else row.latency_ms
        return FinalistMark(
            index=int(data.get("index", -1)),
            spec=None if row is None else row.spec,
            proxy_accuracy=None if row is None else row.accuracy,
            accuracy=accuracy,
            latency_ms=latency_ms,
            latency_ci95_ms=tuple(interval_ms) if interval_ms else None,
            predicted_ms=_float(data.get("predicted_ms", searched_ms)),
            predicted_source=str(data.get("predicted_source", "measured")),
            by_device_ms=data.get("by_device_ms", {}),
            proxy=None if row is None else _point(row.latency_ms, row.accuracy),
            trained=_point(latency_ms, accuracy),
            winner=data.get("index") == chosen,
        )


@dataclass(frozen=True, slots=True)
class OpShare:
    """An op with its block, its readable kind and its shares of time and MACs (0..1)."""

    op: OpRow
    block: str
    kind: str
    time_share: float | None
    macs_share: float | None


def op_shares(ops: Sequence[OpRow]) -> list[OpShare]:
    """Return the ops in order with their shares of what was measured and of all MACs."""
    total_ms = sum(finite(op.latency_ms) or 0.0 for op in ops)
    total_macs = sum(op.macs for op in ops)
    return [
        OpShare(
            op,
            op.block,
            kind_of(op),
            None if finite(op.latency_ms) is None else _share(op.latency_ms, total_ms),
            _share(op.macs, total_macs),
        )
        for op in ops
    ]


def kind_of(op: OpRow) -> str:
    """Return the op's kind, with pointwise convolutions apart."""
    return f"conv 1{TIMES}1" if op.pointwise else op.kind


def over_limit(result: RunResult) -> frozenset[int]:
    """Return the candidates (by index) that score below 0 for not keeping the recipe's limit.

    None when no candidate keeps it, for then the scores tell which of them comes nearest.
    """
    if (result.recipe.get("search") or {}).get("objective") not in LIMITS:
        return frozenset()
    scores = {c.index: c.score for c in result.candidates if finite(c.score) is not None}
    over = frozenset(index for index, score in scores.items() if (score or 0.0) < 0.0)
    return over if len(over) < len(scores) else frozenset()


def artifact(result: RunResult, network: str) -> ArtifactRow | None:
    """Return the file of `network` (winner | baseline) that the comparison timed, if it is known.

    That is the deployed file by its hash, or the file whose latency the comparison repeats; and
    the baseline's file of the same format and scheme.
    """
    sha256, winner_ms = result.deployed.get("sha256"), result.comparison.winner_ms
    deployed = next(
        (
            a
            for a in result.artifacts
            if a.network == "winner" and (a.sha256 == sha256 or a.latency_ms == winner_ms)
        ),
        None,
    )
    if deployed is None or network == "winner":
        return deployed
    kind = (deployed.format, deployed.scheme)
    return next(
        (a for a in result.artifacts if a.network == network and (a.format, a.scheme) == kind), None
    )


def count_cost(spec: str) -> Cost | None:
    """Return what a network of the one-line form costs; None if it cannot be read."""
    try:
        return cost(ArchSpec.parse(spec))
    except SpecError:
        return None


def _float(value: object) -> float | None:
    return finite(value) if isinstance(value, int | float) else None


def _point(latency_ms: float | None, accuracy: float | None) -> Point | None:
    if finite(latency_ms) is None or finite(accuracy) is None:
        return None
    return float(latency_ms or 0.0), 100.0 * float(accuracy or 0.0)


def _share(part: float | None, whole: float) -> float | None:
    return None if part is None or whole <= 0 else part / whole
