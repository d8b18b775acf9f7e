"""The number format of a search, where the device is to say it: timed on the reference network."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents.api import Failure
from models.lower import lower
from models.number_format import FLOAT32, STATIC8
from pipeline.measure import untrained
from pipeline.measure.form import Form

if TYPE_CHECKING:
    from device_agents.api import BenchProtocol
    from models.number_format import NumberFormat
    from pipeline.measure.bench import DeviceBench
    from pipeline.measure.reference import ZooNet


@dataclass(frozen=True, slots=True)
class Fastest:
    """A number format, and the measurement that speaks for it in words."""

    number_format: NumberFormat
    words: str


@dataclass(frozen=True, slots=True)
class _Plain:
    """The reference in float32, beside which it is timed as codes."""

    path: Path
    sha256: str


def choose_number_format(bench: DeviceBench, net: ZooNet, protocol: BenchProtocol) -> Fastest:
    """Return static8 if the device shows a network to be faster in it, else float32.

    Both files run in turns with random weights; what is measured is remembered as any measurement
    of the run.

    Args:
        bench: the device, whose runtime says the file format.
        net: is timed.
        protocol: of the figures that are shown.

    Raises:
        DeviceError: the device stopped answering; the same command goes on later.
    """
    graph, store = lower(net.spec), bench.memo.store
    forms = {one: Form(bench.profile.runtime, one) for one in (FLOAT32, STATIC8)}
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        paths, hashes = {}, {}
        for one, form in forms.items():
            content = untrained.encode(bench, form, graph)
            paths[one] = Path(folder) / f"{one}{form.suffix}"
            paths[one].write_bytes(content)
            hashes[one] = store.put_bytes(content)
        found = bench.measure(
            {"model": hashes[STATIC8]},
            lambda: paths[STATIC8],
            protocol=protocol,
            beside=_Plain(paths[FLOAT32], hashes[FLOAT32]),
        )
    where = f"on {bench.name}, measured with {net.name}"
    if isinstance(found, Failure):
        return Fastest(
            FLOAT32, f"{STATIC8} cannot be timed {where} ({found.reason}): float32 it is"
        )
    if found.ratio is None or found.ratio_ci95 is None:
        return Fastest(FLOAT32, f"{STATIC8} was not told from float32 {where}: float32 it is")
    low, high = found.ratio_ci95
    figures = f"{found.ratio:.2f} of the latency of float32, 95 % interval {low:.2f} to {high:.2f}"
    if high < 1:
        return Fastest(STATIC8, f"the fastest number format is {STATIC8} {where}: {figures}")
    return Fastest(
        FLOAT32, f"{STATIC8} does not show to be faster {where}: {figures}; float32 it is"
    )
