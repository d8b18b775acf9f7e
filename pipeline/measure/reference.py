"""The model that everything is timed beside.

It is the narrowest width of the recipe's baseline, with random weights: every candidate is timed
interleaved with it, and the target latency is the recipe's ratio times *its* latency, so that a
candidate on target is on target whichever width turns out to match.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.api import Failure, Measurement
from device_agents.errors import DeviceError
from device_agents.files import write_whole
from models import zoo
from models.lower import lower
from pipeline.measure import untrained

if TYPE_CHECKING:
    from pathlib import Path

    from device_agents.api import BenchProtocol
    from models.spec import ArchSpec
    from pipeline.measure.bench import DeviceBench
    from pipeline.measure.form import Form


@dataclass(frozen=True, slots=True)
class ZooNet:
    """A net of the zoo at a width, for images (height, width, channels) of so many classes."""

    net: str
    width: float
    input: tuple[int, int, int]
    classes: int

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"{self.net} x{self.width:g}"

    @property
    def spec(self) -> ArchSpec:
        """The network. Raises ConfigError: no such net, or not at that width."""
        spec = zoo.get(self.net, width=self.width)
        return spec.with_input(*self.input).with_classes(self.classes)


@dataclass(frozen=True, slots=True)
class Reference:
    """The model that every candidate is timed beside: its file, hash and own latency."""

    name: str
    spec: ArchSpec
    path: Path
    sha256: str
    measurement: Measurement

    @property
    def latency_ms(self) -> float:
        """Its own latency, measured alone and thoroughly."""
        return self.measurement.median_ms


def measure_reference(
    bench: DeviceBench, net: ZooNet, *, form: Form, protocol: BenchProtocol, folder: Path
) -> Reference:
    """Write a net with random weights and measure it, alone.

    Args:
        bench: where.
        net: the narrowest baseline.
        form: what every candidate will be written as.
        protocol: of the figures that are shown.
        folder: where its file is kept.

    Raises:
        DeviceError: the device cannot measure it.
    """
    spec = net.spec
    graph = lower(spec)
    data = untrained.encode(bench, form, graph)
    path = folder / f"reference{form.suffix}"
    if not path.is_file() or path.read_bytes() != data:
        write_whole(path, data)
    sha256 = bench.memo.store.put_bytes(data)
    subject = {"reference_graph": graph.digest()}
    outcome = bench.measure(subject, lambda: path, protocol=protocol)
    if isinstance(outcome, Failure):
        raise DeviceError(f"the reference model {net.name} cannot be measured: {outcome.reason}")
    return Reference(net.name, spec, path, sha256, outcome)
