#!/usr/bin/env python3
"""Search Once-for-all's own bed (Samsung Note 10 table, accuracy predictor) beside its evolution.

For every limit: the best predicted accuracy over five seeds of our exchange search, of the
authors' evolution run here with its own constants (`ofa_evolution`), and the published figures. A
call is an accuracy asked for, of networks within the limit and above it alike; the authors count
only networks within it, because they draw the others again, and so does the row of their
evolution. Predicted accuracies lie about 3.5 points above ImageNet top-1.

    scripts/bench_ofa_bed.py [--quick] [--json FILE] [--check] [--data DIR]
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.search import strategy as strategies
from pipeline.search.api import Estimate, Trial
from pipeline.search.recorded.ofa_note10 import Bed, Net, OFANote10Space, load, load_published
from scripts.figures import Figure, finish, need, parser

if TYPE_CHECKING:
    from collections.abc import Sequence

CALLS = 50_100
SEEDS = 5
QUICK_CALLS = 2_000
BATCH = 20
ASKED_PER_CALL = 10
"""Networks asked for, at most: repeats, and in the authors' counting those above the limit."""
SPACE = OFANote10Space()
WHERE = "it holds Once-for-all's published table, predictor and networks"
FILES = ("ofa_lut_note10.csv", "ofa_acc_predictor.npz", "ofa_specialized.json")


@dataclass(frozen=True, slots=True)
class Limit:
    """Published figures of one limit: the evolution's mean, best known, best of 200 000 drawn."""

    limit_ms: float
    evolution: float
    best_known: float
    random: float


LIMITS = (
    Limit(15, 78.41, 78.80, 77.51),
    Limit(20, 80.54, 80.68, 79.46),
    Limit(25, 81.86, 82.09, 80.79),
    Limit(30, 82.70, 83.02, 81.78),
    Limit(40, 83.84, 84.21, 82.73),
)


@dataclass(slots=True)
class Searched:
    """One search: best predicted accuracy within the limit (%), and the calls it took."""

    best: float = 0.0
    calls: int = 0
    found_at: int = 0
    cpu_s: float = 0.0


def search(bed: Bed, name: str, limit_ms: float, seed: int, calls: int, *, free: bool) -> Searched:
    """Run a strategy of the product until its accuracy calls are used.

    Args:
        bed: the two models.
        name: the strategy.
        limit_ms: of the latency.
        seed: of the strategy.
        calls: accuracies that may be asked for.
        free: networks above the limit cost no call and have no accuracy, as for the authors.
    """
    strategy = strategies.create(
        name, SPACE, np.random.default_rng(seed), latency_limit_ms=limit_ms
    )
    known: dict[Net, Trial[Net]] = {}
    done, started_s = Searched(), time.process_time()
    for _ in range(ASKED_PER_CALL * calls // BATCH):
        if done.calls >= calls:
            break
        specs = strategy.ask(BATCH)
        fresh = [net for net in dict.fromkeys(specs) if net not in known]
        _evaluate(bed, fresh, limit_ms, known, free=free)
        for net in fresh:
            found = known[net].estimates
            if "accuracy" not in found:
                continue
            done.calls += 1
            accuracy = 100 * found["accuracy"].value
            within = found["latency_ms"].value <= limit_ms
            if within and accuracy > done.best and done.calls <= calls:
                done.best, done.found_at = accuracy, done.calls
        strategy.tell([known[net] for net in specs])
    done.calls = min(done.calls, calls)
    done.cpu_s = time.process_time() - started_s
    return done


def _evaluate(
    bed: Bed, nets: Sequence[Net], limit_ms: float, known: dict[Net, Trial[Net]], *, free: bool
) -> None:
    if not nets:
        return
    latencies = bed.latency_ms(nets)
    accuracies = bed.accuracy(nets)
    for net, latency_ms, accuracy in zip(
        nets, latencies.tolist(), accuracies.tolist(), strict=True
    ):
        within = latency_ms <= limit_ms
        estimates = {"latency_ms": Estimate(latency_ms, 0.0, "table")}
        if within or not free:
            estimates["accuracy"] = Estimate(accuracy, 0.0, "predicted")
        known[net] = Trial(net, estimates, accuracy if within else float("-inf"))


def sanity(bed: Bed, folder: Path) -> list[Figure]:
    """Return the reference's values of single networks, as figures with bars."""
    smallest = SPACE.decode((0,) * len(SPACE.cardinalities))
    largest = SPACE.decode(tuple(count - 1 for count in SPACE.cardinalities))
    thirty = load_published(folder, "note10_lat-30ms_top1-78.4_finetune-75")
    nets = [smallest, largest, thirty]
    ms, shares = bed.latency_ms(nets).tolist(), bed.accuracy(nets).tolist()
    found = [
        ("smallest network, ms", ms[0], 9.890, 0.0005),
        ("smallest network, predicted %", 100 * shares[0], 75.31, 0.005),
        ("largest network, ms", ms[1], 92.398, 0.0005),
        ("largest network, predicted %", 100 * shares[1], 83.59, 0.005),
        ("published 30 ms network, ms", ms[2], 29.97, 0.005),
        ("published 30 ms network, predicted %", 100 * shares[2], 81.97, 0.005),
    ]
    return [
        Figure(what, f"{ours:.3f}", f"{known:g}", f"±{room:g}", abs(ours - known) <= room, ours)
        for what, ours, known, room in found
    ]


def at_limit(bed: Bed, limit: Limit, seeds: int, calls: int) -> list[Figure]:
    """Return the figures of one limit."""
    figures = []
    for name, free in (("exchange", False), ("ofa_evolution", True)):
        runs = [search(bed, name, limit.limit_ms, s, calls, free=free) for s in range(seeds)]
        best = np.array([run.best for run in runs])
        ours = f"{best.mean():.2f} (worst {best.min():.2f}, best {best.max():.2f})"
        words = f"{limit.limit_ms:g} ms, {name}, {max(run.calls for run in runs):,} calls"
        cost = f"{np.mean([run.cpu_s for run in runs]):.0f} s of CPU a seed"
        if free:
            beside = f"{limit.evolution:.2f} published, {cost}"
            figures.append(Figure(words, ours, beside, value=float(best.mean())))
            continue
        met = round(float(best.mean()), 2) >= limit.best_known and calls <= CALLS
        beside = f"evolution {limit.evolution:.2f}, random {limit.random:.2f}, {cost}"
        bar = f"{limit.best_known:.2f}"
        figures.append(Figure(words, ours, beside, bar, met, float(best.mean())))
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    options = parser(__doc__, data=WHERE).parse_args(argv)
    for file in FILES:
        need(options.data / file, WHERE)
    bed = load(options.data)
    figures = sanity(bed, options.data)
    limits, seeds, calls = (
        (LIMITS[3:4], 1, QUICK_CALLS) if options.quick else (LIMITS, SEEDS, CALLS)
    )
    for limit in limits:
        found = at_limit(bed, limit, seeds, calls)
        if options.quick:  # with so few calls the bar means nothing
            found = [Figure(f.what, f.ours, f.beside, value=f.value) for f in found]
        figures += found
    return finish(options, figures, seeds=seeds, calls=calls)


if __name__ == "__main__":
    sys.exit(main())
