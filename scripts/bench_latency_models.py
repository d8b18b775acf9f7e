"""Latency models on recorded networks: few samples of a new device, and sums of fitted costs.

Few-shot on NAS-Bench-201 follows HELP's protocol: the known devices are measured on the first 900
cells, samples are drawn from these, the test is on the next 1000, and both lose their first and
last tenth by the new device's own latency (which leaks a little, into every method alike); the
untrimmed rows take the first 900 and the next 1000 cells that work instead. The rows over the known
devices leave each one out in turn; --device takes any other column as the new device. FBNet's
networks are drawn from the first 3000 and tested on the next 1000.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from pipeline.search.estimate.few_shot import LatencyPrior
from pipeline.search.recorded import fbnet
from scripts._additive import AdditiveModel
from scripts._latency_beds import (
    CELLS,
    Bench,
    Score,
    alive,
    bare,
    cells,
    chosen,
    drawn,
    middle,
    nets,
    rank,
)
from scripts.figures import Figure, finish, need, parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from scripts._latency_beds import Splitter

    Method = Callable[[Bench, LatencyPrior, str, int, int, Splitter], Score]

KNOWN = (
    *("1080ti_1", "1080ti_32", "1080ti_256", "silver_4114", "silver_4210r"),
    *("samsung_a50", "pixel3", "essential_ph_1", "samsung_s7"),
)
NETS, TEST_NETS = 3000, 1000
COVERAGE_BAR = (0.85, 0.95)
RASPI4_BAR = {10: 0.900, 20: 0.910}
PUBLISHED_RASPI4 = {5: "Bayes .890", 10: "HELP .890, Bayes .890", 20: "Bayes .893"}
PUBLISHED_KNOWN = {5: "Bayes .877", 10: "Bayes .908", 20: "Bayes .928"}
PUBLISHED_CHOSEN = {5: "D-optimal .909", 10: "D-optimal .930", 20: "D-optimal .933"}
KNOWN_BAR = 0.930
PUBLISHED_UNTRIMMED = {5: "Bayes .914", 10: "Bayes .940", 20: "Bayes .950"}
PUBLISHED_RASPI4_UNTRIMMED = {5: "Bayes .921", 10: "Bayes .929", 20: "Bayes .926"}
PUBLISHED_GP = {10: 0.820, 20: 0.809, 50: 0.883}
NETS_BAR = {20: 0.884}
QUICK_DRAWS = 3
_EQUAL = 1e-5


def words(score: Score) -> str:
    """Return rank, error and coverage, for the table."""
    return f"{score.rank:.3f}, MAPE {score.error:.1%}, {score.covered:.0%} in 90 %"


def within(share: float) -> bool:
    """Return whether intervals cover what they are to."""
    low, high = COVERAGE_BAR
    return low <= share <= high


def new_device(bench: Bench, device: str, draws: int) -> Iterator[Figure]:
    """Yield the rows of one new device, all others known that HELP knows."""
    prior = bench.prior(device, KNOWN, slice(CELLS))
    test = middle(bench, device).test
    plain = rank(bench.macs[test], bench.latency_ms[device][test])
    bars = RASPI4_BAR if device == "raspi4" else {}
    for n in (5, 10, 20):
        score = drawn(bench, prior, device, n, draws)
        bar, beside = bars.get(n), PUBLISHED_RASPI4[n] if device == "raspi4" else ""
        yield Figure(
            f"cells, {device} new, {n} samples: Spearman",
            words(score),
            f"{beside or 'published: none'}; MACs {plain:.3f}",
            f">= {bar:.3f}" if bar else "not below MACs",
            score.rank >= bar if bar else not score.below(plain),
            score.rank,
        )
        if n > 5:
            yield Figure(
                f"cells, {device} new, {n} samples: 90 % interval covers",
                f"{score.covered:.1%}",
                bar="85 to 95 %",
                met=within(score.covered),
                value=score.covered,
            )
    for n in (5, 10, 20):
        score = chosen(bench, prior, device, n, draws)
        yield Figure(f"cells, {device} new, {n} chosen", words(score), value=score.rank)
    prior = bench.prior(device, KNOWN, alive(bench, device).pool)
    for n in (5, 10, 20):
        score = drawn(bench, prior, device, n, draws, alive)
        beside = PUBLISHED_RASPI4_UNTRIMMED[n] if device == "raspi4" else ""
        what = f"cells, {device} new, {n} samples, untrimmed"
        yield Figure(what, words(score), beside, value=score.rank)


def left_out(bench: Bench, draws: int) -> Iterator[Figure]:
    """Yield the means over the known devices, each left out in turn."""
    learnt = {device: bench.prior(device, KNOWN, slice(CELLS)) for device in KNOWN}
    plain = bare(bench)
    counted = dict.fromkeys(KNOWN, LatencyPrior.counted(plain.features[:CELLS]))
    untrimmed = {device: bench.prior(device, KNOWN, alive(bench, device).pool) for device in KNOWN}
    methods: list[tuple[str, Method, Splitter, dict[int, str], Bench, dict[str, LatencyPrior]]] = [
        ("samples", drawn, middle, PUBLISHED_KNOWN, bench, learnt),
        ("chosen", chosen, middle, PUBLISHED_CHOSEN, bench, learnt),
        ("samples, no known device", drawn, middle, {}, plain, counted),
        ("samples, untrimmed", drawn, alive, PUBLISHED_UNTRIMMED, bench, untrimmed),
    ]
    for name, method, split, published, bed, prior_of in methods:
        for n in (5, 10, 20):
            each = {
                device: method(bed, prior_of[device], device, n, draws, split) for device in KNOWN
            }
            score, barred = Score.mean(list(each.values())), n == 10 and name == "chosen"
            least = min(each, key=lambda device: each[device].covered)
            yield Figure(
                f"cells, each known device left out, {n} {name}",
                f"{words(score)}, least {each[least].covered:.0%} ({least})",
                published.get(n, "MACs .799"),
                f">= {KNOWN_BAR:.3f}" if barred else "",
                score.rank >= KNOWN_BAR if barred else None,
                score.rank,
            )


def few_shot_nets(bench: Bench, draws: int) -> Iterator[Figure]:
    """Yield the rows of FBNet's networks, without and with known devices."""
    yield from _nets("no known device", bare(bench), (), draws)
    yield from _nets("others known", bench, tuple(bench.latency_ms), draws)


def _nets(label: str, bench: Bench, known: tuple[str, ...], draws: int) -> Iterator[Figure]:
    test = np.arange(NETS, NETS + TEST_NETS)
    means: dict[int, list[Score]] = {}
    for device, latency in bench.latency_ms.items():
        prior = bench.prior(device, known, slice(NETS))
        macs = rank(bench.macs[test], latency[test])
        for n in (10, 20, 50):
            samples = [
                np.random.default_rng(s).choice(NETS, n, replace=False) for s in range(draws)
            ]
            score = Score.mean([bench.score(prior, device, rows, test) for rows in samples])
            means.setdefault(n, []).append(score)
            yield Figure(
                f"FBNet, {device}, {n} samples, {label}",
                words(score),
                f"MACs {macs:.3f}",
                "not below MACs",
                not score.below(macs),
                score.rank,
            )
    for n, scores in means.items():
        mean, bar = Score.mean(scores), NETS_BAR.get(n, PUBLISHED_GP[n])
        yield Figure(
            f"FBNet, mean of {len(scores)} devices, {n} samples, {label}",
            words(mean),
            f"GP {PUBLISHED_GP[n]:.3f}",
            f">= {bar:.3f}",
            mean.rank >= bar,
            mean.rank,
        )


def sums(bench: Bench) -> Iterator[Figure]:
    """Yield how far sums of fitted costs are from networks measured whole."""
    chosen_ops = bench.features.fine
    padded = np.hstack([chosen_ops, np.ones((len(chosen_ops), 1))])
    fit, test = slice(NETS), slice(NETS, NETS + TEST_NETS)
    for device, latency in bench.latency_ms.items():
        if f"ms_{device}" in fbnet.SUMMED:
            continue  # they are sums: nothing to learn
        plain = padded[test] @ np.linalg.lstsq(padded[fit], latency[fit])[0]
        model = AdditiveModel.fit(chosen_ops[fit], latency[fit])
        ours, truth = model.predict(chosen_ops[test]), latency[test]
        low, high = model.interval_ms(chosen_ops[test])
        errors = [np.abs(values - truth) / truth for values in (ours, plain)]
        mapes = [float(error.mean()) for error in errors]
        worse = errors[0] - errors[1]  # paired
        shares = [float((error <= 0.1).mean()) for error in errors]
        covered = float(((low <= truth) & (truth <= high)).mean())
        yield Figure(
            f"FBNet, {device}, sum of fitted costs: MAPE",
            f"{mapes[0]:.2%}, {shares[0]:.1%} within 10 %, {covered:.0%} in 90 %",
            f"least squares {mapes[1]:.2%}, {shares[1]:.1%}",
            "no worse",
            bool(worse.mean() <= 2.0 * worse.std() / np.sqrt(len(worse)) + _EQUAL),
            mapes[0],
        )


def read(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line."""
    flags = parser(__doc__, data="the published latencies")
    flags.add_argument(
        "--device", default="raspi4", metavar="COLUMN", help="the new device, as ms_COLUMN"
    )
    flags.add_argument(
        "--recorded", action="store_true", help="build no table here; nor does --quick"
    )
    return flags.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures."""
    options = read(argv)
    where = "it holds the published latencies"
    bench = cells(need(options.data / "nb201.npz", where))
    networks = nets(need(options.data / "fbnet_4000.npz", where))
    if options.device not in bench.latency_ms:
        raise SystemExit(
            f"--device {options.device!r}: no such column; have {', '.join(bench.latency_ms)}"
        )
    draws = QUICK_DRAWS if options.quick else 20
    figures = [
        *new_device(bench, options.device, draws),
        *left_out(bench, draws),
        *few_shot_nets(networks, QUICK_DRAWS if options.quick else 10),
        *sums(networks),
    ]
    if not (options.recorded or options.quick):  # minutes
        from scripts._lut_figures import rows

        figures += rows(quick=False)
    return finish(options, figures, draws=draws, device=options.device)


if __name__ == "__main__":
    sys.exit(main())
