"""What each op of a network costs on the device: every distinct op alone, as a one-op model.

The runtimes' Python packages give no per-op times, so each op is written as a model of its own in
the deployed number format and timed. Fusion and caches make the sum differ from the whole; the
report shows both.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from device_agents.api import BenchProtocol, Failure
from models.cost import cost
from models.lower import lower
from pipeline.formats import create
from pipeline.formats.api import ExportError
from pipeline.measure.isolated import isolated
from pipeline.measure.latency import measure
from pipeline.measure.reference import encode_untrained
from pipeline.store.result import OpRow

if TYPE_CHECKING:
    from models.graph import Graph, Op
    from models.spec import ArchSpec
    from pipeline.measure.context import Context


def per_op(ctx: Context, spec: ArchSpec) -> tuple[OpRow, ...]:
    """Measure every distinct op of a network; one row for each op, in execution order."""
    graph = lower(spec)
    counted = {c.name: c for c in cost(graph, bytes_per_element=1).per_op}
    latencies: dict[str, float | None] = {}
    keys = {op.key: op for op in graph.ops}
    with (
        tempfile.TemporaryDirectory(prefix="edgewright-") as folder,
        ctx.progress.task("measure each op", len(keys)) as task,
    ):
        for key, op in keys.items():
            latencies[key] = _latency_ms(ctx, op, Path(folder))
            task.advance(key)
    return tuple(
        OpRow(
            name=op.name,
            kind=op.kind,
            key=op.key,
            macs=counted[op.name].macs,
            params=counted[op.name].params,
            activation_bytes=int(np.prod(op.out_shape)),
            latency_ms=latencies[op.key],
        )
        for op in graph.ops
    )


def _latency_ms(ctx: Context, op: Op, folder: Path) -> float | None:
    """Return what an op takes alone: the rest of its model taken off, never below 0."""
    model = isolated(op)
    whole_ms = _graph_ms(ctx, model.graph, folder)
    rest_ms = _graph_ms(ctx, model.without, folder)
    if whole_ms is None or rest_ms is None:
        return None
    return max(whole_ms - rest_ms, 0.0)


def _graph_ms(ctx: Context, graph: Graph, folder: Path) -> float | None:
    def file() -> Path:
        path = folder / f"op{create(ctx.profile.runtime).suffix}"
        path.write_bytes(encode_untrained(ctx, graph, np.random.default_rng(0)))
        return path

    subject = {"graph": graph.digest(), "scheme": ctx.recipe.quantize.scheme}
    try:
        outcome = measure(ctx, subject, file, BenchProtocol.quick())
    except ExportError:
        return None
    return None if isinstance(outcome, Failure) else outcome.median_ms
