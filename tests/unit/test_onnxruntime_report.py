"""onnxruntime_perf_test's reports and result files since 2020; tests/published reads real ones."""

from __future__ import annotations

import pytest

from device_agents.tools.figures import read_log

REPORT = """\
Setting intra_op_num_threads to 4
Session creation time cost: 1.25 s
First inference time cost: 248 ms
Total inference time cost: 0.9 s
Total inference requests: 12
Average inference time cost{total}: 75.0 ms
Total inference run time: 0.46 s
Number of inferences per second: 26.1
{cpu} CPU usage: 382 %
Peak working set size: 78946304 bytes
"""
STATISTICS = """\
Avg CPU usage:48
Peak working set size:78946304
Runs:12
Min Latency: 0.0705 s
Max Latency: 0.0838 s
P50 Latency: 0.0741 s
P90 Latency: 0.0831 s
P999 Latency: 0.0838 s
"""


def report(total: str = "", cpu: str = "Avg") -> str:
    return REPORT.format(total=total, cpu=cpu)


@pytest.mark.parametrize("total", ["", " total"])
@pytest.mark.parametrize("cpu", ["Avg", "Total"])
@pytest.mark.parametrize("wrap", ["", "2026-11-27T08:01:02.1234567Z ", "I/ort  ( 77): "])
def test_a_report(total: str, cpu: str, wrap: str) -> None:
    plain, full = report(total, cpu), report(total, cpu) + STATISTICS
    for text, ms, statistic in ((plain, 75.0, "average"), (full, 74.1, "median")):
        (found,) = read_log("".join(wrap + line + "\n" for line in text.splitlines()))
        assert (found.status, found.reasons) == ("accepted", ())
        assert (found.latency_ms, found.statistic, found.runs) == (ms, statistic, 12)


@pytest.mark.parametrize(
    "text",
    [
        report().replace("0.9 s", "1.9 s"),
        report().replace("requests: 12", "requests: 21"),
        report().replace("run time: 0.46 s", "run time: 0.46"),
        report().replace("75.0 ms", "75.0 m"),
        report() + STATISTICS.replace("Runs:12", "Runs:13"),
        # Times until the work was handed over, beside an average of whole inferences.
        report(" total") + STATISTICS.replace("0.0838", "0.0138").replace("0.0705", "0.0105"),
        report() + report().replace("75.0", "76.0"),
        report() + "Average warp factor: 9\n",
    ],
)
def test_what_disagrees_or_is_not_known_is_no_figure(text: str) -> None:
    (found,) = read_log(text)
    assert (found.status, found.latency_ms) == ("incomplete", None)


def test_the_time_until_the_result_is_there_counts() -> None:
    rows = "net.onnx,0.0101,0.0303,61440000,93,0\nnet.onnx,0.0102,0.0301,61440000,93,1\n"
    (found,) = read_log(rows)
    assert (found.latency_ms, found.statistic, found.runs) == (30.2, "median", 2)
    (old,) = read_log("net.onnx,0.0303,61440000,93,0\n\nP50 Latency is 0.0303 sec\n")
    assert (old.latency_ms, old.runs) == (30.3, 1)
    (wrapped,) = read_log("".join(f"bench-1  | {row}\n" for row in rows.splitlines()))
    assert wrapped.latency_ms == 30.2


@pytest.mark.parametrize(
    "rows",
    [
        "net,0.0303,0.0101,61440000,93,0\n",
        "net,0.0101,0.0303,61440000,93,0\nnet,0.0303,61440000,93,1\n",
        "net,0.0101,0,61440000,93,0\n",
        "net,0.0101,0.0303,61440000,93,0,7\n",
    ],
)
def test_rows_that_contradict_themselves_are_no_result(rows: str) -> None:
    assert read_log(rows) == ()
