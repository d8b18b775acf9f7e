"""Reads onnxruntime_perf_test: its report, which mixes ms and seconds, and its result file.

The result file has one line per iteration (model, seconds, working set bytes, CPU %, iteration):
raw samples, which no other of these tools gives. Since October 2025 it has two times: until the
work was handed to the device, and until the result was there; the second is the latency.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import median

from device_agents.tools.log_lines import NUMBER, streams

_AVERAGE = re.compile(rf"Average (?:inference )?time cost(?: total)?: ?({NUMBER}) ms")
_TOTAL = re.compile(rf"Total (?:inference )?time cost: ?({NUMBER})(?: s)?")
_ITERATIONS = re.compile(r"(?:Total (?:iterations|inference requests)|Runs): ?(\d+)")
# The unit is what shows that the number before it is whole.
_LATENCY = re.compile(rf"(Min|Max|P\d+) Latency(?: is|:) ?({NUMBER}) ?(?:s|se|sec)(?: ?s)?")
_BEGINS = ("Average", "Total", "Min Latency", "Max Latency", "Runs:")
# What says nothing of the latency: the wall time, in which inferences may overlap, and the load.
_BESIDE = re.compile(
    rf"Total (?:inference )?run time: ?{NUMBER} s|Total CPU usage: ?\d+ ?%"
    rf"|Average inference time cost submission: ?{NUMBER} ms"
)
_FAILED = re.compile(
    r"what\(\):|\[ONNXRuntimeError\]|terminate called|Exception during|failed:|Fail"
)
_ROW = re.compile(
    rf"(?P<model>[^,]*),(?P<first>{NUMBER})(?:,(?P<total>{NUMBER}))?,\d+,\d+,(?P<run>\d+)"
)


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
        """Whether the report is whole and agrees with itself.

        The average times the count is the total, and lies between the extremes. It does not where
        builds of 2025 print the extremes of how long handing the work over took.
        """
        if not (self.iterations and self.average_ms and self.total_s):
            return False
        low_ms = self.average_ms if self.min_ms is None else self.min_ms
        high_ms = self.average_ms if self.max_ms is None else self.max_ms
        product_s = self.average_ms * self.iterations / 1000.0
        return (
            abs(product_s - self.total_s) <= 0.01 * self.total_s
            and 0.99 * low_ms <= self.average_ms <= 1.01 * high_ms
        )


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
    for line in (line for lines in streams(text) for line in lines):
        if found := _AVERAGE.fullmatch(line):
            names = {"average": float(found[1])}
        elif found := _TOTAL.fullmatch(line):
            names = {"total": float(found[1])}
        elif found := _ITERATIONS.fullmatch(line):
            names = {"iterations": float(found[1])}
        elif found := _LATENCY.fullmatch(line):
            names = {found[1]: round(float(found[2]) * 1000.0, 9)}
        else:
            if _FAILED.search(line):
                failures.append(line)
            elif line.startswith(_BEGINS) and not _BESIDE.fullmatch(line):
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
    """Read a result file, one entry per model; empty when any line is not of the form.

    Behind the rows may stand the percentiles that `-s` adds. Rows of both forms in one file, or a
    result that was there before its work was handed over, are no result file.
    """
    by_model: dict[str, list[tuple[int, int]]] = {}
    columns = set()
    for line in (line for lines in streams(text) for line in lines):
        if not line or _LATENCY.fullmatch(line):
            continue
        found = _ROW.fullmatch(line)
        if not found:
            return ()
        first_ns = round(float(found["first"]) * 1e9)
        total_ns = round(float(found["total"] or found["first"]) * 1e9)
        columns.add(found["total"] is None)
        if not 0 < first_ns <= total_ns or len(columns) > 1:
            return ()
        by_model.setdefault(found["model"], []).append((int(found["run"]), total_ns))
    return tuple(
        OrtSamples(model, tuple(ns for _, ns in sorted(rows))) for model, rows in by_model.items()
    )
