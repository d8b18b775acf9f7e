#!/usr/bin/env python3
"""Run the quickstart again and again, each time with another seed, and count the outcomes.

Every run is what `scripts/quickstart` does, in a store of its own. A finished run is kept as one
JSON file in the work folder and not done again; an interrupted one goes on where it was, so the
runs may be made in parts, also at night. `--jobs 2` makes two at once, each on a core of its own:
their outcomes count like any, their durations do not.

    scripts/bench_quickstart.py [--runs N] [--jobs N] [--work DIR] [--recipe FILE]
                                [--quick] [--json FILE] [--check]
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from device_agents.errors import StoreError
from device_agents.files import replace_file
from pipeline.recipe.recipe import Recipe
from pipeline.store import Store
from pipeline.store.result import RunResult
from scripts.figures import ROOT, Figure, describe, finish, parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

SHARE_MET = 0.95
MINUTES = 8.0
"""What a newcomer waits for, at most, on two cores of their own."""
QUICK = (
    "search.candidates=4",
    "search.batch=2",
    "search.finalists=1",
    "train.epochs=4",
    "target.widths=[0.35]",
    "target.latency_ratio=4.0",
    "target.accuracy_tolerance=1.0",
)


@dataclass(frozen=True, slots=True)
class Ran:
    """One finished run.

    Attributes:
        outcome: as `pipeline.store.result.RunOutcome` has it, or the last line of what a run said
            that ended without a result.
        wall_s: of the command that finished it.
        whole: whether that command did all of it, so that `wall_s` is the run's.
    """

    seed: int
    recipe: str
    outcome: str
    exit_code: int
    wall_s: float
    whole: bool
    winner_accuracy: float | None = None
    baseline_accuracy: float | None = None
    gain_ci95: tuple[float, float] | None = None
    ratio: float | None = None
    verdict: str | None = None
    baseline: str | None = None


def main() -> int:
    """Run, print the table; returns the exit status."""
    found = parser(__doc__)
    found.add_argument("--runs", type=int, metavar="N", help="how many (20; 2 with --quick)")
    found.add_argument("--jobs", type=int, default=1, metavar="N", help="how many at once (1)")
    found.add_argument("--work", type=Path, metavar="DIR", help="where finished runs are kept")
    found.add_argument(
        "--recipe", type=Path, metavar="FILE", default=ROOT / "recipes" / "digits.toml"
    )
    options = found.parse_args()
    runs = options.runs or (2 if options.quick else 20)
    if runs < 1 or options.jobs < 1:
        found.error("--runs and --jobs are at least 1")
    conditions = describe()
    if options.work or not options.quick:
        work = options.work or ROOT / ".edgewright" / "bench-quickstart"
        done = _all(options, runs, work)
    else:
        with tempfile.TemporaryDirectory(prefix="edgewright-quickstart-") as folder:
            done = _all(options, runs, Path(folder))
    table = [asdict(one) for one in done]
    return finish(options, _figures(done, options.jobs), conditions, runs=table)


def _all(options: argparse.Namespace, runs: int, work: Path) -> list[Ran]:
    work.mkdir(parents=True, exist_ok=True)
    sets = QUICK if options.quick else ()
    free: SimpleQueue[int | None] = SimpleQueue()
    cores = sorted(os.sched_getaffinity(0)) if shutil.which("taskset") else []
    for job in range(options.jobs):
        free.put(cores[job % len(cores)] if cores and options.jobs > 1 else None)

    def make(seed: int) -> Ran:
        core = free.get()
        try:
            return _one(options.recipe, [f"seed={seed}", *sets], seed, work, core)
        finally:
            free.put(core)

    with ThreadPoolExecutor(options.jobs) as pool:
        asked = [pool.submit(make, seed) for seed in range(runs)]
        for future in as_completed(asked):
            if future.exception():
                pool.shutdown(wait=False, cancel_futures=True)  # what runs now is kept or goes on
            print(_line(future.result()), flush=True)
    return [future.result() for future in asked]


def _one(recipe: Path, sets: Sequence[str], seed: int, work: Path, core: int | None) -> Ran:
    """Return the finished run of a seed: the kept one, or made now, on a core, and kept."""
    digest = Recipe.load(recipe, sets).digest()
    kept = work / f"seed-{seed}-{digest}.json"
    if kept.is_file():
        return _read(kept)
    folder = work / f"seed-{seed}-{digest}"
    begun = folder.exists()
    folder.mkdir(exist_ok=True)
    words = [str(Path(sys.prefix) / "bin" / "edgewright"), "run", str(recipe)]
    words += ["--store", str(folder / "store"), "--report", str(folder / "report.html")]
    for text in sets:
        words += ["--set", text]
    if core is not None:
        words = ["taskset", "--cpu-list", str(core), *words]
    started = time.monotonic()
    ended = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wall_s = time.monotonic() - started
    (folder / "said.txt").write_text(ended.stdout + ended.stderr, encoding="utf-8")
    if ended.returncode not in (0, 4, 5):
        raise SystemExit(f"seed {seed} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    without = Ran(seed, digest, _last_line(ended.stderr), ended.returncode, wall_s, not begun)
    ran = replace(without, **_comparison(folder / "store"))
    replace_file(kept, (json.dumps(asdict(ran), indent=1) + "\n").encode())
    shutil.rmtree(folder / "store")
    return ran


def _comparison(place: Path) -> dict[str, Any]:
    """Return what the run's result says; nothing if it has none."""
    try:
        with Store.open(place, create=False) as store:
            result = store.result()
    except StoreError:
        return {}
    if not isinstance(result, RunResult):
        return {}
    found = result.comparison
    return {
        "outcome": found.outcome,
        "winner_accuracy": found.winner_accuracy_test,
        "baseline_accuracy": found.baseline_accuracy_test,
        "gain_ci95": found.accuracy_gain_ci95,
        "ratio": found.ratio,
        "verdict": found.verdict,
        "baseline": result.baseline_name,
    }


def _read(path: Path) -> Ran:
    data = json.loads(path.read_text(encoding="utf-8"))
    bounds = data["gain_ci95"]
    return Ran(**{**data, "gain_ci95": bounds and (bounds[0], bounds[1])})


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def _line(ran: Ran) -> str:
    if ran.ratio is None or ran.gain_ci95 is None or ran.baseline_accuracy is None:
        return f"seed {ran.seed:2}: {ran.outcome}"
    low, high = (100 * bound for bound in ran.gain_ci95)
    return (
        f"seed {ran.seed:2}: {ran.outcome}; {ran.ratio:.2f} of {ran.baseline}, "
        f"{ran.winner_accuracy:.2%} against {ran.baseline_accuracy:.2%} "
        f"({low:+.2f} to {high:+.2f} points), {ran.wall_s / 60:.1f} min"
    )


def _figures(done: Sequence[Ran], jobs: int) -> list[Figure]:
    outcomes = Counter(ran.outcome for ran in done)
    needed = math.ceil(SHARE_MET * len(done))
    met = outcomes["met"]
    figures = [
        Figure(
            "target met", f"{met} of {len(done)}", bar=f"{needed} of {len(done)}",
            met=met >= needed, value=met,
        ),
        *(
            Figure(f"  {outcome}", f"{count} of {len(done)}", value=count)
            for outcome, count in outcomes.most_common()
            if outcome != "met"
        ),
    ]  # fmt: skip
    gains = [
        100 * (ran.winner_accuracy - ran.baseline_accuracy)
        for ran in done
        if ran.winner_accuracy is not None and ran.baseline_accuracy is not None
    ]
    ratios = [ran.ratio for ran in done if ran.ratio is not None]
    if gains and ratios:
        figures += [
            Figure(
                "gain in accuracy, points: median (lowest, highest)",
                f"{median(gains):+.2f} ({min(gains):+.2f}, {max(gains):+.2f})",
                value=median(gains),
            ),
            Figure(
                "latency over the baseline's: median (lowest, highest)",
                f"{median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})",
                beside="1 / 1.8 = 0.55, MnasNet",
                value=median(ratios),
            ),
        ]
    minutes = [ran.wall_s / 60 for ran in done if ran.whole]
    if minutes:
        busy = jobs > 1 or describe()["load"] > 2 * (os.cpu_count() or 1)
        figures.append(
            Figure(
                "minutes of a run: median (longest)",
                f"{median(minutes):.1f} ({max(minutes):.1f})",
                beside="not alone on the machine" if busy else "",
                bar=f"{MINUTES:g} on two quiet cores",
                met=None if busy else median(minutes) <= MINUTES,
                value=median(minutes),
            )
        )
    return figures


if __name__ == "__main__":
    sys.exit(main())
