"""Many measurements by several clients on simulated devices that keep failing.

Each client is a thread with leases of its own; each device a simulated board (virtual time) that
loses its link, its agent, its power, its disk, its answers, its output or its idea of the time, at
random, before, in the middle of, or after what it was asked to do. What must hold whatever happens:
every job ends as exactly one result or one Failure; no part of a job is done twice on a device
unless the device lost power under it; no figure is wrong or another job's; no half-sent file is in
use; no lease is left over. Repeats by seed, but for the order in which the threads run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from device_agents.agent.facts import file_sha256
from device_agents.api import BenchProtocol, Failure
from device_agents.errors import DeviceError
from device_agents.fakes.board import add_board
from device_agents.fakes.script import FAULTS, PHASES, Fault, Latency, Script
from device_agents.runner import Device
from pipeline.store.lease_book import LEASES_VARIABLE
from pipeline.store.leases import open_leases
from profiles.schema import DeviceProfile
from scripts.figures import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_agents.api import Measurement
    from device_agents.fakes.board import FakeBoard

MODELS_MS = (0.4, 1.5, 5.0, 20.0)
# Each process has a seed of its own, by which the device's side is told from the host's.
PROCESSES = 3
PROTOCOL = replace(
    BenchProtocol.quick(),
    processes=PROCESSES,
    max_processes=PROCESSES,
    min_samples=20,
    target_half_width=1.0,
)
# Back while a job still runs, soon after its end, and late.
DOWN_S = (0.05, 0.5, 20.0)
# A figure of a board that does not throttle is this near to what its script says.
TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a campaign does; `probability` is that of each kind of fault at each call."""

    devices: int
    clients: int
    jobs: int
    probability: float


FULL = Sizes(devices=50, clients=5, jobs=2000, probability=0.006)
QUICK = Sizes(devices=10, clients=5, jobs=150, probability=0.012)


@dataclass(slots=True)
class Campaign:
    """What a campaign runs on, and what came of its jobs, by job."""

    profiles: list[DeviceProfile]
    boards: list[FakeBoard]
    models: list[Path]
    waiting: queue.SimpleQueue[tuple[int, int, int]] = field(default_factory=queue.SimpleQueue)
    ends: dict[int, list[Measurement | Failure]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    kept_leases: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaign, print its table; with --check end 1 when anything is violated."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--check", action="store_true", help="end with 1 on any violation")
    options = parser.parse_args(argv)
    sizes = QUICK if options.quick else FULL
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgewright-faults-") as folder:
        os.environ[LEASES_VARIABLE] = folder
        campaign = prepared(sizes, options.seed, Path(folder))
        run(campaign, sizes)
        with open_leases() as leases:
            campaign.kept_leases += [standing.device for standing in leases.status()]
    figures = count(campaign, sizes)
    figures["seed"], figures["sizes"] = options.seed, asdict(sizes)
    figures["wall_s"] = round(time.monotonic() - begin, 1)
    figures["machine"], figures["python"] = platform.machine(), platform.python_version()
    show(figures)
    write_json(options.json, figures)
    return 1 if options.check and any(figures["violations"].values()) else 0


def prepared(sizes: Sizes, seed: int, folder: Path) -> Campaign:
    """Make the boards, the models and the jobs."""
    rng = random.Random(seed)  # noqa: S311  # a simulation, no secrets
    models = []
    for number, latency_ms in enumerate(MODELS_MS):
        models.append(folder / f"model{number}.json")
        model = {"edgewright_null": 1, "latency_ms": latency_ms, "noise": 0.01}
        models[-1].write_text(json.dumps(model), encoding="utf-8")
    profiles, boards = [], []
    for number in range(sizes.devices):
        profile = DeviceProfile(f"board{number}", transport="fake", runtime="null")
        faults = tuple(
            Fault(
                kind,
                probability=sizes.probability,
                phase=rng.choice(PHASES),
                down_s=rng.choice(DOWN_S),
            )
            for kind in FAULTS
        )
        script = Script(
            seed=rng.getrandbits(32), latency=Latency(factor=1.0 + number / 10), fault=faults
        )
        profiles.append(profile)
        boards.append(add_board(profile, script))
    campaign = Campaign(profiles, boards, models)
    for job in range(sizes.jobs):
        campaign.waiting.put((job, rng.randrange(sizes.devices), rng.randrange(len(models))))
    return campaign


def run(campaign: Campaign, sizes: Sizes) -> None:
    """Let the clients do all jobs."""
    threads = [
        threading.Thread(target=client, args=(campaign, f"client {number}"))
        for number in range(sizes.clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def client(campaign: Campaign, name: str) -> None:
    """Do jobs until none is left; connections stay open, as in a search."""
    devices: dict[int, Device] = {}
    with open_leases(purpose=name) as leases:
        while True:
            try:
                job, board, model = campaign.waiting.get_nowait()
            except queue.Empty:
                break
            end: Measurement | Failure
            try:
                if board not in devices:
                    devices[board] = Device.open(campaign.profiles[board], leases=leases)
                protocol = replace(PROTOCOL, seed=job * PROCESSES)
                end = devices[board].measure(campaign.models[model], protocol)
            except DeviceError as error:
                end = Failure(str(error), "", error.retryable, "link")
            campaign.ends.setdefault(job, []).append(end)
            # Now and not at the end only: a lease that nobody renews expires.
            own = [standing for standing in leases.status() if standing.purpose == name]
            campaign.kept_leases += [standing.device for standing in own]
            if not isinstance(end, Failure):
                expected_ms = MODELS_MS[model] * campaign.boards[board].script.latency.factor
                if abs(end.median_ms / expected_ms - 1.0) > TOLERANCE:
                    campaign.wrong.append(f"job {job}: {end.median_ms} ms, not {expected_ms} ms")
        for device in devices.values():
            device.close()


def count(campaign: Campaign, sizes: Sizes) -> dict[str, Any]:
    """Return the figures of the table."""
    ends = [end for found in campaign.ends.values() for end in found]
    failures = [end for end in ends if isinstance(end, Failure)]
    done: Counter[int] = Counter()
    lost: Counter[int] = Counter()
    for board in campaign.boards:
        for execution in board.executions:
            (lost if execution.lost else done)[execution.seed] += 1
    measured = {
        job: found[0] for job, found in campaign.ends.items() if not isinstance(found[0], Failure)
    }
    # Of a measurement whose budget was spent by a fault there are fewer.
    parts = {
        job * PROCESSES + process
        for job, found in measured.items()
        for process in range(len(found.process_medians_ms))
    }
    half = [
        path
        for board in campaign.boards
        for path in board.folder.glob(".cache/edgewright/models/*")
        if file_sha256(path) != path.name
    ]
    return {
        "faults": dict(sum((board.injected for board in campaign.boards), Counter())),
        "results": len(ends) - len(failures),
        "failures": dict(Counter(f"{end.kind}: {_gist(end.reason)}" for end in failures)),
        "rejoined": sum(board.rejoined for board in campaign.boards),
        "rejoined_running": sum(board.rejoined_running for board in campaign.boards),
        "restarted": sum(1 for part in lost if part in done),
        "virtual_s": round(sum(board.seconds() for board in campaign.boards)),
        "violations": {
            "jobs with no end": sizes.jobs - len(campaign.ends),
            "jobs with two ends": sum(len(found) > 1 for found in campaign.ends.values()),
            "jobs done twice": sum(times > 1 for times in done.values()),
            "results of no job done": len(parts - set(done)),
            "results of another job": len(measured)
            - len({found.samples_ns for found in measured.values()}),
            "wrong figures": len(campaign.wrong),
            "half-sent files in use": len(half),
            "leases left over": len(campaign.kept_leases),
        },
    }


def _gist(reason: str) -> str:
    """Return a failure's sentence without its device and its numbers."""
    words = reason.split(": ", 1)[-1].split(";", maxsplit=1)[0]
    return " ".join("…" if any(c.isdigit() for c in word) else word for word in words.split())[:60]


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    sizes = figures["sizes"]
    print(
        f"{sizes['devices']} simulated devices, {sizes['clients']} clients, {sizes['jobs']} jobs, "
        f"seed {figures['seed']}: {figures['virtual_s']} s of the devices' time in "
        f"{figures['wall_s']} s\n"
    )
    lines: list[tuple[str, str]] = [("faults injected", str(sum(figures["faults"].values())))]
    lines += [(f"  {kind}", str(figures["faults"].get(kind, 0))) for kind in FAULTS]
    lines += [("results", str(figures["results"]))]
    lines += [("failures", str(sum(figures["failures"].values())))]
    lines += [(f"  {kind}", str(n)) for kind, n in sorted(figures["failures"].items())]
    lines += [("measurements joined again", str(figures["rejoined"]))]
    lines += [("  while they still ran", str(figures["rejoined_running"]))]
    lines += [("measurements begun anew, power lost", str(figures["restarted"]))]
    for name, number in figures["violations"].items():
        lines.append((name, f"{number}{'  VIOLATED' if number else ''}"))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name.ljust(width)}  {value}")


if __name__ == "__main__":
    sys.exit(main())
