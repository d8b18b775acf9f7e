"""Reads the `count=` line of benchmark_model, in microseconds there and ms here.

Three shapes: one invoke (`count=1 curr=N`), all the same (`count=N curr=X(all same)`), and the full
one; since 2.18 p5, median and p95 follow. Averages have 6 digits, `1.0293e+07` included.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from device_agents.tools.log_lines import NUMBER

US_PER_MS = 1000.0

_TOKEN = re.compile(rf"(first|curr|min|max|avg|std|p5|median|p95)=({NUMBER})(\(all same\))?")
_COUNT = re.compile(r"count=(\d+)")


@dataclass(frozen=True, slots=True)
class Stat:
    """One phase: number of invokes and their times in ms; None for what was not told."""

    count: int
    first_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    avg_ms: float | None = None
    std_ms: float | None = None
    p5_ms: float | None = None
    median_ms: float | None = None
    p95_ms: float | None = None


def parse_count(line: str) -> Stat | None:  # noqa: PLR0911  # one return per shape or fault
    """Read a `count=` line; None when any part of it is not as the tool writes it."""
    head, *words = line.split(" ")
    found = _COUNT.fullmatch(head)
    if not found:
        return None
    # `curr=5(all same)` is two words.
    tokens = " ".join(words).replace("(all same)", "").split()
    values: dict[str, float] = {}
    for token in tokens:
        pair = _TOKEN.fullmatch(token)
        if not pair or pair[1] in values:
            return None
        values[pair[1]] = round(float(pair[2]) / US_PER_MS, 6)
    count = int(found[1])
    if not values:
        return Stat(0) if count == 0 else None
    if "avg" not in values:
        # One invoke, or all of them the same.
        same = values.get("curr")
        if same is None or (count > 1 and "(all same)" not in line):
            return None
        return Stat(count, same, same, same, same, 0.0, same, same, same)
    if not {"first", "min", "max", "std"} <= values.keys():
        return None
    if not values["min"] <= values["max"] or not _about_within(values):
        return None
    del values["curr"]
    return Stat(count, **{f"{name}_ms": value for name, value in values.items()})


def _about_within(values: dict[str, float]) -> bool:
    # The average has 6 significant digits only.
    return values["min"] * 0.99999 <= values["avg"] <= values["max"] * 1.00001


def agree(one: float | None, other: float | None) -> bool:
    """Tell whether two printed averages are the same number (both have 6 digits)."""
    return one is not None and other is not None and math.isclose(one, other, rel_tol=1e-5)
