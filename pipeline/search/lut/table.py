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
import math
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import BenchProtocol, Failure
from device_agents.errors import ConfigError, DeviceError
from models.lower import lower
from pipeline.formats import create as create_exporter
from pipeline.measure.isolated import EMPTY, isolated
from pipeline.measure.latency import measure
from pipeline.measure.reference import encode_untrained
from pipeline.search import space as spaces
from pipeline.search.estimate.measured import HALF_WIDTHS_PER_STDERR
from pipeline.search.lut.calibration import Whole, additivity, calibrate
from pipeline.search.lut.ops import distinct_ops
from profiles.table import Additivity, LatencyTable, TableEntry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from models.graph import Graph, Op
    from models.spec import ArchSpec
    from pipeline.measure.context import Context
    from pipeline.measure.reference import Reference
    from pipeline.search.api import SearchSpace
    from pipeline.store.events import Task

NETWORKS = 20
"""Networks that are measured whole: beyond these the corrections hardly move."""

OP_PROTOCOL = replace(BenchProtocol.quick(), name="op", processes=2, max_processes=4)
"""Of ops: what one is off by counts for little in a sum of forty, and there are hundreds."""

_CORRECTING, _TESTING = 2, 3
"""Streams of random numbers: a check draws other networks than those the table was made with."""

_DISTURBED = 0.25
_DRAWS_PER_NETWORK = 20
_FEWEST_NETWORKS = 2


def table_for(
    ctx: Context,
    reference: Reference,
    space: SearchSpace[ArchSpec],
    *,
    networks: int = NETWORKS,
) -> LatencyTable:
    """Return the latency table of a space on the run's device, measuring what is not measured yet.

    Every op that a network of the space can have is in it, by `Op.key`. A second call, or a
    resumed run, measures nothing again.

    Args:
        ctx: the run: its device, runtime, threads and number format are the table's.
        reference: what everything is timed beside.
        space: whose ops.
        networks: how many random ones are measured whole to correct and to test the table, two
            or more.

    Raises:
        DeviceError: the device went away, or it refuses an op; what was measured is stored.
        ConfigError: the ops of the space cannot be enumerated, or it has a single network.
    """
    ops = distinct_ops(space)
    drawn = _drawn(space, networks, [ctx.recipe.seed, _CORRECTING])
    with _Timer.of(ctx, reference) as timer:
        with ctx.progress.task(f"measure the ops of {space.name}", len(ops)) as task:
            overhead = timer.required(EMPTY, "an empty model")
            alone = {key: _alone(timer, op, overhead, task) for key, op in ops.items()}
        measured = _measured_networks(timer, drawn, networks)
        timer.warn()
    found = calibrate(alone, overhead, list(measured.values()))
    conditions = reference.measurement
    return LatencyTable(
        device=ctx.device.name,
        device_digest=conditions.device_digest,
        runtime=conditions.runtime,
        runtime_version=conditions.runtime_version,
        threads=conditions.threads,
        cpus=tuple(conditions.cpus),
        settings=dict(conditions.settings),
        scheme=ctx.recipe.quantize.scheme,
        when=conditions.started_at,
        overhead=found.overhead,
        entries=found.entries,
        relative_error=found.relative_error,
        additivity=found.additivity,
        space=_plain(space),
        networks=tuple(map(str, measured)),
        reference={
            "name": reference.name,
            "sha256": reference.sha256,
            "latency_ms": conditions.median_ms,
        },
        edgewright=version("edgewright"),
    )


def check_additivity(
    ctx: Context, reference: Reference, table: LatencyTable, networks: int = NETWORKS
) -> Additivity:
    """Measure random networks of a table's space whole and compare them with its sums.

    Raises:
        TableMismatchError: the table is for something else than the run's device or settings.
        ConfigError: the space has too few networks that the table was not made with.
        DeviceError: the device went away, or too few networks can be measured.
    """
    measured = other_networks(ctx, reference, table, networks)
    table = table.beside(reference.sha256, reference.measurement.median_ms)
    sums = np.array([table.latency_ms(network.keys)[0] for network in measured])
    return additivity(sums, np.array([network.latency_ms for network in measured]))


def other_networks(
    ctx: Context, reference: Reference, table: LatencyTable, count: int = NETWORKS
) -> list[Whole]:
    """Measure random networks of a table's space whole, others than it was made with.

    Raises:
        TableMismatchError: the table is for something else than the run's device or settings.
        ConfigError: the space has too few networks that the table was not made with.
        DeviceError: the device went away, or too few networks can be measured.
    """
    table.check(reference.measurement, ctx.recipe.quantize.scheme)
    drawn = _drawn(space_of(table), count, [ctx.recipe.seed, _TESTING], without=table.networks)
    with _Timer.of(ctx, reference) as timer:
        return list(_measured_networks(timer, drawn, count).values())


def space_of(table: LatencyTable) -> SearchSpace[ArchSpec]:
    """Return the space that a table was built for. Raises ConfigError if it is no more."""
    options = dict(table.space)
    return spaces.create(options.pop("name", ""), **options)


def _plain(space: SearchSpace[ArchSpec]) -> dict[str, Any]:
    """Return a space as plain JSON values."""
    options = asdict(space)  # type: ignore[call-overload]
    plain: dict[str, Any] = json.loads(json.dumps({"name": space.name, **options}))
    return plain


@dataclass(frozen=True, slots=True)
class _Timer:
    """Times graphs on the run's device, each once within the run.

    `verdicts` are those of the measurements so far.
    """

    ctx: Context
    reference: Reference
    folder: Path
    verdicts: list[str] = field(default_factory=list)

    @classmethod
    @contextmanager
    def of(cls, ctx: Context, reference: Reference) -> Iterator[_Timer]:
        with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
            yield cls(ctx, reference, Path(folder))

    def timed(self, graph: Graph, protocol: BenchProtocol) -> TableEntry | Failure:
        """Return a graph's latency: its ratio to the reference times the reference's own."""

        def file() -> Path:
            path = self.folder / f"model{create_exporter(self.ctx.profile.runtime).suffix}"
            path.write_bytes(encode_untrained(self.ctx, graph, np.random.default_rng(0)))
            return path

        outcome = measure(
            self.ctx,
            {"graph": graph.digest(), "scheme": self.ctx.recipe.quantize.scheme},
            file,
            protocol,
            reference=self.reference.path,
            reference_sha256=self.reference.sha256,
        )
        if isinstance(outcome, Failure):
            return outcome
        if outcome.ratio is None or outcome.ratio_ci95 is None:
            return Failure("the device gave no ratio to the reference model")
        self.verdicts.append(outcome.verdict)
        low, high = outcome.ratio_ci95
        reference_ms = self.reference.measurement.median_ms
        stderr = max(high - outcome.ratio, outcome.ratio - low) / HALF_WIDTHS_PER_STDERR
        samples = len(outcome.process_medians_ms)
        return TableEntry(outcome.ratio * reference_ms, stderr * reference_ms, samples)

    def required(self, graph: Graph, what: str) -> TableEntry:
        """Return an op's latency. Raises DeviceError if there is none: a table has no gaps."""
        outcome = self.timed(graph, OP_PROTOCOL)
        if isinstance(outcome, Failure):
            raise DeviceError(
                f"device {self.ctx.device.name!r} cannot measure {what}: "
                f"{outcome.reason.rstrip('.')}; without it there is no latency table; leave the "
                'option that needs it out of the space, or search with latency = "measured"'
            )
        return outcome

    def warn(self) -> None:
        """Say so if many measurements were disturbed: the table is then no better than they."""
        suspect = sum(verdict != "valid" for verdict in self.verdicts)
        if suspect > _DISTURBED * len(self.verdicts):
            self.ctx.progress.say(
                f"{suspect} of {len(self.verdicts)} measurements on {self.ctx.device.name} are "
                "suspect: it was busy or hot; for a better table build it again on a quiet device "
                "(--fresh)"
            )


def _alone(timer: _Timer, op: Op, overhead: TableEntry, task: Task) -> TableEntry:
    """Return what an op takes alone, the rest of its model subtracted, never below 0."""
    model = isolated(op)
    whole = timer.required(model.graph, f"the op {op.key}")
    rest = overhead
    if model.without != EMPTY:
        rest = timer.required(model.without, f"what the op {op.key} reads")
    task.advance(op.key)
    latency_ms = max(whole.latency_ms - rest.latency_ms, 0.0)
    stderr_ms = math.hypot(whole.stderr_ms, rest.stderr_ms)
    return TableEntry(latency_ms, stderr_ms, whole.samples, alone_ms=latency_ms)


def _drawn(
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


def _measured_networks(
    timer: _Timer, drawn: Sequence[ArchSpec], count: int
) -> dict[ArchSpec, Whole]:
    """Measure the first `count` networks whole; one that fails is replaced by the next.

    Raises:
        DeviceError: fewer than two can be measured.
    """
    found: dict[ArchSpec, Whole] = {}
    failure = ""
    with timer.ctx.progress.task("measure whole networks", min(count, len(drawn))) as task:
        for spec in drawn:
            if len(found) == count:
                break
            graph = lower(spec)
            outcome = timer.timed(graph, BenchProtocol.quick())
            if isinstance(outcome, Failure):
                failure = outcome.reason
                continue
            keys = tuple(op.key for op in graph.ops)
            found[spec] = Whole(keys, outcome.latency_ms, outcome.stderr_ms)
            task.advance()
    if len(found) < _FEWEST_NETWORKS:
        raise DeviceError(
            f"{len(found)} of {len(drawn)} networks could be measured on "
            f"{timer.ctx.device.name!r}, a table needs {_FEWEST_NETWORKS}: {failure}"
        )
    return found
