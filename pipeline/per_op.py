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
from models.graph import INPUT, Graph, Op, lower
from pipeline.baseline import encode_untrained
from pipeline.export import create
from pipeline.export.api import ExportError
from pipeline.measure import measure
from pipeline.result import OpRow

if TYPE_CHECKING:
    from models.spec import ArchSpec
    from pipeline.context import Context


def alone(op: Op) -> Graph | None:
    """Return the op as a graph of its own; None where the formats have no such model.

    An op of two tensors of one shape reads the one input twice. A gate's multiplication and a
    dense layer read shapes that a model's image input cannot have.
    """
    if len(set(op.in_shapes)) > 1 or len(op.in_shapes[0]) != 3:
        return None
    height, width, channels = op.in_shapes[0]
    single = Op(
        op.kind, op.name, tuple(INPUT for _ in op.inputs), op.in_shapes, op.out_shape,
        op.kernel, op.stride, op.padding, op.act, op.keepdims,
    )  # fmt: skip
    return Graph((height, width, channels), (single,))


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
    graph = alone(op)
    if graph is None:
        return None

    def file() -> Path:
        path = folder / f"op{create(ctx.profile.runtime).suffix}"
        path.write_bytes(encode_untrained(ctx, graph, np.random.default_rng(0)))
        return path

    subject = {"op": op.key, "scheme": ctx.recipe.quantize.scheme}
    try:
        outcome = measure(ctx, subject, file, BenchProtocol.quick())
    except ExportError:
        return None
    return None if isinstance(outcome, Failure) else outcome.median_ms
