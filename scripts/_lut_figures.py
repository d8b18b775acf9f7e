"""Figures of latency tables built on this computer: how far their sums are from whole networks.

Called by bench_latency_models.py. The networks that are compared had no part in the table. This
measures for some minutes: on a machine that does other work its figures are that work's.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from models.number_format import STATIC8
from pipeline.cli.lut_bench import TableOrder, open_bench
from pipeline.recipe.sections import DeviceSection
from pipeline.search.lut.calibration import additivity
from pipeline.search.lut.table import NETWORKS, build_table, measure_others
from scripts.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.search.lut.calibration import Whole
    from profiles.table import LatencyTable

MAPE_BAR = 0.05
_QUANTILE_95 = 1.96


@dataclass(frozen=True, slots=True)
class Case:
    """A space whose table is built: its name and options, for 32 x 32 x 1 and 10 classes."""

    space: str
    options: Mapping[str, Any] = field(default_factory=dict)


SMALL = Case("proxyless", {"stem": [3, 2, 16]})
LARGER = Case(
    "mnasnet",
    {"stem": [3, 2, 8], "stages": [[2, 16, 2], [2, 32, 2], [1, 48, 2]], "head": 96},
)
"""A small space for 32 x 32 pixels."""


def rows(*, quick: bool) -> list[Figure]:
    """Build tables on the local device and return their figures; `quick` takes one space."""
    cases = (SMALL,) if quick else (SMALL, LARGER)
    return [figure for case in cases for figure in _rows(case)]


def _rows(case: Case) -> list[Figure]:
    device = DeviceSection("local")
    order = TableOrder(
        case.space, case.options, (32, 32, 1), 10, number_format=STATIC8, device=device
    )
    with (
        tempfile.TemporaryDirectory(prefix="edgewright-") as store,
        open_bench(order, store, fresh=True, priority=0) as held,
    ):
        timer, space = order.open_timer(held), order.create_space(0)
        begin = time.monotonic()
        table = build_table(timer, space, seed=order.seed)
        took_s = time.monotonic() - begin
        others = measure_others(timer, table, seed=order.seed)
    measured = np.array([network.latency_ms for network in others])
    found = additivity(_sums(table, others), measured)
    plain = additivity(_sums(_uncorrected(table), others), measured)
    what = f"table of {case.space} on this computer, int8"
    return [
        Figure(
            f"{what}: mean error of {found.networks} sums",
            f"{found.mape:.1%}",
            f"ops alone {plain.mape:.1%}",
            f"at most {MAPE_BAR:.0%}",
            found.mape <= MAPE_BAR,
            found.mape,
        ),
        Figure(f"{what}: within 10 %", f"{found.within_10:.0%}", f"ops alone {plain.within_10:.0%}",
               value=found.within_10),
        Figure(f"{what}: Spearman", f"{found.spearman:.3f}", f"ops alone {plain.spearman:.3f}",
               value=found.spearman),
        Figure(f"{what}: 95 % intervals that cover", f"{_covered(table, others):.0%}",
               value=_covered(table, others)),
        Figure(f"{what}: {len(table.entries)} ops and {NETWORKS} networks measured in",
               f"{took_s:.0f} s", value=took_s),
    ]  # fmt: skip


def _sums(table: LatencyTable, networks: Sequence[Whole]) -> np.ndarray[Any, Any]:
    return np.array([table.latency_ms(network.keys)[0] for network in networks])


def _uncorrected(table: LatencyTable) -> LatencyTable:
    """Return the table of the ops as timed alone."""
    entries = {
        key: replace(entry, latency_ms=entry.alone_ms or 0.0)
        for key, entry in table.entries.items()
    }
    return replace(table, entries=entries)


def _covered(table: LatencyTable, networks: Sequence[Whole]) -> float:
    """Return the share of networks whose latency lies in the sum's 95 % interval."""
    inside = []
    for network in networks:
        value, stderr = table.latency_ms(network.keys)
        half = _QUANTILE_95 * np.hypot(stderr, network.stderr_ms)
        inside.append(abs(value - network.latency_ms) <= half)
    return float(np.mean(inside))
