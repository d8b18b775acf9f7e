"""What each op of a network costs on the device: every distinct op alone, as a one-op model.

The runtimes' Python packages give no per-op times, so each op is written as a model of its own in
the deployed number format and timed. Fusion and caches make the sum differ from the whole; the
report shows both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from device_agents.api import Failure
from models.cost import cost
from models.lower import lower
from pipeline.formats.api import ExportError
from pipeline.store.result import OpRow

if TYPE_CHECKING:
    from models.graph import Op
    from models.spec import ArchSpec
    from pipeline.measure.timer import OpTiming, Timer


def measure_ops(timer: Timer, spec: ArchSpec) -> tuple[OpRow, ...]:
    """Measure every distinct op of a network; one row for each op, in execution order."""
    graph = lower(spec)
    counted = {c.name: c for c in cost(graph, bytes_per_element=1).per_op}
    timings: dict[str, OpTiming | None] = {}
    keys = {op.key: op for op in graph.ops}
    with timer.bench.events.task("measure each op", len(keys)) as task:
        for key, op in keys.items():
            timings[key] = _timing(timer, op)
            task.advance(key)
    return tuple(
        OpRow(
            name=op.name,
            kind=op.kind,
            key=op.key,
            macs=counted[op.name].macs,
            params=counted[op.name].params,
            activation_bytes=int(np.prod(op.out_shape)),
            latency_ms=None if (timing := timings[op.key]) is None else timing.latency_ms,
            latency_ci95_ms=None if timing is None else timing.ci95_ms,
            pointwise=op.pointwise,
            block=op.block or op.name,
        )
        for op in graph.ops
    )


def _timing(timer: Timer, op: Op) -> OpTiming | None:
    """Return what an op takes alone; None where the form has no such op, or it does not run."""
    try:
        found = timer.time_op(op)
    except ExportError:
        return None
    return None if isinstance(found, Failure) else found
