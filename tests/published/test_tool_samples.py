"""Every real log of the published samples against the values that a person reads in it."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from device_agents.tools import benchmark_text, benchncnn, figures, onnxruntime_perf_test
from device_agents.tools.benchmark_model import accept
from device_agents.tools.log_lines import decode
from device_agents.tools.op_profile import parse_profile

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"
FOLDERS = ("benchmark_model", "ncnn_benchncnn", "onnxruntime_perf_test")

# (runs, status of the first, its latency in ms, count, threads, asked, init, first, delegation)
BENCHMARK_MODEL = {
    "rpi5_tf2.18_xnnpack_fp32_1thread": (
        *(1, "accepted", 104.012, 50, 1, 50, 224.228, 151.333, "XNNPACK, share not told"),
    ),
    "rpi4_tf2.18_xnnpack_fp32_1thread": (
        *(1, "accepted", 328.651, 50, 1, 50, 69.51, 383.926, "XNNPACK, share not told"),
    ),
    "rpi5_tf2.18_all_50_runs": (
        *(50, "accepted", 104.012, 50, 1, 50, 224.228, 151.333, "XNNPACK, share not told"),
    ),
    "rpi4_tf2.18_all_runs": (
        *(48, "accepted", 328.651, 50, 1, 50, 69.51, 383.926, "XNNPACK, share not told"),
    ),
    "rpi4_xnnpack999_op_profiling_head": (
        *(1, "accepted", 55.0432, 50, 4, 50, 18.777, 64.791, "XNNPACK, share not told"),
    ),
    "termux_tf_fp32_1000runs_outlier_percentiles": (
        *(1, "accepted", 51.891, 1000, None, 1000, 119.515, 87.112, "XNNPACK 100%"),
    ),
    "gpu_full_delegation_tf43541": (
        *(1, "accepted", 119.375, 50, 4, 50, 870.557, 130.565, "GPU 100%"),
    ),
    "oldest_2019_tf1x_yuenshome77": (
        *(1, "accepted", 66.7676, 15, 2, 10, 9.933, None, "not told"),
    ),
    "lichee_rv_truncated_by_max_secs": (
        *(1, "truncated", 10293.0, 15, 1, 50, 271.722, 10460.473, "not told"),
    ),
    # Excerpts: the numbers are there, the proof that the run was whole is not.
    "gpu_then_xnnpack_mixed_excerpt": (
        *(1, "incomplete", None, 25, None, None, 2227.672, 332.961, "GPU+XNNPACK 91%"),
    ),
    "tf41769_linker_warning_prefix": (*(1, "incomplete", None, 50, 6, 50, None, None, "not told"),),
    "apk_logcat_tf59997": (
        *(2, "incomplete", None, None, None, None, 36.618, 1530.248, "not told"),
    ),
    "apk_logcat_tf56301_gpu_excerpt": (
        *(1, "incomplete", None, None, None, 50, None, None, "GPU, share not told"),
    ),
    "gpu_silent_nnapi_not_executed": (
        *(1, "incomplete", None, None, 2, None, None, None, "GPU 100%"),
    ),
    "litert506_gpu_unsupported_ops_excerpt": (
        *(1, "incomplete", None, None, None, None, None, None, "GPU 19%"),
    ),
    "litert_next_compiledmodel_mobileapp1134": (
        *(1, "incomplete", None, 10, None, None, 23744.73, 7441.04, "not told"),
    ),
    "readme_op_profiling_oldest": (
        *(1, "incomplete", None, None, None, None, 38.467, None, "not told"),
    ),
    "termux_tf_int8_prepare_failure": (
        *(1, "failed", None, None, None, 5, None, None, "XNNPACK 99%"),
    ),
    "tf40677_flex_ops_missing": (*(1, "failed", None, None, None, None, None, None, "not told"),),
    "tf45986_invoke_fails_every_run_excerpt": (
        *(1, "failed", None, None, None, None, None, None, "not told"),
    ),
}
FAILURES = {
    "termux_tf_int8_prepare_failure": "node 57 (BATCH_MATMUL) failed to prepare",
    "tf40677_flex_ops_missing": "links the Flex delegate",
    "tf45986_invoke_fails_every_run_excerpt": "node 553 (EXPAND_DIMS) failed to prepare",
}


def sample(name: str) -> str:
    path = SAMPLES / name
    if not path.is_file():
        pytest.skip(f"{path} is not there: it holds the published samples")
    return path.read_text()


def files() -> list[Path]:
    found = [path for folder in FOLDERS for path in sorted((SAMPLES / folder).glob("*"))]
    if not found:
        pytest.skip(f"{SAMPLES} is not there: it holds the published samples")
    return found


def test_every_sample_is_expected_here() -> None:
    names = {path.stem for path in files() if path.parent.name == "benchmark_model"}
    assert names == BENCHMARK_MODEL.keys()


@pytest.mark.parametrize("name", BENCHMARK_MODEL)
def test_benchmark_model(name: str) -> None:
    runs, status, latency, count, threads, asked, init, first, delegation = BENCHMARK_MODEL[name]
    read = benchmark_text.parse_log(sample(f"benchmark_model/{name}.txt"))
    assert len(read) == runs
    run, found = read[0], accept(read[0])
    assert (found.status, found.latency_ms) == (status, latency), found
    assert (run.measured.count if run.measured else None, run.threads) == (count, threads)
    assert (run.asked, run.init_ms, run.first_ms) == (asked, init, first)
    assert str(run.delegation) == delegation
    assert run.unreadable == ()
    if status == "failed":
        assert FAILURES[name] in found.reasons[0]


def test_numbers_of_the_excerpts_are_read_all_the_same() -> None:
    def one(name: str) -> benchmark_text.TextRun:
        return benchmark_text.parse_log(sample(f"benchmark_model/{name}.txt"))[0]

    mixed = one("gpu_then_xnnpack_mixed_excerpt")
    assert mixed.measured
    assert (mixed.measured.median_ms, mixed.measured.p5_ms, mixed.measured.p95_ms) == (
        *(305.582, 299.213, 313.707),
    )
    assert (mixed.memory_init_mb, mixed.memory_overall_mb) == (119.5, 176.777)
    assert [item.delegate for item in mixed.delegation.replacements] == ["GPU", "XNNPACK"]
    assert mixed.delegation.share == pytest.approx((54 + 456) / 559)
    slow = one("tf41769_linker_warning_prefix")
    assert slow.measured
    assert slow.warmup
    assert (slow.warmup.avg_ms, slow.measured.avg_ms) == (1289.876, 1010.13)
    litert = one("litert_next_compiledmodel_mobileapp1134")
    assert litert.measured
    assert (litert.measured.avg_ms, litert.measured.min_ms, litert.measured.max_ms) == (
        *(7430.2, 7416.4, 7448.86),
    )
    assert (litert.warmup_ms, litert.memory_overall_mb) == (7441.04, 6391.74)
    readme = one("readme_op_profiling_oldest")
    assert (readme.family, readme.warmup_ms, readme.inference_ms) == ("tf1", 83.235, 79.7609)
    both = benchmark_text.parse_log(sample("benchmark_model/apk_logcat_tf59997.txt"))
    assert [run.inference_ms for run in both] == [1497.12, 333.826]
    refused = one("litert506_gpu_unsupported_ops_excerpt").delegation
    assert refused.split == ("GPU", 28, 116)
    assert len(refused.refused) == 18
    assert refused.refused[-1] == "TRANSPOSE: Max version supported: 2. Requested version 4."
    silent = one("gpu_silent_nnapi_not_executed").delegation
    assert [(item.delegate, item.extent) for item in silent.applied] == [
        *(("GPU", "full"), ("NNAPI", "none")),
    ]
    pi = one("rpi5_tf2.18_xnnpack_fp32_1thread")
    assert pi.delegation.partitions == 13
    assert (pi.memory_init_mb, pi.memory_overall_mb) == (31.0, 65.6094)


@pytest.mark.parametrize(
    ("name", "runs", "within", "spread"),
    [("rpi4_tf2.18_all_runs", 48, 0.0028, 0.015), ("rpi5_tf2.18_all_50_runs", 50, 0.0025, 0.014)],
)
def test_noise_table_can_be_recomputed(name: str, runs: int, within: float, spread: float) -> None:
    """The medians of std/avg and of max/min - 1 that were published for these logs."""
    read = benchmark_text.parse_log(sample(f"benchmark_model/{name}.txt"))
    stats = [run.measured for run in read if run.measured]
    assert len(stats) == runs
    # Three of the slowest networks on the Pi 4 did not do 50 runs in 150 s.
    cut = [run.measured.count for run in read if accept(run).status == "truncated" and run.measured]
    assert cut == ([39, 28, 45] if "rpi4" in name else [])
    found = [(s.std_ms or 0) / (s.avg_ms or 1) for s in stats]
    assert statistics.median(found) == pytest.approx(within, abs=0.0001)
    wide = [(s.max_ms or 0) / (s.min_ms or 1) - 1 for s in stats]
    assert statistics.median(wide) == pytest.approx(spread, abs=0.001)
    threads = [run.threads for run in read]
    assert set(threads) == {1, 2, 3, 4}


def test_op_profile_of_the_oldest_form() -> None:
    rows = parse_profile(sample("benchmark_model/readme_op_profiling_oldest.txt"))
    assert len(rows) == 31
    assert (rows[0].node_type, rows[0].avg_ms, rows[0].times_called) == ("CONV_2D", 4.269, 0)
    assert rows[0].name == "MobilenetV1/MobilenetV1/Conv2d_0/Relu6"
    assert rows[-1].node_type == "SOFTMAX"
    assert sum(row.avg_ms for row in rows) == pytest.approx(79.449)
    # The log says 0.107 %.
    assert rows[0].share == pytest.approx(4.269 / 79.449, rel=1e-3)
    assert sum(row.share for row in rows) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "settings", "rows", "figures_ms"),
    [
        (
            *("rpi3bplus", [(4, 4), (4, 1)], 32),
            {(0, "squeezenet"): 85.22, (0, "FastestDet"): 67.98, (1, "resnet50"): 979.75},
        ),
        (
            *("rpi4b", [(10, 4), (10, 1)], 35),
            {(0, "mobilenet_v2"): 61.88, (0, "vgg16"): 547.09, (1, "vision_transformer"): 6605.73},
        ),
        (
            *("rpi_zero2w", [(8, 4), (8, 1)], 31),
            {(0, "mobilenet_v3"): 119.04, (1, "yolo-fastestv2"): 127.05},
        ),
    ],
)
def test_benchncnn(
    name: str,
    settings: list[tuple[int, int]],
    rows: int,
    figures_ms: dict[tuple[int, str], float],
) -> None:
    runs = benchncnn.parse_log(sample(f"ncnn_benchncnn/{name}.txt"))
    assert [(run.loops, run.threads) for run in runs] == settings
    assert [len(run.rows) for run in runs] == [rows, rows]
    assert all((run.powersave, run.gpu_device, run.cooling_down) == (0, -1, 1) for run in runs)
    for (number, net), ms in figures_ms.items():
        assert {row.name: row.avg_ms for row in runs[number].rows}[net] == ms
    assert not [row for run in runs for row in run.rows if row.problem]


def test_onnxruntime_report_mixes_units() -> None:
    report = onnxruntime_perf_test.parse_report(sample("onnxruntime_perf_test/readme_sample.txt"))
    assert report is not None
    assert (report.iterations, report.average_ms, report.total_s) == (1000, 58.8053, 58.8053)
    assert (report.min_ms, report.max_ms) == (55.9777, 62.3472)
    assert report.percentiles_ms == {
        "P50": 58.7108,
        "P90": 59.9845,
        "P95": 60.5676,
        "P99": 61.9517,
        "P999": 62.3472,
    }
    assert report.complete


def test_onnxruntime_result_file_holds_raw_samples() -> None:
    (found,) = onnxruntime_perf_test.parse_samples(
        sample("onnxruntime_perf_test/result_csv_ort6301.csv")
    )
    assert found.model == "mnist"
    assert found.samples_ns == (*(107583, 115512, 107526, 107483, 107655, 107925, 107888, 108040),)
    assert found.median_ms == pytest.approx(0.1077715)


def numbers(text: str) -> set[tuple[str, float]]:
    return {
        (figure.label, figure.latency_ms)
        for figure in figures.read_log(text)
        if figure.latency_ms is not None
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_cut_at_every_line_never_gives_another_number(folder: str) -> None:
    for path in files():
        if path.parent.name != folder:
            continue
        lines = path.read_text().splitlines(keepends=True)
        whole = numbers("".join(lines))
        step = max(1, len(lines) // 60)
        for at in range(0, len(lines), step):
            kept, rest = "".join(lines[:at]), "".join(lines[at:])
            if path.suffix == ".csv":
                # A median of fewer samples is another one; it has to stay among them.
                assert all(0.107 < ms < 0.116 for _, ms in numbers(kept) | numbers(rest))
                continue
            # A report cut before its percentiles still has its average, and says so.
            averages = {("", 58.8053)} if path.stem == "readme_sample" else set()
            assert numbers(kept) <= whole | averages, (path.name, at)
            assert numbers(rest) <= whole | {("", ms) for _, ms in whole}, (path.name, at)


def test_doubled_and_rewrapped_logs_say_the_same() -> None:
    for path in files():
        text = path.read_text()
        whole = numbers(text)
        assert numbers(text.replace("\n", "\r\n")) == whole, path.name
        if not text.startswith("0"):
            logcat = "".join(
                f"05-31 10:38:42.569 22206 22207 I tflite  : {line}\n" for line in text.split("\n")
            )
            if folder_of(path) == "benchmark_model":
                assert numbers(logcat) == whole, path.name
        once, twice = figures.read_log(text), figures.read_log(text + "\n" + text)
        if folder_of(path) == "benchmark_model":
            good = [figure for figure in once if figure.status in ("accepted", "truncated")]
            assert [figure for figure in twice if figure in good] == 2 * good, path.name
        assert numbers(text + "\n" + text) <= whole, path.name


def folder_of(path: Path) -> str:
    return path.parent.name


def test_decimal_commas_give_no_number() -> None:
    for path in files():
        text = path.read_text()
        if path.suffix == ".csv":
            continue
        commas = "".join(
            char if char != "." or not digits(text, at) else "," for at, char in enumerate(text)
        )
        fractions = numbers(commas) - numbers(text)
        assert not fractions, path.name


def digits(text: str, at: int) -> bool:
    return text[at - 1 : at].isdigit() and text[at + 1 : at + 2].isdigit()


def test_no_number_from_a_failed_run() -> None:
    """A failure text put anywhere into a good log takes the figure away."""
    good = sample("benchmark_model/rpi5_tf2.18_xnnpack_fp32_1thread.txt").splitlines(keepends=True)
    for at in range(1, len(good) + 1):
        text = "".join([*good[:at], "ERROR: Node number 3 (ADD) failed to invoke.\n", *good[at:]])
        assert numbers(text) == set()
        assert figures.read_log(text)[0].status == "failed"


CASES = SAMPLES.parent / "cases"


@pytest.mark.parametrize(
    ("name", "latency_ms", "statistic", "runs"),
    [
        ("report.txt", 40.62, "average", 20),
        ("report_with_s.txt", 40.5, "median", 20),
        ("result6.csv", 40.6, "median", 3),
    ],
)
def test_onnxruntime_since_2020(name: str, latency_ms: float, statistic: str, runs: int) -> None:
    path = CASES / "19-ort-perf-report" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there: it holds the published cases")
    (found,) = figures.read_log(decode(path.read_bytes()))
    assert (found.status, found.statistic, found.runs) == ("accepted", statistic, runs)
    assert found.latency_ms == pytest.approx(latency_ms)


def test_a_log_as_people_keep_it() -> None:
    paths = sorted((CASES / "20-log-wrappings").glob("*.txt"))
    if not paths:
        pytest.skip(f"{CASES} is not there: it holds the published cases")
    for path in paths:
        (found,) = figures.read_log(decode(path.read_bytes()))
        assert (found.status, found.latency_ms, found.statistic) == ("accepted", 12.55, "average")
        assert (found.runs, found.threads) == (80, 4), path.name
