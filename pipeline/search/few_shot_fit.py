"""A few-shot latency model in a run: which networks are measured, and what is known beforehand.

Networks to measure are chosen from a random pool of the space, before anything is measured; one
that cannot be measured is replaced by the next best. Earlier runs in the store that measured
candidates of the same space on other devices are known devices: the prior is learnt from them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
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

    from pipeline.measure.bench import DeviceBench
    from pipeline.search.api import Estimate, Estimator, SearchSpace

KNOWN_DEVICES = StepKind("known-devices")


POOL = 400
"""Random networks that stand for the space."""

SPARE = 2
"""So many times as many networks are tried, at most, as are to be measured."""

FEWEST_OF_A_KNOWN_DEVICE = 30
_STREAM = 4


@dataclass(frozen=True, slots=True)
class SearchedSpace:
    """What two searches must have in common, so that the latencies of one tell the other something.

    Attributes:
        space: its name; `options` are those that the recipe gives.
        resolution: of the images, pixels each way.
        scheme: the number format of candidates.
    """

    space: str
    options: Mapping[str, Any]
    resolution: int
    scheme: str

    def is_of(self, recipe: Mapping[str, Any]) -> bool:
        """Tell whether a stored recipe searched it."""
        search = recipe.get("search") or {}
        return bool(
            search.get("space") == self.space
            and search.get("space_options") == json.loads(json.dumps(self.options))
            and recipe["data"].get("resolution") == self.resolution
            and recipe["quantize"]["scheme"] == self.scheme
        )


def fit(
    bench: DeviceBench,
    space: SearchSpace[ArchSpec],
    measured: Estimator[ArchSpec],
    *,
    like: SearchedSpace,
    count: int,
    seed: int,
) -> FewShotLatency[ArchSpec]:
    """Measure a few networks and return the model of all others.

    Args:
        bench: the device.
        space: whose networks.
        measured: measures them there.
        like: which other runs are known devices of.
        count: networks to measure.
        seed: of the draws.

    Raises:
        DeviceError: the device went away, or can measure none of them.
    """
    rng = np.random.default_rng([seed, _STREAM])
    pool = list(dict.fromkeys(space.sample(rng) for _ in range(POOL)))

    def features(specs: Sequence[ArchSpec]) -> Features:
        return features_of(space, specs)

    known = find_known_devices(bench, space, like=like, features=features)
    prior = LatencyPrior.learnt(known) if known else LatencyPrior.counted(features(pool))
    count = min(count, len(pool))
    found: list[tuple[ArchSpec, Estimate]] = []
    with bench.events.task("measure networks for a latency model", count) as task:
        for row in choose(prior, features(pool), SPARE * count):
            if len(found) == count:
                break
            outcome = measured.estimate([pool[row]])[0]
            if not isinstance(outcome, Failure):
                found.append((pool[row], outcome))
                task.update(len(found))
    if not found:
        raise DeviceError(f"device {bench.name!r} could measure no network of {space.name!r}")
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


def find_known_devices(
    bench: DeviceBench,
    space: SearchSpace[ArchSpec],
    *,
    like: SearchedSpace,
    features: Callable[[Sequence[ArchSpec]], Features],
) -> list[KnownDevice]:
    """Return the other devices on which a run in the store measured networks of the space.

    As the store has them when this run first asks: a run that goes on after others have measured
    more must choose the same networks as before.
    """
    step = bench.memo.once(
        KNOWN_DEVICES, {"run": bench.run_id}, lambda: (_measured_elsewhere(bench, like), {})
    )
    found = [
        (name, {ArchSpec.parse(line): latency_ms for line, latency_ms in rows.items()})
        for name, rows in step.result.items()
    ]
    return [
        KnownDevice(name, features(list(rows)), np.array(list(rows.values())))
        for name, rows in found
        if len(rows) >= FEWEST_OF_A_KNOWN_DEVICE and all(spec in space for spec in rows)
    ]


def _measured_elsewhere(bench: DeviceBench, like: SearchedSpace) -> dict[str, dict[str, float]]:
    """Return latencies in milliseconds by device and spec line."""
    found: dict[str, dict[str, float]] = {}
    store = bench.memo.store
    for run in store.runs():
        if run.device == bench.profile.name or not like.is_of(run.recipe):
            continue
        for row in store.trials(run.id):
            if row.get("latency_source") == "measured" and row["latency_ms"] is not None:
                # Of a search for several devices the row's own latency is all of them combined.
                latency_ms = row["by_device_ms"].get(run.device, row["latency_ms"])
                found.setdefault(run.device, {})[row["spec"]] = latency_ms
    return found
