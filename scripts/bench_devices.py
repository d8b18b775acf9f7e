"""What reaching and sharing a device costs, and how well a figure repeats beside other load.

Everything runs on this computer: the local device, a loopback OpenSSH server, a leases database in
a temporary folder. Models are the product's own, with random weights. The competing load is a
process of its own that multiplies matrices in bursts of random length, from a seed, on the last
CPU; the model is timed on the first. `--icount` boots the instruction-counting guest of the lab
twice instead: a minute each, and several more where its image is not built yet.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from device_agents import transports
from device_agents.api import BenchProtocol, Failure
from device_agents.runner import Device
from models import zoo
from models.cost import cost
from models.lower import lower
from models.model import random_model
from models.number_format import NumberFormat
from pipeline.formats.tflite.write import write_tflite
from pipeline.store.leases import open_leases
from profiles.schema import DeviceProfile
from scripts.figures import ROOT, Figure, describe, finish, parser
from scripts.lab import icount
from scripts.lab.sshd import loopback_ssh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from models.spec import ArchSpec

REQUEST_BAR_MS = 1.0
COLD_BAR_S = 3.0
CV_BAR = 0.02
LEASE_BAR_MS = 10.0
MODEL = ("mobilenet-v2", 176)
"""About 5 ms on one core of a PC."""
REFERENCE = ("mnasnet-a1", 160)
SEED = 1
COUNTED = ("mobilenet-v2", 64)
PRUNED_WIDTH = 0.5
BOOTS = 2
BOOT_BAR = 0.001

LOAD = """
import os, random, sys, time
import numpy as np

rng = random.Random(int(sys.argv[1]))
os.sched_setaffinity(0, {int(sys.argv[2])})
matrix = np.ones((384, 384), np.float32)
print("ready", flush=True)
while True:
    until = time.monotonic() + rng.uniform(0.05, 0.8)
    while time.monotonic() < until:
        matrix @ matrix
    time.sleep(rng.uniform(0.05, 0.8))
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work a run does."""

    requests: int
    channels: int
    cold_starts: int
    measurements: int
    leases: int


FULL = Sizes(requests=2000, channels=100, cold_starts=5, measurements=10, leases=1000)
QUICK = Sizes(requests=300, channels=20, cold_starts=1, measurements=4, leases=200)


def main(argv: list[str] | None = None) -> int:
    """Run, print the table; returns 1 with --check if a figure misses its bar."""
    flags = parser(__doc__)
    flags.add_argument("--icount", action="store_true", help="only the counting guest's figures")
    options = flags.parse_args(argv)
    sizes = QUICK if options.quick else FULL
    conditions = describe()
    with tempfile.TemporaryDirectory(prefix="edgewright-") as name:
        rows = counted(Path(name)) if options.icount else measured(Path(name), sizes)
    return finish(options, rows, conditions, sizes=asdict(sizes))


def measured(folder: Path, sizes: Sizes) -> list[Figure]:
    """Return every row; all files are made below `folder`."""
    model, reference = (write_model(folder, *which) for which in (MODEL, REFERENCE))
    rows = lease_rows(folder, sizes)
    with loopback_ssh(made(folder / "sshd")) as server:
        profile = server.profile(folder / "ssh-device", runtime="tflite")
        rows += request_rows(profile, sizes)
        local = DeviceProfile(name="here", transport="local", runtime="tflite")
        for device in (local, profile):
            rows.append(cold_row(folder, device, model, sizes))
    rows.append(repeat_row(folder, model, reference, sizes))
    return rows


def lease_rows(folder: Path, sizes: Sizes) -> list[Figure]:
    """Take a device that nobody wants and give it back."""
    os.environ["EDGEWRIGHT_LEASES"] = str(folder / "leases")
    with open_leases(str(folder)) as leases:

        def one() -> None:
            with leases.hold("board", timeout_s=0.0):
                pass

        taken = timed_ms(one, sizes.leases)
    median = statistics.median(taken)
    return [
        Figure(
            "lease taken and given back, SQLite",
            spread(taken),
            "",
            f"<= {LEASE_BAR_MS:g} ms",
            median <= LEASE_BAR_MS,
        )
    ]


def request_rows(profile: DeviceProfile, sizes: Sizes) -> list[Figure]:
    """Ask the agent over an open session; beside it one SSH channel for each command."""
    transport = transports.connect(profile)
    try:
        plain = timed_ms(lambda: transport.run(["true"], timeout_s=10.0), sizes.channels)
    finally:
        transport.close()
    with Device.open(profile) as device:
        ours = timed_ms(device.releases.list_all, sizes.requests)
    median = statistics.median(ours)
    return [
        Figure(
            "request on an open session, loopback SSH",
            spread(ours),
            f"channel per command {spread(plain)}",
            f"<= {REQUEST_BAR_MS:g} ms",
            median <= REQUEST_BAR_MS,
        )
    ]


def cold_row(folder: Path, device: DeviceProfile, model: Path, sizes: Sizes) -> Figure:
    """Run `edgewright bench` as a process, on a device that has neither agent nor model."""
    seconds, found_ms = [], 0.0
    for number in range(sizes.cold_starts):
        there = folder / f"cold-{device.name}-{number}"
        environment = configured(folder, device, there)
        command = [sys.executable, "-m", "pipeline.cli.main", "bench", str(model)]
        command += ["--device", device.name, "--protocol", "quick", "--json"]
        start = time.perf_counter()
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
        seconds.append(time.perf_counter() - start)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr}")
        found_ms = json.loads(done.stdout)["median_ms"]
    median = statistics.median(seconds)
    return Figure(
        f"cold edgewright bench, quick, {device.transport} device",
        f"{median:.2f} s (slowest {max(seconds):.2f})",
        f"the model: {found_ms:.1f} ms",
        f"<= {COLD_BAR_S:g} s",
        median <= COLD_BAR_S,
    )


def configured(folder: Path, device: DeviceProfile, directory: Path) -> dict[str, str]:
    """Write the profile as a user would; return the environment that finds it."""
    keys = ("transport", "address", "port", "user", "identity_file", "known_hosts", "runtime")
    values = {key: getattr(device, key) for key in keys} | {"directory": str(directory)}
    if device.transport == "ssh":
        values["python"] = device.python
    devices = made(folder / "config" / "devices")
    # JSON's strings and numbers are TOML's, too.
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value]
    (devices / f"{device.name}.toml").write_text("".join(lines))
    return {
        **os.environ,
        "EDGEWRIGHT_CONFIG": str(devices.parent),
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def repeat_row(folder: Path, model: Path, reference: Path, sizes: Sizes) -> Figure:
    """Measure the same model again and again beside a competing load."""
    profile = DeviceProfile(
        name="here",
        transport="local",
        runtime="tflite",
        directory=str(folder / "repeat"),
        cpus=(0,),
    )
    medians, ratios = [], []
    with Device.open(profile) as device, competing_load():
        for _ in range(sizes.measurements):
            found = device.measure(model, BenchProtocol.quick(), reference=reference)
            if isinstance(found, Failure) or found.ratio is None:
                raise SystemExit(f"the model cannot be timed: {found}")
            medians.append(found.median_ms)
            ratios.append(found.ratio)
    ours, plain = variation(ratios), variation(medians)
    return Figure(
        f"CV of {sizes.measurements} quick figures beside a load",
        f"{ours:.2%} (ratio to a reference)",
        f"{plain:.2%} (median)",
        f"<= {CV_BAR:.0%}",
        ours <= CV_BAR,
    )


def counted(folder: Path) -> list[Figure]:
    """Measure four variants of a network in two boots; a nanosecond there is an instruction."""
    paths = {
        (width, scheme): write_model(folder, *COUNTED, width=width, scheme=scheme)
        for width in (1.0, PRUNED_WIDTH)
        for scheme in ("float32", "static8")
    }
    boots = []
    for number in range(BOOTS):
        with icount.running(made(folder / f"boot-{number}")) as guest:
            profile = guest.profile()
            with Device.open(profile) as device:
                boots.append({which: median_ms(device, path) for which, path in paths.items()})
    rows = []
    for width, scheme in paths:
        values = [boot[width, scheme] for boot in boots]
        apart = max(values) / min(values) - 1.0
        graph = lower(network(*COUNTED, width))
        rows.append(
            Figure(
                f"{scheme}, {'unpruned' if width == 1.0 else 'pruned'}, {BOOTS} boots",
                ", ".join(f"{value:.4f}" for value in values)
                + f" M instructions, {apart:.3%} apart",
                f"{cost(graph).macs / 1e6:.1f} M MACs",
                f"<= {BOOT_BAR:.1%} apart",
                apart <= BOOT_BAR,
            )
        )
    orders = [sorted(paths, key=boot.__getitem__) for boot in boots]
    cheaper = all(
        boot[PRUNED_WIDTH, scheme] < boot[1.0, scheme]
        for boot in boots
        for scheme in ("float32", "static8")
    )
    said = " < ".join(f"{scheme} {width:g}" for width, scheme in orders[0])
    same = all(order == orders[0] for order in orders)
    rows.append(
        Figure("rank of the variants", said, "", "same in all, pruned below", same and cheaper)
    )
    return rows


def median_ms(device: Device, path: Path) -> float:
    """Return a model's latency; on the counting guest also its millions of instructions."""
    found = device.measure(path, BenchProtocol.quick())
    if isinstance(found, Failure):
        raise SystemExit(f"{path.name} cannot be timed on {device.name}: {found}")
    return found.median_ms


@contextmanager
def competing_load() -> Iterator[None]:
    """Keep the last CPU busy in bursts for a `with` block."""
    last = max(os.sched_getaffinity(0))
    command = [sys.executable, "-c", LOAD, str(SEED), str(last)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise SystemExit("the competing load did not start")
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def network(name: str, size: int, width: float) -> ArchSpec:
    """Return a network of the zoo."""
    return zoo.get(name, width=width).with_input(size, size, 3)


def write_model(
    folder: Path, name: str, size: int, *, width: float = 1.0, scheme: str = "float32"
) -> Path:
    """Write a network of the zoo with random weights as TFLite."""
    graph = lower(network(name, size, width))
    model = random_model(graph, np.random.default_rng(SEED), NumberFormat.parse(scheme))
    path = folder / f"{name}-{size}-{width:g}-{scheme}.tflite"
    path.write_bytes(write_tflite(model))
    return path


def made(folder: Path) -> Path:
    """Make a folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def timed_ms(work: Callable[[], object], count: int) -> list[float]:
    """Return the milliseconds of each call after one that is not counted."""
    work()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def spread(values_ms: list[float]) -> str:
    """Return the median and the 95th percentile in words."""
    late = sorted(values_ms)[int(0.95 * (len(values_ms) - 1))]
    return f"{statistics.median(values_ms):.2f} ms (95 % within {late:.2f})"


def variation(values: list[float]) -> float:
    """Return the coefficient of variation."""
    return statistics.stdev(values) / statistics.fmean(values)


if __name__ == "__main__":
    sys.exit(main())
