"""Reads onnxruntime_perf_test: its report, which mixes ms and seconds, and its result file.

The result file has one line per iteration (model, seconds, working set bytes, CPU %, iteration):
raw samples, which no other of these tools gives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import median

from device_agents.tools.log_lines import NUMBER, bare

_AVERAGE = re.compile(rf"Average (?:inference )?time cost: ?({NUMBER}) ms")
_TOTAL = re.compile(rf"Total (?:inference )?time cost: ?({NUMBER})(?: s)?")
_ITERATIONS = re.compile(r"Total (?:iterations|inference requests): ?(\d+)")
# The unit is what shows that the number before it is whole.
_LATENCY = re.compile(rf"(Min|Max|P\d+) Latency(?: is|:) ?({NUMBER}) ?(?:s|se|sec)(?: ?s)?")
_BEGINS = ("Average", "Total", "Min Latency", "Max Latency")
_FAILED = re.compile(
    r".*(?:what\(\):|\[ONNXRuntimeError\]|terminate called|Exception during|failed:|Fail).*"
)
_ROW = re.compile(rf"([^,\r\n]*),({NUMBER}),(\d+),(\d+),(\d+)")


@dataclass(frozen=True, slots=True)
class OrtReport:
    """The report; times in ms, `percentiles_ms` by name such as P90."""

    iterations: int | None
    average_ms: float | None
    total_s: float | None
    min_ms: float | None
    max_ms: float | None
    percentiles_ms: dict[str, float]
    failures: tuple[str, ...]
    unreadable: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether the report is whole and agrees with itself: average times count is the total."""
        if not (self.iterations and self.average_ms and self.total_s):
            return False
        product_s = self.average_ms * self.iterations / 1000.0
        return abs(product_s - self.total_s) <= 0.01 * self.total_s


@dataclass(frozen=True, slots=True)
class OrtSamples:
    """A result file: samples of one model in ns, in the order of its iterations."""

    model: str
    samples_ns: tuple[int, ...]

    @property
    def median_ms(self) -> float:
        """Median of the samples."""
        return median(self.samples_ns) / 1e6


def parse_report(text: str) -> OrtReport | None:
    """Read a report; None when the text is none. Of several in a file only a lone one is read."""
    numbers: dict[str, float] = {}
    failures, unreadable = [], []
    for line in map(bare, text.splitlines()):
        if found := _AVERAGE.fullmatch(line):
            names = {"average": float(found[1])}
        elif found := _TOTAL.fullmatch(line):
            names = {"total": float(found[1])}
        elif found := _ITERATIONS.fullmatch(line):
            names = {"iterations": float(found[1])}
        elif found := _LATENCY.fullmatch(line):
            names = {found[1]: round(float(found[2]) * 1000.0, 9)}
        else:
            if _FAILED.fullmatch(line):
                failures.append(line)
            elif line.startswith(_BEGINS) and not line.startswith("Total run time"):
                unreadable.append(line)
            continue
        if any(name in numbers and numbers[name] != value for name, value in names.items()):
            unreadable.append(line)
        numbers.update(names)
    if not numbers:
        return None
    iterations = numbers.pop("iterations", None)
    average, total = numbers.pop("average", None), numbers.pop("total", None)
    low, high = numbers.pop("Min", None), numbers.pop("Max", None)
    return OrtReport(
        int(iterations) if iterations is not None else None,
        *(average, total, low, high, numbers, tuple(failures), tuple(unreadable)),
    )


def parse_samples(text: str) -> tuple[OrtSamples, ...]:
    """Read a result file, one entry per model; empty when any line is not of the form."""
    by_model: dict[str, list[tuple[int, int]]] = {}
    for line in text.splitlines():
        found = _ROW.fullmatch(line)
        if not found:
            return ()
        nanoseconds = round(float(found[2]) * 1e9)
        if nanoseconds <= 0:
            return ()
        by_model.setdefault(found[1], []).append((int(found[5]), nanoseconds))
    return tuple(
        OrtSamples(model, tuple(ns for _, ns in sorted(rows))) for model, rows in by_model.items()
    )
