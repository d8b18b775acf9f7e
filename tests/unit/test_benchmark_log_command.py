"""edgewright read-log: verdicts, exit codes, and one sentence for what cannot be read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pipeline.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
STARTING!
Num threads: [2]
Graph: [net [bold].tflite]
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 9 seconds.
count=1 curr=9000

Running benchmark for at least 5 iterations and at least 1 seconds but terminate if exceeding 9 seconds.
count=5 first=7000 curr=7100 min=6900 max=7100 avg=7000 std=60 p5=6900 median=7050 p95=7100

Inference timings in us: Init: 12500, First inference: 9000, Warmup (avg): 9000, Inference (avg): 7000
"""  # noqa: E501  # as it is printed
NCNN = "loop_count = 4\nnum_threads = 2\ngpu_device = -1\n"
ROW = "          squeezenet  min =   84.74  max =   85.60  avg =   85.22\n"


def read(
    path: Path, text: str, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, str, str]:
    path.write_text(text)
    code = main(["read-log", str(path), *options])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_good_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = read(tmp_path / "log", GOOD, capsys)
    assert code == 0
    assert "7.050" in out
    assert "accepted" in out
    assert "net [bold]" in out
    code, out, _ = read(tmp_path / "log", GOOD, capsys, "--json")
    (figure,) = json.loads(out)
    assert (figure["latency_ms"], figure["statistic"], figure["runs"]) == (7.05, "median", 5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "Benchmarking failed.\n", "failed: the tool says that it failed"),
        (GOOD.replace("count=5", "count=3"), "truncated: 3 of 5 runs"),
        (GOOD[: GOOD.index("count=5")], "incomplete: the log lacks its measurement"),
        (NCNN + "fopen x.param failed\n" + ROW, "failed: fopen x.param failed"),
        (NCNN + ROW.replace("85.22", "85,22"), "failed: unreadable"),
        (ROW, "incomplete: the log lacks the settings"),
        ("Average time cost:58.8 ms\n", "incomplete: the report lacks"),
        ("Average time cost:58.8 ms\nsomething failed: x\n", "failed: something failed"),
    ],
)
def test_no_figure_that_counts_is_exit_code_5(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    code, _, err = read(tmp_path / "log", text, capsys)
    assert code == 5
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_log_of_powershell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    path.write_bytes(GOOD.replace("\n", "\r\n").encode("utf-16"))
    assert main(["read-log", str(path)]) == 0
    assert "7.050" in capsys.readouterr().out


def test_what_is_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = read(tmp_path / "log", "hello\n", capsys)
    assert (code, out) == (5, "")
    assert "holds no run of benchmark_model, benchncnn or onnxruntime_perf_test" in err
    assert main(["read-log", str(tmp_path / "none")]) == 2
    assert "cannot read" in capsys.readouterr().err
    assert main(["read-log", str(tmp_path)]) == 2


def test_a_good_run_beside_a_failed_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = read(tmp_path / "log", GOOD + GOOD + "Benchmarking failed.\n", capsys, "--json")
    assert code == 0
    assert [figure["status"] for figure in json.loads(out)] == ["accepted", "failed"]
    assert [figure["latency_ms"] for figure in json.loads(out)] == [7.05, None]
