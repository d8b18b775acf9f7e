"""Readers of benchmark_model's text: shapes, families, wrappings, failures, and damaged logs."""

# ruff: noqa: E501 - logs are quoted as they are printed

from __future__ import annotations

import pytest

from device_agents.tools.benchmark_model import accept
from device_agents.tools.benchmark_text import TextRun, parse_log
from device_agents.tools.count_line import Stat, parse_count
from device_agents.tools.failures import unknown_flags
from device_agents.tools.figures import read_log
from device_agents.tools.op_profile import parse_profile, parse_tables

PLAIN = """\
STARTING!
Log parameter values verbosely: [0]
Min num runs: [50]
Num threads: [2]
Graph: [net.tflite]
Loaded model net.tflite
Explicitly applied XNNPACK delegate, and the model graph will be partially executed by the delegate w/ 3 delegate kernels.
The input model file size (MB): 1.5
Initialized session in 12.5ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=9 first=87112 curr=51629 min=51629 max=87112 avg=58147.4 std=11478 p5=51629 median=51962 p95=87112

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=52162 curr=49785 min=49088 max=686105 avg=63743.2 std=60716 p5=49620 median=51891 p95=68628

Inference timings in us: Init: 12500, First inference: 87112, Warmup (avg): 58147.4, Inference (avg): 63743.2
Memory footprint delta from the start of the tool (MB): init=3.5 overall=7
"""
LOGCAT = "05-31 10:38:42.569 22206 22207 I tflite  : "
LOGCAT_TIME = "07-08 15:34:26.201 I/tflite  ( 5395): "


def only(text: str) -> TextRun:
    (run,) = parse_log(text)
    return run


def prefixed(prefix: str, text: str = PLAIN) -> str:
    return "".join(f"{prefix}{line}\n" if line else "\n" for line in text.splitlines())


def test_a_run_is_read_whole() -> None:
    run = only(PLAIN)
    assert (run.family, run.graph, run.threads, run.asked) == ("tf2", "net.tflite", 2, 50)
    assert (run.init_ms, run.first_ms, run.warmup_ms, run.inference_ms) == (
        *(12.5, 87.112, 58.1474, 63.7432),
    )
    assert run.measured == Stat(50, 52.162, 49.088, 686.105, 63.7432, 60.716, 49.62, 51.891, 68.628)
    assert (run.memory_init_mb, run.memory_overall_mb, run.memory_peak_mb) == (3.5, 7.0, None)
    assert (run.delegation.delegate, run.delegation.partitions) == ("XNNPACK", 3)
    assert run.delegation.share is None
    found = accept(run, exit_code=0, asked=50)
    assert (found.status, found.latency_ms, found.statistic) == ("accepted", 51.891, "median")


@pytest.mark.parametrize(
    "text",
    [
        prefixed("INFO: "),
        prefixed(LOGCAT),
        prefixed(LOGCAT_TIME),
        PLAIN.replace("\n", "\r\n"),
        "pi@board:~ $ " + PLAIN,
        'WARNING: linker: "x" unused DT entry: type 0xf arg 0x930\n' + PLAIN,
        "I0000 00:00:1758455106.022223   62590 registry.cc:40] made\n" + PLAIN,
        PLAIN.replace("STARTING!", "STARTING!\nError in cpuinfo: prctl(PR_SVE_GET_VL) failed"),
    ],
)
def test_wrappings_change_nothing(text: str) -> None:
    assert only(text) == only(PLAIN)


def test_two_processes_mixed_in_one_logcat_are_two_runs() -> None:
    other = prefixed(LOGCAT.replace("22206", "3"), PLAIN.replace("51891", "50000"))
    pairs = zip(prefixed(LOGCAT).splitlines(), other.splitlines(), strict=True)
    runs = parse_log("".join(f"{a}\n{b}\n" for a, b in pairs if a))
    assert [run.measured.median_ms for run in runs if run.measured] == [51.891, 50.0]


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("begin", ["STARTING!", "Log parameter", "Graph", "Running", "Inference t"])
def test_repeated_logs_are_as_many_runs(parts: int, begin: str) -> None:
    text = PLAIN[PLAIN.index(begin) :]
    runs = parse_log(text * parts)
    assert len(runs) == parts
    assert len(set(runs)) == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("count=0", Stat(0)),
        ("count=1 curr=7000", Stat(1, 7.0, 7.0, 7.0, 7.0, 0.0, 7.0, 7.0, 7.0)),
        ("count=5 curr=7000(all same)", Stat(5, 7.0, 7.0, 7.0, 7.0, 0.0, 7.0, 7.0, 7.0)),
        (
            "count=2 first=1e6 curr=3000000 min=1000000 max=3000000 avg=2e+06 std=1000000",
            Stat(2, 1000.0, 1000.0, 3000.0, 2000.0, 1000.0),
        ),
    ],
)
def test_shapes_of_the_count_line(line: str, expected: Stat) -> None:
    assert parse_count(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "count=5 curr=7000",
        "count=2 first=1 curr=3 min=1 max=3 avg=2,5 std=1",
        "count=2 first=1 curr=3 min=1 max=3 avg=2.5 std=1,2",
        "count=2 first=1 curr=3 min=1 max=3 avg=",
        "count=2 first=1 curr=3 min=1 max=3 avg=7 std=1",
        "count=2 first=1 curr=3 min=1 max=3 avg=nan std=1",
        "count=2 first=1 curr=3 min=4 max=3 avg=3 std=1",
        "count=2 first=1 curr=3 min=1 max=3 avg=2 std=1 what=5",
        "count=two curr=3",
        "count=3",
    ],
)
def test_lines_that_are_not_the_tools(line: str) -> None:
    assert parse_count(line) is None


def test_cut_at_every_line_gives_the_whole_figure_or_none() -> None:
    lines = PLAIN.splitlines(keepends=True)
    figures = []
    for end in range(len(lines)):
        for run in parse_log("".join(lines[:end])):
            found = accept(run)
            assert (found.latency_ms is None) == (found.status not in ("accepted", "truncated"))
            figures.append(found.latency_ms)
    assert set(figures) == {None, 51.891}


def test_cut_at_every_character_never_gives_another_number() -> None:
    for end in range(len(PLAIN)):
        for run in parse_log(PLAIN[:end]):
            assert accept(run).latency_ms in (None, 51.891)
    for start in range(len(PLAIN)):
        for run in parse_log(PLAIN[start:]):
            assert accept(run).latency_ms in (None, 51.891)


def test_decimal_commas_are_refused() -> None:
    # Only the numbers with a fraction change, as a locale would have it.
    for good, bad in (("avg=63743.2", "avg=63743,2"), ("(avg): 63743.2", "(avg): 63743,2")):
        found = accept(only(PLAIN.replace(good, bad)))
        assert (found.status, found.latency_ms) == ("incomplete", None)
        assert "cannot read the numbers" in found.reasons[0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ERROR: Node number 553 (EXPAND_DIMS) failed to invoke.", "node 553 (EXPAND_DIMS) failed"),
        ("Benchmarking failed.", "the tool says that it failed"),
        ("Unconsumed cmdline flags: --num_rums=5", "does not know --num_rums=5"),
        ("ERROR: Disallowed CPU fallback detected.", "a delegate had to run the whole model"),
        ("ERROR: Failed to apply GPU delegate.", "the GPU delegate refuses it"),
        ("Killed", "the process was ended: Killed"),
        ("x.sh: line 3:   77 Segmentation fault      (core dumped) ./bm", "Segmentation fault"),
        ("Model provided has model identifier 'abcd', should be 'TFL3'", "is no TFLite model"),
        ("ERROR: Could not open 'net.tflite'.", "could not be loaded"),
        ("CANNOT LINK EXECUTABLE: library libfoo.so not found", "lacks a library"),
    ],
)
def test_a_failure_anywhere_takes_the_figure_away(line: str, words: str) -> None:
    lines = PLAIN.splitlines(keepends=True)
    for at in range(1, len(lines) + 1):
        found = accept(only("".join([*lines[:at], line + "\n", *lines[at:]])))
        assert (found.status, found.latency_ms) == ("failed", None), at
        assert words in found.reasons[0]


def test_what_the_caller_knows_counts_too() -> None:
    run = only(PLAIN)
    assert accept(run, exit_code=1).reasons == ("its exit code is 1",)
    assert accept(run, exit_code=137).reasons == ("it was ended by signal 9",)
    assert "ignored a flag" in accept(run, exit_code=0, asked=20).reasons[0]
    short = only(PLAIN.replace("count=50", "count=15"))
    found = accept(short, exit_code=0)
    assert (found.status, found.runs) == ("truncated", 15)
    assert found.reasons == ("15 of 50 runs: cut short by its time limit (max_secs)",)


def test_a_dry_run_is_no_figure() -> None:
    lines = ["count=0" if line.startswith("count=") else line for line in PLAIN.splitlines()]
    found = accept(only("\n".join(lines)))
    assert (found.status, found.latency_ms) == ("incomplete", None)


def test_another_runs_closing_line_does_not_prove_this_one() -> None:
    found = accept(only(PLAIN.replace("Inference (avg): 63743.2", "Inference (avg): 53743.2")))
    assert found.reasons == ("its count= line and its closing line disagree",)


def test_two_delegates_share_what_the_first_saw() -> None:
    text = (
        "VERBOSE: Replacing 54 out of 559 node(s) with delegate (TfLiteGpuDelegateV2) node, "
        "yielding 3 partitions for subgraph 0 (main).\n"
        "Replacing 456 out of 506 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 13 "
        "partitions for subgraph 0.\n"
    )
    delegation = only(text).delegation
    assert delegation.delegate == "GPU+XNNPACK"
    assert delegation.share == pytest.approx(510 / 559)
    silent = only(
        "Created TensorFlow Lite delegate for NNAPI.\nThough NNAPI delegate is explicitly applied, "
        "the model graph will not be executed by the delegate.\n"
    ).delegation
    assert (silent.delegate, silent.share, silent.partitions) == ("", 0.0, 0)
    assert str(silent) == "none (NNAPI was asked for)"


def test_unknown_flags_are_named_without_values() -> None:
    assert unknown_flags("WARN: Unconsumed cmdline flags: --a=1 --b\nelse") == ["--a", "--b"]
    assert unknown_flags("fine") == []


def test_compiled_model_tool_prints_milliseconds() -> None:
    text = (
        "INFO: Benchmark runs:  10\n\n========================================\n"
        " BENCHMARK RESULTS\n========================================\n"
        "Model initialization:  23.73 ms\nWarmup (first):        7.04 ms\n"
        "Warmup (avg):          6.04 ms (5 runs)\nInference (avg):       5.20 ms (10 runs)\n"
        "Inference (min):       5.10 ms\nInference (max):       9.86 ms\n"
        "Inference (median):    5.15 ms\nInference (std):       0.92 ms\n"
    )
    (figure,) = read_log(text)
    assert (figure.status, figure.latency_ms, figure.runs) == ("accepted", 5.15, 10)
    assert read_log(text.replace("(10 runs)", "(7 runs)"))[0].status == "truncated"
    assert read_log(text.replace("5.20 ms", "5,20 ms"))[0].latency_ms is None


def test_text_of_no_tool_is_nothing() -> None:
    for text in ("", "\n\n", "hello\ncounting=5\n", "a,b,c\n", "\x00\xff" * 50):
        assert read_log(text) == ()


NEW_TABLE = (
    (
        "Profiling Info for Benchmark Initialization:\n"
        "============================== Run Order ==============================\n"
        "\t [node type]\t [first]\t [avg ms]\t [%]\t [cdf%]\t [mem KB]\t[times called]\t[Name]\n"
        "\t AllocateTensors\t 1.356\t 1.356\t100.000%\t100.000%\t 0.000\t 1\tAllocateTensors/0\n\n"
        "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
        "============================== Run Order ==============================\n"
        "\t [node type]\t [first]\t [avg ms]\t [%]\t [cdf%]\t [mem KB]\t[times called]\t[Name]\n"
        "\t TfLiteXNNPackDelegate\t 3.826\t 3.000\t 1.0%\t 1.0%\t 0.000\t 1\t[]:64\n"
        "\t RESIZE\t 0.052\t 1.000\t 1.0%\t 2.0%\t 0.000\t 1\t[a/b;c]:38\n\n"
        "============================== Top by Computation Time ==============================\n"
        "\t [node type]\t [first]\t [avg ms]\t [%]\t [cdf%]\t [mem KB]\t[times called]\t[Name]\n"
        "\t TfLiteXNNPackDelegate\t 3.826\t 3.000\t 1.0%\t 1.0%\t 0.000\t 1\t[]:64\n\n"
        "Delegate internal:\n"
        "============================== Run Order ==============================\n"
        "\t [node type]\t [first]\t [avg ms]\t [%]\t [cdf%]\t [mem KB]\t[times called]\t[Name]\n"
        "\t Convolution\t 3.5\t 2.900\t 1.0%\t 1.0%\t 0.000\t 1\tDelegate/Convolution:0\n"
    )
    .replace("AllocateTensors/0", "[AllocateTensors/0]")
    .replace("Delegate/Convolution:0", "[Delegate/Convolution]:0")
)


def test_op_tables_are_told_apart_and_shares_computed() -> None:
    rows = parse_profile(NEW_TABLE)
    assert [(row.node_type, row.name, row.index, row.share) for row in rows] == [
        ("TfLiteXNNPackDelegate", "", 64, 0.75),
        ("RESIZE", "a/b;c", 38, 0.25),
    ]
    sections = [(table.section, table.inside) for table in parse_tables(NEW_TABLE)]
    assert sections == [("initialisation", False), ("regular", False), ("regular", True)]
    assert parse_profile(NEW_TABLE.replace(" 3.000", " 3,000")) == ()
    assert parse_profile(PLAIN) == ()
