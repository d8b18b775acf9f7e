"""A few-shot latency model in a run: which networks are measured, and what is known beforehand.

Networks to measure are chosen from a random pool of the space, before anything is measured; one
that cannot be measured is replaced by the next best. Earlier runs in the store that measured
candidates of the same space on other devices are known devices: the prior is learnt from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import Failure
from device_agents.errors import DeviceError
from models.cost import cost
from models.spec import ArchSpec
from pipeline.search.estimate.few_shot import (
    Features,
    FewShotLatency,
    FewShotModel,
    KnownDevice,
    LatencyPrior,
    choose,
)
from pipeline.store.memo import StepKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from pipeline.measure.context import Context
    from pipeline.recipe.recipe import Recipe
    from pipeline.search.api import Estimate, Estimator, SearchSpace

KNOWN_DEVICES = StepKind("known-devices")


POOL = 400
"""Random networks that stand for the space."""

SPARE = 2
"""So many times as many networks are tried, at most, as are to be measured."""

FEWEST_OF_A_KNOWN_DEVICE = 30
_STREAM = 4


def fitted(
    ctx: Context, space: SearchSpace[ArchSpec], measured: Estimator[ArchSpec]
) -> FewShotLatency[ArchSpec]:
    """Measure `search.measurements` networks and return the model of all others.

    Raises:
        DeviceError: the device went away, or can measure none of them.
    """
    rng = np.random.default_rng([ctx.recipe.seed, _STREAM])
    pool = list(dict.fromkeys(space.sample(rng) for _ in range(POOL)))

    def features(specs: Sequence[ArchSpec]) -> Features:
        return features_of(space, specs)

    known = known_devices(ctx, space, features)
    prior = LatencyPrior.learnt(known) if known else LatencyPrior.counted(features(pool))
    count = min(ctx.recipe.search.measurements, len(pool))
    found: list[tuple[ArchSpec, Estimate]] = []
    with ctx.progress.task("measure networks for a latency model", count) as task:
        for row in choose(prior, features(pool), SPARE * count):
            if len(found) == count:
                break
            outcome = measured.estimate([pool[row]])[0]
            if not isinstance(outcome, Failure):
                found.append((pool[row], outcome))
                task.update(len(found))
    if not found:
        raise DeviceError(f"device {ctx.device.name!r} could measure no network of {space.name!r}")
    specs, latencies = zip(*found, strict=True)
    values = np.array([latency.value for latency in latencies])
    errors = np.array([latency.stderr for latency in latencies])
    return FewShotLatency(FewShotModel(prior, features(specs), values, errors), features)


def features_of(space: SearchSpace[ArchSpec], specs: Sequence[ArchSpec]) -> Features:
    """Return what the model sees of networks: counted costs, and the space's own features."""
    return Features(
        np.stack([_counted(spec) for spec in specs]),
        np.stack([space.features(spec) for spec in specs]),
    )


_KINDS = ("conv", "depthwise", "dense")


def _counted(spec: ArchSpec) -> npt.NDArray[np.float64]:
    """Return what a network's ops take in counts: of MACs by kind, of numbers moved, of ops."""
    per_op = cost(spec).per_op
    macs = [sum(op.macs for op in per_op if op.kind == kind) for kind in _KINDS]
    moved = [sum(op.out_elements for op in per_op), sum(op.params for op in per_op)]
    return np.array([*macs, *moved, len(per_op)], np.float64)


def known_devices(
    ctx: Context,
    space: SearchSpace[ArchSpec],
    features: Callable[[Sequence[ArchSpec]], Features],
) -> list[KnownDevice]:
    """Return the other devices on which a run in the store measured networks of the space.

    As the store has them when this run first asks: a run that goes on after others have measured
    more must choose the same networks as before.
    """
    step = ctx.memo.once(KNOWN_DEVICES, {"run": ctx.run.id}, lambda: (_measured_elsewhere(ctx), {}))
    found = [
        (name, {ArchSpec.parse(line): latency_ms for line, latency_ms in rows.items()})
        for name, rows in step.result.items()
    ]
    return [
        KnownDevice(name, features(list(rows)), np.array(list(rows.values())))
        for name, rows in found
        if len(rows) >= FEWEST_OF_A_KNOWN_DEVICE and all(spec in space for spec in rows)
    ]


def _measured_elsewhere(ctx: Context) -> dict[str, dict[str, float]]:
    """Return latencies in milliseconds by device and spec line."""
    found: dict[str, dict[str, float]] = {}
    for run in ctx.store.runs():
        if run.device == ctx.profile.name or not _same_space(run.recipe, ctx.recipe):
            continue
        for row in ctx.store.trials(run.id):
            if row.get("latency_source") == "measured" and row["latency_ms"] is not None:
                # Of a search for several devices the row's own latency is all of them folded.
                latency_ms = row["by_device_ms"].get(run.device, row["latency_ms"])
                found.setdefault(run.device, {})[row["spec"]] = latency_ms
    return found


def _same_space(stored: Mapping[str, Any], recipe: Recipe) -> bool:
    ours = recipe.to_json()
    sections = (("search", "space"), ("search", "space_options"), ("data", "resolution"))
    alike = all(stored[part].get(key) == ours[part][key] for part, key in sections)
    return bool(alike and stored["quantize"]["scheme"] == ours["quantize"]["scheme"])
