"""The one way to ask a device what a network takes: in turns with the reference, with an error.

A graph is written with random weights: latency does not depend on their values, so it is known
before, or while, the network is trained. Its latency is its ratio to the reference times the
reference's own latency, which was measured once, thoroughly: load on the machine slows both alike
and cancels.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchProtocol, Failure, Measurement
from pipeline.measure import untrained
from pipeline.measure.isolated import isolate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.graph import Graph, Op
    from pipeline.measure.bench import DeviceBench, HashedFile
    from pipeline.measure.form import Form
    from pipeline.measure.reference import Reference

OP_PROTOCOL = replace(BenchProtocol.quick(), name="op", processes=2, max_processes=4)
"""Of ops: what one is off by counts for little in a sum of forty, and there are hundreds."""

HALF_WIDTHS_PER_STDERR = 1.96


@dataclass(frozen=True, slots=True)
class Timing:
    """A latency, relative to the reference's own, with its standard error.

    Attributes:
        measurement: that it rests on.
    """

    latency_ms: float
    stderr_ms: float
    measurement: Measurement


@dataclass(frozen=True, slots=True)
class OpTiming:
    """What an op takes alone: the rest of its model taken off, never below 0.

    Attributes:
        ci95_ms: cut off at 0 as well.
        measurements: of its model and of the model without it; the first one timed it.
    """

    latency_ms: float
    stderr_ms: float
    ci95_ms: tuple[float, float]
    measurements: tuple[Measurement, Measurement]


@dataclass(frozen=True, slots=True)
class Timer:
    """Times networks on one device, written in one form, beside one reference; each once a run."""

    bench: DeviceBench
    form: Form
    reference: Reference

    def time_graph(self, graph: Graph, protocol: BenchProtocol) -> Timing | Failure:
        """Return a graph's latency, or why there is none.

        Raises:
            ExportError: the form cannot express an op.
            DeviceError: the device stopped answering; the same command goes on later.
        """
        subject = {"graph": graph.digest(), "scheme": str(self.form.number_format)}
        with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:

            def write() -> Path:
                path = Path(folder) / f"model{self.form.suffix}"
                path.write_bytes(untrained.encode(self.bench, self.form, graph))
                return path

            return self._time(subject, write, protocol)

    def time_file(self, file: HashedFile, protocol: BenchProtocol) -> Timing | Failure:
        """Return the latency of a file of the form, or why there is none.

        Raises:
            DeviceError: the device stopped answering; the same command goes on later.
        """
        return self._time({"model": file.sha256}, lambda: file.path, protocol)

    def time_op(self, op: Op) -> OpTiming | Failure:
        """Return what an op takes alone, or why that is not known: `detail` says of what.

        Raises as `time_graph` does.
        """
        model = isolate(op)
        whole = self.time_graph(model.graph, OP_PROTOCOL)
        if isinstance(whole, Failure):
            return replace(whole, detail=f"the op {op.key}")
        rest = self.time_graph(model.without, OP_PROTOCOL)
        if isinstance(rest, Failure):
            return replace(rest, detail=f"what the op {op.key} reads")
        difference_ms = whole.latency_ms - rest.latency_ms
        stderr_ms = math.hypot(whole.stderr_ms, rest.stderr_ms)
        half_ms = HALF_WIDTHS_PER_STDERR * stderr_ms
        return OpTiming(
            max(difference_ms, 0.0),
            stderr_ms,
            (max(difference_ms - half_ms, 0.0), max(difference_ms + half_ms, 0.0)),
            (whole.measurement, rest.measurement),
        )

    def list_measurements(self) -> list[Measurement]:
        """Return all that the run has had measured beside the reference, invalid ones included."""
        stored = self.bench.memo.store.measurements(run_id=self.bench.run_id)
        return [
            Measurement.from_json(one.data)
            for one in stored
            if one.reference_sha256 == self.reference.sha256
        ]

    def _time(
        self, subject: Mapping[str, Any], file: Callable[[], Path], protocol: BenchProtocol
    ) -> Timing | Failure:
        found = self.bench.measure(subject, file, protocol=protocol, beside=self.reference)
        if isinstance(found, Failure):
            return found
        if found.ratio is None or found.ratio_ci95 is None:
            return Failure("the device gave no ratio to the reference model")
        low, high = found.ratio_ci95
        # The interval need not be symmetric: its wider side, so that the upper end is not missed.
        stderr = max(high - found.ratio, found.ratio - low) / HALF_WIDTHS_PER_STDERR
        own_ms = self.reference.latency_ms
        return Timing(found.ratio * own_ms, stderr * own_ms, found)
