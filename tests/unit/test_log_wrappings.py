"""A good log in the wrappings that people keep it in, nested too, and in ones that nobody knows."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from device_agents.tools.figures import Figure, read_log
from device_agents.tools.log_lines import decode, streams

if TYPE_CHECKING:
    from collections.abc import Callable

    Wrap = Callable[[str], str]

LOG = """\
STARTING!
Log parameter values verbosely: [0]
Num threads: [3]
Graph: [/data/local/tmp/mobile net (1).tflite]
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
Initialized session in 31.25ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=21 first=29750 curr=24150 min=23900 max=29750 avg=24500 std=1290

Running benchmark for at least 30 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=44 first=23950 curr=24010 min=23800 max=24900 avg=24075 std=166

Inference timings in us: Init: 31250, First inference: 29750, Warmup (avg): 24500, Inference (avg): 24075
"""  # noqa: E501  # as it is printed


def before(prefix: str) -> Wrap:
    return lambda line: prefix + line


WRAPPINGS: dict[str, Wrap] = {
    "brief": before("I/tflite  ( 811): "),
    "brief, uid": before("I/tflite  ( 2000:  811): "),
    "process": lambda line: f"I(  811) {line}  (tflite)",
    "tag": before("I/tflite  : "),
    "thread": before("I(  811:  811) "),
    "time": before("11-27 08:01:02.345 I/tflite  ( 811): "),
    "time, year": before("2026-11-27 08:01:02.345 I/tflite  ( 811): "),
    "threadtime": before("11-27 08:01:02.345   811   811 I tflite  : "),
    "threadtime, year": before("2026-11-27 08:01:02.345   811   811 I tflite  : "),
    "threadtime, uid": before("11-27 08:01:02.345  shell   811   811 I tflite  : "),
    "threadtime, app": before("11-27 08:01:02.345 u0_a123   811   811 I tflite  : "),
    "threadtime, zone": before("11-27 08:01:02.345 +0530   811   811 I tflite  : "),
    "threadtime, all": before("2026-11-27 08:01:02.345678 -0800  2000   811   811 I tflite  : "),
    "threadtime, ns": before("11-27 08:01:02.345678901   811   811 I tflite  : "),
    "epoch": before("1764230462.345   811   811 I tflite  : "),
    "monotonic": before("   9123.345   811   811 I tflite  : "),
    "long": lambda line: f"[ 11-27 08:01:02.345   811:  811 I/tflite   ]\n{line}\n",
    "Studio, old": before("11-27 08:01:02.345 811-830/com.example.bench I/tflite: "),
    "Studio, no package": before("2026-11-27 08:01:02.345 811-830/? I/tflite: "),
    "Studio, oldest": before(
        "11-27 08:01:02.345      811-830/com.example I/tflite\uff1a".replace("\uff1a", "\ufe55 ")
    ),
    "Studio, new": before(
        "2026-11-27 08:01:02.345   811-830   tflite                  "
        "com.example.bench                    I  "
    ),
    "glog": before("I1127 08:01:02.345678   811 benchmark_tflite_model.cc:123] "),
    "TensorFlow": before("2026-11-27 08:01:02.345678: I tensorflow/lite/tools/x.cc:9] "),
    "colour": lambda line: f"\x1b[1;32m{line}\x1b[0m\x1b[K",
    "GitHub": before("2026-11-27T08:01:02.1234567Z "),
    "gh run view": before("bench\tRun the benchmark\t2026-11-27T08:01:02.1234567Z "),
    "GitLab": before("2026-11-27T08:01:02.345678Z 01O "),
    "Jenkins": before("[2026-11-27T08:01:02.345Z] "),
    "Jenkins, time": before("08:01:02  "),
    "docker compose": before("bench-1  | "),
    "docker compose, old": lambda line: f"\x1b[36mbench_1   |\x1b[0m {line}",
    "docker -t": before("2026-11-27T08:01:02.123456789+01:00 "),
    "docker file": lambda line: json.dumps(
        {"log": line + "\n", "stream": "stdout", "time": "2026-11-27T08:01:02.1Z"},
        separators=(",", ":"),
    ),
    "container runtime": before("2026-11-27T08:01:02.123456789Z stdout F "),
    "kubectl --prefix": before("[pod/bench-7f9c/main] "),
    "kubectl, both": before("[pod/bench-7f9c/main] 2026-11-27T08:01:02.123456789Z "),
    "journal": before("Nov 27 08:01:02 rpi5 bench.sh[811]: "),
    "journal, precise": before("Nov  7 08:01:02.345678 rpi5 bench.sh[811]: "),
    "journal, iso": before("2026-11-27T08:01:02+0100 rpi5 bench.sh[811]: "),
    "journal, unix": before("1764230462.345678 rpi5 bench.sh[811]: "),
    "journal, monotonic": before("[ 9123.345678] rpi5 bench.sh[811]: "),
    "journal, full": before("Fri 2026-11-27 08:01:02 UTC rpi5 bench.sh[811]: "),
    "ts": before("Nov 27 08:01:02 "),
    "ts -s": before("00:00:01 "),
    "ts -i": before("00:00:00.001234 "),
    "own time": before("2026-11-27 08:01:02 "),
    "quoted": before("> "),
    "TeamCity": before("[08:01:02] :\t [Step 1/1] "),
    "TeamCity, old": before("[08:01:02][Step 1/1] "),
    "fastlane": before("[08:01:02]: \u25b8 "),
    "Buildkite": before("\x1b_bk;t=1764230462345\x07"),
    "Python's logging": before("INFO:bench:"),
    "Python's logging, time": before("2026-11-27 08:01:02,345 - bench.main - INFO - "),
    "cat -n": before("    12\t"),
}
NESTED = [
    ("GitHub", "threadtime"),
    ("docker compose", "brief"),
    ("journal", "docker compose"),
    ("kubectl, both", "glog"),
    ("GitLab", "colour"),
    ("colour", "Studio, new"),
    ("gh run view", "time, year"),
    ("quoted", "GitHub"),
    ("ts", "threadtime, all"),
    ("docker file", "colour"),
]


def wrapped(log: str, *names: str) -> str:
    lines = log.splitlines()
    for name in reversed(names):
        lines = [WRAPPINGS[name](line) for line in lines]
    return "\n".join(lines) + "\n"


def the_good_one(found: tuple[Figure, ...]) -> bool:
    figures = [(f.status, f.latency_ms, f.statistic, f.runs, f.threads, f.label) for f in found]
    label = "/data/local/tmp/mobile net (1).tflite"
    return figures == [("accepted", 24.075, "average", 44, 3, label)]


@pytest.mark.parametrize("name", WRAPPINGS)
def test_each_wrapping(name: str) -> None:
    assert the_good_one(read_log(wrapped(LOG, name)))


@pytest.mark.parametrize("names", NESTED, ids=" in ".join)
def test_wrappings_in_each_other(names: tuple[str, str]) -> None:
    assert the_good_one(read_log(wrapped(LOG, *names)))


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_encodings(encoding: str) -> None:
    found = read_log(decode(LOG.replace("\n", "\r\n").encode(encoding)))
    # PowerShell writes no UTF-32: it need not be read, but never wrongly.
    assert the_good_one(found) if encoding != "utf-32" else not found


@pytest.mark.parametrize(
    "wrap",
    [
        before("host7 bench: "),
        before("{severity=INFO} "),
        before("<6>device says: "),
        lambda line: f'msg="{line}"',
        lambda line: f"{line} -- from the lab",
    ],
)
def test_an_unknown_wrapping_is_no_figure(wrap: Wrap) -> None:
    found = read_log("\n".join(map(wrap, LOG.splitlines())))
    assert [figure.latency_ms for figure in found] == [None]
    assert found[0].status == "incomplete"


def test_one_strangely_wrapped_line_spoils_its_run() -> None:
    for number, line in enumerate(LOG.splitlines()):
        if not line:
            continue
        lines = LOG.splitlines()
        lines[number] = f"@@@ {line}"
        found = read_log("\n".join(lines))
        assert all(figure.latency_ms in (None, 24.075) for figure in found)
        if line.startswith(("count=", "Inference", "Running")):
            assert [figure.status for figure in found] == ["incomplete"]


def test_lines_of_two_processes_are_kept_apart() -> None:
    other = LOG.replace("24075", "48150").replace("min=23800 max=24900", "min=47000 max=49000")
    pairs = list(zip(LOG.splitlines(), other.splitlines(), strict=True))
    for first, second in (
        ("I/tflite  ( 11): ", "I/tflite  ( 22): "),
        ("a-1  | ", "b-1  | "),
        ("[pod/a/x] ", "[pod/b/x] "),
        ("Nov 27 08:01:02 pi bench[11]: ", "Nov 27 08:01:02 pi bench[22]: "),
    ):
        text = "".join(f"{first}{one}\n{second}{two}\n" for one, two in pairs)
        assert [figure.latency_ms for figure in read_log(text)] == [24.075, 48.15]
    header = "[ 11-27 08:01:02.345  {0}: {0} I/tflite   ]\n{1}\n\n"
    text = "".join(header.format(11, one) + header.format(22, two) for one, two in pairs)
    assert [figure.latency_ms for figure in read_log(text)] == [24.075, 48.15]


@pytest.mark.parametrize(
    "line",
    [
        "count=1 curr=9000",
        "Graph: [a: b]",
        "Node number 57 (BATCH_MATMUL) failed to prepare.",
        "2026 was a good year",
        "10 operations will run on the GPU",
    ],
)
def test_what_is_no_wrapping_stays(line: str) -> None:
    assert list(streams(line)) == [[line]]


@pytest.mark.parametrize(
    "piece",
    [
        *("9", "a: ", "count=1 ", "Node number 1 (", "model identifier '", "\x1b[", "1,", "[a:1] "),
        *("x  min =  1 ", "Inference timings in us: ", "11-27 08:01:02.345 I/", '{"log":', "> "),
    ],
)
def test_long_lines_take_no_long_time(piece: str) -> None:
    line = piece * (640_000 // len(piece))
    begun = time.process_time()
    for text in (line, "\n".join(line[:3999] for _ in range(40))):
        assert all(figure.latency_ms is None for figure in read_log(text))
    # Quadratic time was 20 s for the long line alone, on a quiet machine.
    assert time.process_time() - begun < 5.0
