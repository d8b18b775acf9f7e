"""edgewright bench: time a model on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from device_agents.errors import DeviceError
from pipeline.cli.options import DEVICE, JSON, STORE, print_json, waiting

if TYPE_CHECKING:
    from device_agents.api import Measurement


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@DEVICE
@click.option("--protocol", type=click.Choice(["quick", "thorough"]), default="thorough")
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="Time this model too, in turns, and give the ratio.",
)
@click.option("--runtime", default="", help="Default: the one that the file's suffix names.")
@click.option("--threads", type=click.IntRange(1), help="Default: the device's own.")
@STORE
@JSON
def command(
    *,
    model: Path,
    device: str,
    protocol: str,
    reference: Path | None,
    runtime: str,
    threads: int | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Time MODEL on a device, with the conditions and a verdict.

    The measurement is recorded when --store is given. A measurement that is not valid is printed
    with its reasons and ends with exit code 3.
    """
    from device_agents.api import BenchProtocol, Failure
    from device_agents.runner import Device
    from pipeline.store import Store
    from profiles.registry import load_device

    protocols = {"quick": BenchProtocol.quick, "thorough": BenchProtocol.thorough}
    profile = load_device(device)
    with waiting(f"timing {model.name} on {device}"), Device.open(profile) as opened:
        found = opened.measure(
            model,
            protocols[protocol](),
            reference=reference,
            runtime=runtime or _runtime_of(model),
            threads=threads or 0,
        )
    if isinstance(found, Failure):
        detail = f" ({found.detail.strip().splitlines()[-1]})" if found.detail.strip() else ""
        raise DeviceError(f"{model} cannot be timed on {device}: {found.reason}{detail}")
    if store is not None:
        with Store.open(store) as kept:
            kept.add_measurement(found)
    if as_json:
        print_json(found.to_json())
    else:
        click.echo("\n".join(_lines(found)))
    if found.verdict == "invalid":
        raise DeviceError(f"the measurement is invalid: {'; '.join(found.reasons)}")


def _runtime_of(model: Path) -> str:
    """Return the runtime that a suffix names; empty, for the device's own, if it names none."""
    from pipeline.recipe import RUNTIMES

    name = model.suffix.removeprefix(".")
    return name if name in RUNTIMES.names() else ""


def _lines(found: Measurement) -> list[str]:
    samples, processes = len(found.samples_ns), len(found.process_medians_ms)
    median = f"median: {found.median_ms:.4f} ms ({_interval(found.ci95_ms)}"
    median += f", 90th percentile {found.p90_ms:.4f}; {samples} samples in {processes} processes)"
    lines = [median]
    if found.ratio is not None and found.ratio_ci95 is not None:
        ratio = f"ratio to the reference: {found.ratio:.4f} ({_interval(found.ratio_ci95)}"
        lines.append(f"{ratio}; reference {found.reference_median_ms:.4f} ms)")
    where = f"conditions: {found.device}, {found.runtime} ({found.runtime_version})"
    pinned = f", CPUs {','.join(map(str, found.cpus))}" if found.cpus else ""
    lines.append(f"{where}, threads {found.threads}{pinned}, protocol {found.protocol.name}")
    before, after = found.before.soc_celsius, found.after.soc_celsius
    lines.append(f"temperature: {_celsius(before)} before, {_celsius(after)} after")
    if found.partitions is not None:
        lines.append(f"delegate partitions: {found.partitions}")
    reasons = f" ({'; '.join(found.reasons)})" if found.reasons else ""
    return [*lines, f"verdict: {found.verdict}{reasons}"]


def _interval(ends: tuple[float, float]) -> str:
    return f"95 % interval {ends[0]:.4f} to {ends[1]:.4f}"


def _celsius(value: float | None) -> str:
    return "not told" if value is None else f"{value:.1f} °C"
