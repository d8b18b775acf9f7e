"""The devices that a search serves: each with its own reference model and its own target.

The run's own device comes first; `[[search.also]]` of the recipe names the others. A search is
shown one latency: the first device's, or all of them combined
(`pipeline.search.objective.several`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pipeline.search import objective as objectives
from pipeline.search.objective.several import DeviceTarget, SeveralDevices, metric

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.measure.bench import DeviceBench
    from pipeline.measure.timer import Timer
    from pipeline.recipe.sections import AlsoSection, SearchSection, TargetSection
    from pipeline.search.api import Estimate, Objective


@dataclass(frozen=True, slots=True)
class ServedDevice:
    """One device of the search.

    Attributes:
        timer: measures candidates there.
        target_ms: the latency aimed at there.
        weight: counts where devices are combined by weight.
    """

    timer: Timer
    target_ms: float
    weight: float = 1.0

    @classmethod
    def own(cls, timer: Timer, target: TargetSection) -> Self:
        """Return the run's own device, with the target of the recipe."""
        return cls(timer, target.latency_ms or target.latency_ratio * timer.reference.latency_ms)

    @classmethod
    def other(cls, timer: Timer, section: AlsoSection) -> Self:
        """Return a further device, whose target is a ratio to its own reference."""
        return cls(timer, section.latency_ratio * timer.reference.latency_ms, section.weight)

    @property
    def bench(self) -> DeviceBench:
        """What measures there."""
        return self.timer.bench

    @property
    def name(self) -> str:
        """The user's name of the device."""
        return self.bench.name


def create_objective(section: SearchSection, target_ms: float) -> Objective:
    """Return the recipe's objective for one device's target."""
    return objectives.create(section.objective, target_ms, exponent=section.exponent)


def create_combination(
    section: SearchSection, devices: Sequence[ServedDevice]
) -> Callable[[Mapping[str, Estimate]], Estimate]:
    """Return what makes one latency of the devices' latencies by name.

    It is on target where its value is at most that of the first device.
    """
    targets = tuple(DeviceTarget(d.name, d.target_ms, d.weight) for d in devices)
    goal = create_objective(section, devices[0].target_ms)
    several = SeveralDevices(goal, targets, section.combine)

    def combine(by_device: Mapping[str, Estimate]) -> Estimate:
        return several.combine_latencies({metric(k): v for k, v in by_device.items()})["latency_ms"]

    return combine
