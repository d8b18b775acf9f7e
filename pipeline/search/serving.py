"""The devices that a search serves: each with its own reference model and its own target.

The run's own device comes first; `[[search.also]]` of the recipe names the others. A search is
shown one latency: the first device's, or all of them folded into one
(`pipeline.search.objective.several`).
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents.api import BenchProtocol
from pipeline.formats import create as create_exporter
from pipeline.measure.latency import measure
from pipeline.measure.reference import encode_untrained, reference
from pipeline.search import objective as objectives
from pipeline.search.estimate.measured import MeasuredLatency
from pipeline.search.objective.several import DeviceTarget, SeveralDevices, metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from device_agents.api import Failure, Measurement
    from models.graph import Graph
    from pipeline.measure.context import Context
    from pipeline.measure.reference import Reference
    from pipeline.recipe.recipe import SearchSection
    from pipeline.search.api import Estimate, Objective


@dataclass(frozen=True, slots=True)
class Served:
    """One device of the search.

    Attributes:
        ctx: the run, with this device as its device.
        reference: what is timed beside every candidate there.
        target_ms: the latency aimed at there.
        weight: counts where devices are combined by weight.
    """

    ctx: Context
    reference: Reference
    target_ms: float
    weight: float = 1.0

    @property
    def name(self) -> str:
        """The user's name of the device."""
        return self.ctx.device.name


def served(ctx: Context, own: Reference) -> tuple[Served, ...]:
    """Return the devices of a run's search, its own first; measures the others' reference.

    Raises:
        DeviceError: a device cannot measure it.
    """
    target = ctx.recipe.target
    own_ms = target.latency_ms or target.latency_ratio * own.measurement.median_ms
    found = [Served(ctx, own, own_ms)]
    for section, other in zip(ctx.recipe.search.also, ctx.others, strict=True):
        beside = reference(other)
        target_ms = section.latency_ratio * beside.measurement.median_ms
        found.append(Served(other, beside, target_ms, section.weight))
    return tuple(found)


def objective(section: SearchSection, target_ms: float) -> Objective:
    """Return the recipe's objective for one device's target."""
    return objectives.create(section.objective, target_ms, exponent=section.exponent)


def fold(section: SearchSection, devices: Sequence[Served]) -> Callable[..., Estimate]:
    """Return what makes one latency of the devices' latencies by name.

    It is on target where its value is at most that of the first device.
    """
    targets = tuple(DeviceTarget(d.name, d.target_ms, d.weight) for d in devices)
    several = SeveralDevices(objective(section, devices[0].target_ms), targets, section.combine)

    def folded(by_device: Mapping[str, Estimate]) -> Estimate:
        return several.folded({metric(k): v for k, v in by_device.items()})["latency_ms"]

    return folded


@contextmanager
def measuring(
    ctx: Context, beside: Reference, protocol: BenchProtocol | None = None
) -> Iterator[MeasuredLatency]:
    """Give an estimator that measures networks on the run's device, interleaved with `beside`."""
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        yield MeasuredLatency(
            _measure_once(ctx, beside),
            lambda graph, rng: encode_untrained(ctx, graph, rng),
            Path(folder),
            beside.measurement.median_ms,
            create_exporter(ctx.profile.runtime).suffix,
            protocol or BenchProtocol.quick(),
        )


def _measure_once(
    ctx: Context, beside: Reference
) -> Callable[[Graph, Callable[[], Path], BenchProtocol], Measurement | Failure]:
    def measured(
        graph: Graph, file: Callable[[], Path], protocol: BenchProtocol
    ) -> Measurement | Failure:
        return measure(
            ctx,
            {"graph": graph.digest(), "scheme": ctx.recipe.quantize.scheme},
            file,
            protocol,
            reference=beside.path,
            reference_sha256=beside.sha256,
        )

    return measured
