"""Latency tables: what every op of a search space costs on the device, inside a network.

1. Enumerate the distinct ops of the space (`pipeline.search.lut.ops`), not its networks.
2. Time each as a model of its own, in turns with the run's reference model, less what an
   inference costs that does next to nothing (`pipeline.measure.isolated`).
3. Time a few random networks of the space whole, and correct the entries by them
   (`pipeline.search.lut.calibration`). Each network, left out, also tests the table: its
   additivity. The table names them, so that a later test takes others.

Every measurement is remembered by the store within the run, so what is interrupted goes on where
it was.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import BenchProtocol, Failure
from device_agents.errors import ConfigError, DeviceError
from models.lower import lower
from pipeline.measure.isolated import EMPTY
from pipeline.measure.timer import OP_PROTOCOL
from pipeline.search import space as spaces
from pipeline.search.lut.calibration import Whole, additivity, calibrate
from pipeline.search.lut.ops import distinct_ops
from profiles.table import Additivity, LatencyTable, TableEntry

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from device_agents.api import Measurement
    from models.graph import Op
    from models.spec import ArchSpec
    from pipeline.measure.timer import Timer
    from pipeline.search.api import SearchSpace

NETWORKS = 20
"""Networks that are measured whole: beyond these the corrections hardly move."""

_CORRECTING, _TESTING = 2, 3
"""Streams of random numbers: a check draws other networks than those the table was made with."""

_DISTURBED = 0.25
_DRAWS_PER_NETWORK = 20
_FEWEST_NETWORKS = 2


def build_table(
    timer: Timer, space: SearchSpace[ArchSpec], *, seed: int, networks: int = NETWORKS
) -> LatencyTable:
    """Return the latency table of a space on a device, measuring what is not measured yet.

    Every op that a network of the space can have is in it, by `Op.key`. A second call, or a
    resumed run, measures nothing again.

    Args:
        timer: its device, runtime, threads and number format are the table's.
        space: whose ops.
        seed: of the networks drawn.
        networks: how many random ones are measured whole to correct and to test the table, two
            or more.

    Raises:
        DeviceError: the device went away, or it refuses an op; what was measured is stored.
        ConfigError: the ops of the space cannot be enumerated, or it has a single network.
    """
    ops = distinct_ops(space)
    drawn = _draw(space, networks, [seed, _CORRECTING])
    verdicts: dict[str, str] = {}
    overhead, alone = _measure_alone(timer, ops, f"measure the ops of {space.name}", verdicts)
    measured = _measure_networks(timer, drawn, networks, verdicts)
    _warn(timer, list(verdicts.values()))
    kinds = {key: op.kind for key, op in ops.items()}
    found = calibrate(alone, overhead, list(measured.values()), kinds)
    conditions = timer.reference.measurement
    return LatencyTable(
        device=timer.bench.name,
        device_digest=conditions.device_digest,
        runtime=conditions.runtime,
        runtime_version=conditions.runtime_version,
        threads=conditions.threads,
        cpus=tuple(conditions.cpus),
        settings=dict(conditions.settings),
        scheme=str(timer.form.number_format),
        when=conditions.started_at,
        overhead=found.overhead,
        entries=found.entries,
        relative_error=found.relative_error,
        additivity=found.additivity,
        space=_plain(space),
        networks=tuple(map(str, measured)),
        reference={
            "name": timer.reference.name,
            "sha256": timer.reference.sha256,
            "latency_ms": conditions.median_ms,
        },
        edgewright=version("edgewright"),
    )


def check_additivity(
    timer: Timer, table: LatencyTable, *, seed: int, networks: int = NETWORKS
) -> Additivity:
    """Measure random networks of a table's space whole and compare them with its sums.

    Raises:
        TableMismatchError: the table is for something else than the timer's device or settings.
        ConfigError: the space has too few networks that the table was not made with.
        DeviceError: the device went away, or too few networks can be measured.
    """
    measured = measure_others(timer, table, seed=seed, count=networks)
    table = table.rescale(timer.reference.sha256, timer.reference.latency_ms)
    sums = np.array([table.latency_ms(network.keys)[0] for network in measured])
    return additivity(sums, np.array([network.latency_ms for network in measured]))


def measure_others(
    timer: Timer, table: LatencyTable, *, seed: int, count: int = NETWORKS
) -> list[Whole]:
    """Measure random networks of a table's space whole, others than it was made with.

    Raises:
        TableMismatchError: the table is for something else than the timer's device or settings.
        ConfigError: the space has too few networks that the table was not made with.
        DeviceError: the device went away, or too few networks can be measured.
    """
    table.check(timer.reference.measurement, str(timer.form.number_format))
    drawn = _draw(restore_space(table), count, [seed, _TESTING], without=table.networks)
    return list(_measure_networks(timer, drawn, count, {}).values())


def restore_space(table: LatencyTable) -> SearchSpace[ArchSpec]:
    """Return the space that a table was built for. Raises ConfigError if it is no more."""
    options = dict(table.space)
    return spaces.create(options.pop("name", ""), **options)


def _plain(space: SearchSpace[ArchSpec]) -> dict[str, Any]:
    """Return a space as plain JSON values."""
    options = asdict(space)  # type: ignore[call-overload]
    plain: dict[str, Any] = json.loads(json.dumps({"name": space.name, **options}))
    return plain


def _measure_alone(
    timer: Timer, ops: Mapping[str, Op], title: str, verdicts: dict[str, str]
) -> tuple[TableEntry, dict[str, TableEntry]]:
    """Return what one inference costs at least, and each op alone; note verdicts by model.

    Raises:
        DeviceError: one cannot be measured: a table has no gaps.
    """
    with timer.bench.events.task(title, len(ops)) as task:
        empty = timer.time_graph(EMPTY, OP_PROTOCOL)
        if isinstance(empty, Failure):
            raise _gap(timer, replace(empty, detail="an empty model"))
        overhead = TableEntry(empty.latency_ms, empty.stderr_ms, _samples(empty.measurement))
        alone: dict[str, TableEntry] = {}
        for key, op in ops.items():
            found = timer.time_op(op)
            if isinstance(found, Failure):
                raise _gap(timer, found)
            latency_ms, samples = found.latency_ms, _samples(found.measurements[0])
            alone[key] = TableEntry(latency_ms, found.stderr_ms, samples, alone_ms=latency_ms)
            verdicts |= {one.model_sha256: one.verdict for one in found.measurements}
            task.advance(key)
    return overhead, alone


def _samples(measurement: Measurement) -> int:
    return len(measurement.process_medians_ms)


def _warn(timer: Timer, verdicts: Sequence[str]) -> None:
    """Say so if many measurements were disturbed: the table is then no better than they."""
    suspect = sum(verdict != "valid" for verdict in verdicts)
    if suspect > _DISTURBED * len(verdicts):
        timer.bench.events.say(
            f"{suspect} of {len(verdicts)} measurements on {timer.bench.name} are "
            "suspect: it was busy or hot; for a better table build it again on a quiet device "
            "(--fresh)"
        )


def _gap(timer: Timer, failure: Failure) -> DeviceError:
    return DeviceError(
        f"device {timer.bench.name!r} cannot measure {failure.detail}: "
        f"{failure.reason.rstrip('.')}; without it there is no latency table; leave the "
        'option that needs it out of the space, or search with latency = "measured"'
    )


def _draw(
    space: SearchSpace[ArchSpec], count: int, seed: Sequence[int], *, without: Collection[str] = ()
) -> list[ArchSpec]:
    """Return different random networks, up to twice as many as asked: the rest stand by.

    Args:
        space: whose networks.
        count: how many are to be measured.
        seed: of the draws.
        without: networks that are not to be among them, in the one-line form.

    Raises:
        ConfigError: the space has fewer than two.
    """
    rng = np.random.default_rng(seed)
    found: dict[ArchSpec, None] = {}
    for _ in range(_DRAWS_PER_NETWORK * count):
        spec = space.sample(rng)
        if str(spec) not in without:
            found[spec] = None
        if len(found) == 2 * count:
            break
    if len(found) < _FEWEST_NETWORKS:
        besides = f" besides the {len(without)} that its table was made with" if without else ""
        raise ConfigError(
            f"space {space.name!r} has {len(found)} networks to measure whole{besides}, a latency "
            f"table is held against {_FEWEST_NETWORKS} or more; give the space more options"
        )
    return list(found)


def _measure_networks(
    timer: Timer, drawn: Sequence[ArchSpec], count: int, verdicts: dict[str, str]
) -> dict[ArchSpec, Whole]:
    """Measure the first `count` networks whole; one that fails is replaced by the next.

    Verdicts are noted by model.

    Raises:
        DeviceError: fewer than two can be measured.
    """
    found: dict[ArchSpec, Whole] = {}
    failure = ""
    with timer.bench.events.task("measure whole networks", min(count, len(drawn))) as task:
        for spec in drawn:
            if len(found) == count:
                break
            graph = lower(spec)
            outcome = timer.time_graph(graph, BenchProtocol.quick())
            if isinstance(outcome, Failure):
                failure = outcome.reason
                continue
            keys = tuple(op.key for op in graph.ops)
            verdicts[outcome.measurement.model_sha256] = outcome.measurement.verdict
            found[spec] = Whole(keys, outcome.latency_ms, outcome.stderr_ms)
            task.advance()
    if len(found) < _FEWEST_NETWORKS:
        raise DeviceError(
            f"{len(found)} of {len(drawn)} networks could be measured on "
            f"{timer.bench.name!r}, a table needs {_FEWEST_NETWORKS}: {failure}"
        )
    return found
