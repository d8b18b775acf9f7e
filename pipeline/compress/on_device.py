"""Networks that a pass tries, written as they would be deployed and timed on a device."""

from __future__ import annotations

import hashlib
import math
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents.api import BenchProtocol, Failure
from device_agents.errors import NotMeasured
from device_agents.files import write_whole
from pipeline.compress.to_latency import Timed

if TYPE_CHECKING:
    from models.model import Model
    from pipeline.compress.to_latency import Care
    from pipeline.formats.api import Format
    from pipeline.measure.bench import DeviceBench

TABLE_PROTOCOL = replace(
    BenchProtocol.quick(), name="table", max_processes=8, target_half_width=0.01
)
"""Of single groups, which save a few hundredths each."""


@dataclass(frozen=True, slots=True)
class _Whole:
    """The first network's file, beside which all others are timed."""

    path: Path
    sha256: str
    timed: Timed


@dataclass(slots=True, eq=False)
class TimedFiles:
    """Measures networks as files of one format: a `Measure` of `to_latency`.

    The first is measured alone; every other one in turns with it, and its latency is the ratio of
    the two times what the first takes alone: load on the device slows both alike and cancels. A
    file is measured once a run, by its hash.

    Attributes:
        bench: the device, whose runtime is the format's.
        format_: of the files.
        protocol: of networks that may be handed over; others are timed by `TABLE_PROTOCOL`.
        folder: where the first file is kept.
    """

    bench: DeviceBench
    format_: Format
    protocol: BenchProtocol
    folder: Path
    _whole: _Whole | None = field(default=None, init=False)

    def __call__(self, model: Model, care: Care) -> Timed:
        """Return what a network's file takes.

        Raises:
            NotMeasured: the device gives no latency of it.
            DeviceError: the device does not answer any more.
            ExportError: the format cannot express it.
        """
        content = self.format_.write(model)
        sha256 = hashlib.sha256(content).hexdigest()
        if self._whole is None:
            path = self.folder / f"whole{self.format_.suffix}"
            write_whole(path, content)
            return self._first(path, sha256)
        if sha256 == self._whole.sha256:
            return self._whole.timed
        with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
            path = Path(folder) / f"model{self.format_.suffix}"
            path.write_bytes(content)
            return self._beside(path, sha256, self._whole, care)

    def _first(self, path: Path, sha256: str) -> Timed:
        found = self.bench.measure({"model": sha256}, lambda: path, protocol=self.protocol)
        if isinstance(found, Failure):
            raise NotMeasured(f"the whole network cannot be measured: {found.reason}")
        timed = Timed(found.median_ms, found.ci95_ms, sha256, found.verdict)
        self._whole = _Whole(path, sha256, timed)
        return timed

    def _beside(self, path: Path, sha256: str, whole: _Whole, care: Care) -> Timed:
        found = self.bench.measure(
            {"model": sha256},
            lambda: path,
            protocol=TABLE_PROTOCOL if care == "table" else self.protocol,
            beside=whole,
        )
        if isinstance(found, Failure):
            raise NotMeasured(f"the changed network cannot be measured: {found.reason}")
        if found.ratio is None or found.ratio_ci95 is None:
            raise NotMeasured("the device gave no ratio to the whole network; measure again")
        latency_ms, interval_ms = times(found.ratio, found.ratio_ci95, whole.timed)
        return Timed(latency_ms, interval_ms, sha256, found.verdict)


def times(
    ratio: float, ratio_ci95: tuple[float, float], whole: Timed
) -> tuple[float, tuple[float, float]]:
    """Return a ratio times a latency with its 95 % interval, in milliseconds.

    What both are off by adds up as independent errors do, each side of its own.
    """
    own_ms = whole.latency_ms
    shares = (
        math.hypot((ratio - ratio_ci95[0]) / ratio, (own_ms - whole.ci95_ms[0]) / own_ms),
        math.hypot((ratio_ci95[1] - ratio) / ratio, (whole.ci95_ms[1] - own_ms) / own_ms),
    )
    latency_ms = ratio * own_ms
    return latency_ms, (latency_ms * max(1 - shares[0], 0.0), latency_ms * (1 + shares[1]))
