"""Pruning until the network takes no longer than is asked, as it is measured.

What a width saves is measured, group by group, with all others whole: the table. Its sums are
wrong where groups share layers, so what is chosen by it is written and measured whole, and the
table is corrected by every network that has been (`corrected_table.py`), until one is at or below
the target and uses most of it. Measuring in the loop is NetAdapt's (Yang et al., ECCV 2018), the
choice of all widths at once is HALP's (Shen et al., NeurIPS 2022).

Nothing is trained here. Who measures is given, so that the loop knows of no device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from device_agents.errors import ConfigError, TargetError
from device_agents.plain_values import bounds
from device_agents.plural import number_of
from pipeline.compress.allocation import Choice
from pipeline.compress.corrected_table import CorrectedTable
from pipeline.compress.passes.prune import Ranked, rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.model import Model
    from pipeline.compress.passes.prune import PruneOptions
    from pipeline.train.lessons import Lessons


@dataclass(frozen=True, slots=True)
class Timed:
    """What a model's file takes: median latency, its 95 % interval, the file's hash, a verdict."""

    latency_ms: float
    ci95_ms: tuple[float, float]
    sha256: str
    verdict: str = "valid"


Care = Literal["whole", "table"]
"""How carefully: a network that may be handed over, or one of the many of the table."""

Measure = Callable[["Model", Care], Timed]
"""Writes a model as what will be deployed and measures that file. Raises DeviceError."""

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be reached, and how hard to try.

    Attributes:
        latency_ms: the network must take no longer; 0 where `ratio` says it.
        ratio: share of what the whole network takes, in place of `latency_ms`.
        used: share of the target that is enough to stop, and of what cutting can save.
        rounds: networks at most that are chosen, written and measured whole.
        points: widths of each group that are measured, the whole one aside; others are between.
    """

    latency_ms: float = 0.0
    ratio: float = 0.0
    used: float = field(default=0.95, metadata=bounds(low=0, high=1))
    rounds: int = field(default=6, metadata=bounds(low=1))
    points: int = field(default=3, metadata=bounds(low=1))

    def __post_init__(self) -> None:
        """Refuse what is no time, or no share of one."""
        if self.ratio and not 0 < self.ratio < 1:
            raise ConfigError(
                f"a target of {100 * self.ratio:g} % of the network's latency cannot be pruned to; "
                "give more than 0 % and less than 100 %"
            )
        if not self.ratio and not (math.isfinite(self.latency_ms) and self.latency_ms > 0):
            raise ConfigError(
                f"a target of {self.latency_ms:g} ms is no latency; give milliseconds above 0"
            )

    def of(self, whole_ms: float) -> Target:
        """Return the target in milliseconds, of a network that takes so many."""
        return replace(self, latency_ms=self.ratio * whole_ms, ratio=0.0) if self.ratio else self

    def enough_ms(self, whole_ms: float, least_ms: float) -> float:
        """Return the latency from which on a network uses the target well enough.

        Where little can be saved, any network uses most of the target: there what is left unused
        is counted in what lies between the whole network and the narrowest.
        """
        spare = 1 - self.used
        return self.latency_ms - spare * min(self.latency_ms, whole_ms - least_ms)


@dataclass(frozen=True, slots=True)
class GroupWidth:
    """A group of channels: its name, its width before, and what is left."""

    name: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Round:
    """A network that was chosen by the table, and what it took.

    Attributes:
        widths: of every group.
        table_ms: sum of the table.
        predicted_ms: the same, corrected by what was measured before.
        measured: of its file.
        kept: share of the importance that stays: of groups that can be cut, the geometric mean.
        slack_ms: that rounding in the choice may have given away.
    """

    widths: tuple[int, ...]
    table_ms: float
    predicted_ms: float
    measured: Timed
    kept: float
    slack_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A network that meets a target, and how it was found.

    Attributes:
        model: the network.
        target: that it meets.
        whole: what the network before took.
        least: what it takes with every group at its narrowest.
        rounds: in their order.
        best: the round whose network is handed over: of those that met it, it keeps most.
        widths: of every group that can be cut.
        measurements: how many were asked for.
    """

    model: Model
    target: Target
    whole: Timed
    least: Timed
    rounds: tuple[Round, ...]
    best: Round
    widths: tuple[GroupWidth, ...]
    measurements: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be measured.

    Attributes:
        anchors: of each group, the widths that are measured; the whole one aside.
        most: measurements at most, with the whole, the narrowest and all rounds.
    """

    anchors: tuple[tuple[int, ...], ...]
    most: int


def plan_measurements(ranked: Ranked, options: PruneOptions, target: Target) -> Plan:
    """Choose the widths that are measured. Raises ConfigError: no group can be narrower."""
    anchors = []
    for place in range(len(ranked.free)):
        narrower = ranked.list_widths(place, options)[:-1]
        count = min(target.points, len(narrower))
        at = np.round(np.linspace(0, len(narrower) - (len(narrower) > count), count + 1))[:-1]
        anchors.append(tuple(narrower[int(one)] for one in at))
    if not any(anchors):
        raise ConfigError(
            f"no group of channels can be narrower than it is, in multiples of {options.multiple} "
            f"with a share of {options.least:g} at least; lower `multiple` or `least`"
        )
    return Plan(tuple(anchors), sum(map(len, anchors)) + 2 + target.rounds)


def prune_to_latency(
    model: Model,
    options: PruneOptions,
    target: Target,
    measure: Measure,
    tell: Tell,
    *,
    lessons: Lessons | None = None,
) -> Fitted:
    """Prune a network until its file takes no longer than a target.

    Args:
        model: in real numbers.
        options: importance, multiple, least and keep are heeded.
        target: to be met.
        measure: is asked for each network once.
        tell: is told what is measured next.
        lessons: what importance goes by, where the options say so.

    Raises:
        ConfigError: nothing can be cut, or the network is as fast already.
        TargetError: it is slower than the target however narrow, or no round met it.
        DeviceError: it cannot be measured.
    """
    ranked = rank(model, options, lessons)
    plan = plan_measurements(ranked, options, target)
    tell("the whole network")
    whole = measure(model, "whole")
    target = target.of(whole.latency_ms)
    search = _Search(ranked, options, target, plan, measure, tell)
    if whole.latency_ms <= target.latency_ms:
        raise ConfigError(
            f"the network takes {whole.latency_ms:.4g} ms before anything is cut, at most the "
            f"target of {target.latency_ms:g} ms; give less"
        )
    tell("the narrowest network")
    narrowest = [ranked.list_widths(place, options)[0] for place in range(len(ranked.free))]
    least = measure(search.cut_to(narrowest), "whole")
    if least.latency_ms > target.latency_ms:
        raise TargetError(
            f"the target of {target.latency_ms:g} ms cannot be met by pruning: the network takes "
            f"{whole.latency_ms:.4g} ms whole and {least.latency_ms:.4g} ms with every group of "
            f"channels at its least; give more, lower `least` (now {options.least:g}), or free "
            "layers of `keep`"
        )
    return search.run(whole, least)


@dataclass(slots=True, eq=False)
class _Search:
    """One search: what it works on."""

    ranked: Ranked
    options: PruneOptions
    target: Target
    plan: Plan
    measure: Measure
    tell: Tell

    @property
    def cuttable(self) -> int:
        """How many groups can be cut."""
        return sum(self.ranked.free)

    def cut_to(self, widths: Sequence[int]) -> Model:
        """Return the network at widths, with a history that tells of it."""
        before = sum(group.width for group in self.ranked.channels.groups)
        gone = before - sum(widths)
        done = (
            f"pruned by {self.options.importance} to a latency of at most "
            f"{self.target.latency_ms:g} ms: {gone} of {before} channels that can be cut"
        )
        return self.ranked.cut_to(widths, done=done)

    def run(self, whole: Timed, least: Timed) -> Fitted:
        """Measure the table, then choose and measure until the target is met."""
        target = self.target
        enough_ms = target.enough_ms(whole.latency_ms, least.latency_ms)
        aim_ms = (target.latency_ms + enough_ms) / 2
        table = CorrectedTable(self._table(whole), whole.latency_ms, target.latency_ms)
        rounds: list[Round] = []
        tried: dict[tuple[int, ...], Model] = {}
        met: list[Round] = []
        while len(rounds) < target.rounds:
            more_than = max((one.kept for one in met), default=None)
            found = table.choose(
                aim_ms,
                tried=tried,
                more_than=None if more_than is None else math.log(more_than) * self.cuttable,
            )
            if found is None:
                break
            self.tell(f"round {len(rounds) + 1} of {target.rounds} at most")
            made = tried[found.widths] = self.cut_to(found.widths)
            predicted_ms = table.predict(found)
            timed = self.measure(made, "whole")
            one = Round(
                found.widths,
                table.sum_ms(found),
                predicted_ms,
                timed,
                math.exp(found.kept / self.cuttable),
                found.slack_ms,
            )
            rounds.append(one)
            table.learn(found, timed.latency_ms)
            if timed.latency_ms <= target.latency_ms:
                met.append(one)
                if timed.latency_ms >= enough_ms:
                    break
        if not met:
            closest = min(one.measured.latency_ms for one in rounds)
            raise TargetError(
                f"no network of {number_of(len(rounds), 'round')} met the target of "
                f"{target.latency_ms:g} ms; the closest took {closest:.4g} ms, the narrowest "
                f"takes {least.latency_ms:.4g} ms: allow more rounds, or measure on a quieter "
                "device"
            )
        best = max(met, key=lambda one: one.kept)
        groups = zip(self.ranked.channels.groups, best.widths, strict=True)
        return Fitted(
            tried[best.widths],
            target,
            whole,
            least,
            tuple(rounds),
            best,
            tuple(GroupWidth(group.name, group.width, after) for group, after in groups),
            sum(map(len, self.plan.anchors)) + 2 + len(rounds),
        )

    def _table(self, whole: Timed) -> list[list[Choice]]:
        """Return what every width of every group costs and keeps."""
        groups = self.ranked.channels.groups
        full = [group.width for group in groups]
        table, done, total = [], 0, sum(map(len, self.plan.anchors))
        for place, (group, anchors) in enumerate(zip(groups, self.plan.anchors, strict=True)):
            costs = []
            for width in anchors:
                done += 1
                self.tell(f"{done} of {total}: {group.name} at {width} of {group.width} channels")
                narrow = self.cut_to([*full[:place], width, *full[place + 1 :]])
                costs.append(self.measure(narrow, "table").latency_ms - whole.latency_ms)
            widths = self.ranked.list_widths(place, self.options)
            between = np.interp(widths, [*anchors, group.width], [*costs, 0.0])
            table.append(
                [
                    Choice(width, float(cost), self.ranked.kept(place, width))
                    for width, cost in zip(widths, between, strict=True)
                ]
            )
        return table
