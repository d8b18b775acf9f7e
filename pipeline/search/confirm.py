"""The end of every search: its best candidates measured again, and the target judged by that.

A search chooses the best of many estimates, so its choice is biased: estimates that came out too
low are chosen more often. Hence the finalists are measured once more, interleaved with the
reference and by a longer protocol than the search's, and only that decides whether they are on
target. Where estimates turn out to be off by a common factor, later finalists are chosen with the
factor taken into account.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING

from device_agents.api import BenchProtocol, Failure
from device_agents.errors import TargetError
from device_agents.plural import number_of
from pipeline.measure.timer import HALF_WIDTHS_PER_STDERR
from pipeline.search.estimate.measured import MeasuredLatency
from pipeline.search.serving import create_combination

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.spec import ArchSpec
    from pipeline.recipe.sections import SearchSection
    from pipeline.search.api import Estimate, Spec, Trial
    from pipeline.search.serving import ServedDevice

FINALIST = replace(
    BenchProtocol.quick(),
    name="finalist",
    processes=5,
    max_processes=8,
    max_s=0.2,
    target_half_width=0.02,
)
"""Between the search's protocol and that of published figures."""

TRIES_PER_FINALIST = 4
"""So many candidates are measured, at most, for each finalist that is wanted."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A finalist: what the search went by, and what the device said at last.

    Attributes:
        index: its place in the search.
        measured: latency; of several devices combined, in milliseconds of the first.
        by_device: each device's own.
    """

    index: int
    trial: Trial[ArchSpec]
    measured: Estimate
    by_device: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def predicted(self) -> Estimate:
        """The latency that the search went by: an estimate, or its own first measurement."""
        estimates = self.trial.estimates
        return estimates.get("table_ms", estimates["latency_ms"])

    @property
    def off_by(self) -> float:
        """Measured latency over the trial's, which is what candidates are chosen by."""
        return self.measured.value / self.trial.estimates["latency_ms"].value

    @property
    def upper_ms(self) -> float:
        """Upper end of the 95 % interval of the measured latency."""
        return upper_ms(self.measured)


def upper_ms(latency: Estimate) -> float:
    """Return the upper end of the 95 % interval of a latency."""
    return latency.value + HALF_WIDTHS_PER_STDERR * latency.stderr


def confirm_finalists(
    devices: Sequence[ServedDevice],
    trials: Sequence[Trial[ArchSpec]],
    *,
    section: SearchSection,
    lost: bool = False,
) -> list[Confirmed]:
    """Measure the best candidates again; return those on target, best first.

    Args:
        devices: what the network is to serve, the run's own device first.
        trials: of the search, repeats included.
        section: how many are wanted, how devices are combined, and what was searched for.
        lost: the device went away: what the search measured stands.

    Raises:
        TargetError: none is on target; says how near the fastest came and how it was found.
        DeviceError: the device went away; the same command goes on where it was.
    """
    target_ms, wanted = devices[0].target_ms, section.finalists
    ranked = best_first(trials, by_accuracy=section.objective == "pareto")
    if not ranked:
        reason = trials[0].failure.reason if trials and trials[0].failure else "nothing was tried"
        raise TargetError(f"{number_of(len(trials), 'candidate')} and none worked: {reason}")
    if lost:
        again = [Confirmed(i, trial, trial.estimates["latency_ms"]) for i, trial in ranked]
    else:
        with devices[0].bench.events.task("measure the finalists again", wanted) as task:
            again = _Again(devices, section).finalists(ranked, wanted, task.update)
    meeting = [found for found in again if found.upper_ms <= target_ms][:wanted]
    if not meeting:
        raise TargetError(_missed(devices, section.strategy, ranked, again))
    return meeting


def best_first(
    trials: Sequence[Trial[Spec]], *, by_accuracy: bool = False
) -> list[tuple[int, Trial[Spec]]]:
    """Return (index, trial) of what could be evaluated, best first; repeats count once.

    The area of one point favours speed below the target, so a Pareto search goes by accuracy here.
    """
    first: dict[Spec, tuple[int, Trial[Spec]]] = {}
    for index, trial in enumerate(trials):
        if trial.failure is None:
            first.setdefault(trial.spec, (index, trial))

    def worth(item: tuple[int, Trial[Spec]]) -> float:
        return item[1].estimates["accuracy"].value if by_accuracy else item[1].score

    return sorted(first.values(), key=worth, reverse=True)


class _Again:
    """Measures finalists on every device of the search."""

    def __init__(self, devices: Sequence[ServedDevice], section: SearchSection) -> None:
        self.devices = devices
        self.combine = create_combination(section, devices)
        self.estimators = {d.name: MeasuredLatency(d.timer, FINALIST) for d in devices}

    def finalists(
        self,
        ranked: Sequence[tuple[int, Trial[ArchSpec]]],
        wanted: int,
        on_found: Callable[[int], None],
    ) -> list[Confirmed]:
        """Measure candidates, best first, until `wanted` are on target or none is promising.

        If none is, the one that ought to be fastest is measured too: it says what is possible.
        """
        target_ms = self.devices[0].target_ms
        left, found, good = list(ranked), list[Confirmed](), 0
        for _ in range(TRIES_PER_FINALIST * wanted):
            scale = median([f.off_by for f in found] or [1.0])
            promising = (i for i in left if scale * _bound_ms(i[1]) <= target_ms)
            fastest = min(left, key=lambda i: i[1].estimates["latency_ms"].value, default=None)
            item = next(promising, None) or (None if good else fastest)
            if item is None or good == wanted:
                break
            hopeless = scale * _bound_ms(item[1]) > target_ms
            left.remove(item)
            if (one := self._one(*item)) is not None:
                found.append(one)
                good += one.upper_ms <= target_ms
                on_found(good)
            if hopeless and not good:
                break
        return found

    def _one(self, index: int, trial: Trial[ArchSpec]) -> Confirmed | None:
        with ThreadPoolExecutor(len(self.devices), thread_name_prefix="devices") as pool:
            asked = {
                name: pool.submit(estimator.estimate, [trial.spec])
                for name, estimator in self.estimators.items()
            }
            by_device: dict[str, Estimate] = {}
            for name, future in asked.items():
                estimate = future.result()[0]
                if isinstance(estimate, Failure):
                    reason = f"candidate {index} is dropped: on {name}: {estimate.reason}"
                    self.devices[0].bench.events.say(reason)
                    return None
                by_device[name] = estimate
        return Confirmed(index, trial, self.combine(by_device), by_device)


def _bound_ms(trial: Trial[ArchSpec]) -> float:
    """Return what must be below the target: of what was measured, the end of its interval."""
    latency = trial.estimates["latency_ms"]
    return upper_ms(latency) if latency.source == "measured" else latency.value


def _missed(
    devices: Sequence[ServedDevice],
    strategy: str,
    ranked: Sequence[tuple[int, Trial[ArchSpec]]],
    again: Sequence[Confirmed],
) -> str:
    """Return the sentence for a target that no candidate meets."""
    known = [Confirmed(i, trial, trial.estimates["latency_ms"]) for i, trial in ranked]
    fastest = min(again or known, key=lambda found: found.upper_ms)
    said = fastest.predicted
    guess = "" if said.source == "measured" else f", {said.source} as {said.value:.4g} ms"
    names = " and ".join(device.name for device in devices)
    return (
        f"no candidate meets the target of {devices[0].target_ms:.4g} ms on {names}: the fastest "
        f"of {number_of(len(ranked), 'candidate')} ({len(again)} measured at the end) took "
        f"{fastest.measured.value:.4g} ms (up to {fastest.upper_ms:.4g} ms{guess}; "
        f"{fastest.trial.estimates['accuracy'].source} accuracy "
        f"{fastest.trial.estimates['accuracy'].value:.1%}) and was found by {strategy} as "
        f"candidate {fastest.index}; raise the target, offer fewer or narrower stages, or search "
        "longer"
    )
