"""Which file of a model is the fastest, of measurements that are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_agents.api import BenchProtocol, Failure, Measurement, SensorReading
from device_agents.errors import ConfigError
from pipeline.evaluate.fastest import describe_fastest, rank_by_latency
from pipeline.evaluate.own_files import OwnFile
from pipeline.recipe.sections import QuantizeSection
from pipeline.store.model_result import AS_IT_CAME


def file(number_format: str, runtime: str = "tflite", name: str = "") -> OwnFile:
    name = name or f"{runtime} {number_format}"
    return OwnFile(name, runtime, runtime, number_format, Path(name), name)


def timed(ratio: float | None, half: float = 0.01) -> Measurement:
    interval = None if ratio is None else (ratio - half, ratio + half)
    return Measurement(
        device="board", device_digest="", model_sha256="", reference_sha256=None, agent_sha256="",
        runtime="tflite", runtime_version="1", threads=1, cpus=(), protocol=BenchProtocol.quick(),
        started_at="", samples_ns=(), reference_samples_ns=(), process_medians_ms=(), median_ms=1.0,
        ci95_ms=(0.9, 1.1), p90_ms=1.2, ratio=ratio, ratio_ci95=interval, reference_median_ms=1.0,
        partitions=1, before=SensorReading(), after=SensorReading(), verdict="valid", reasons=(),
        busy_ns=0, timed_ns=0, warmup_ns=0, load_ns=0, peak_rss_bytes=0,
    )  # fmt: skip


FILES = [file("static8"), file("float32"), file("float16"), file("static8", "onnx")]


@pytest.mark.parametrize(
    ("static", "half", "best", "words"),
    [
        (timed(0.5), timed(0.9), "tflite static8", "the fastest file is tflite static8"),
        (timed(0.9), timed(0.5), "tflite float16", "the fastest file is tflite float16"),
        (
            timed(1.3),
            timed(1.0),
            "tflite float32",
            "no file shows to be faster than tflite float32",
        ),
        (timed(0.98, 0.03), timed(1.2), "tflite float32", "tflite static8 0.98 of its latency"),
        (Failure("crashed"), timed(0.9), "tflite float16", "the fastest file is tflite float16"),
    ],
)
def test_a_file_is_faster_where_its_whole_interval_says_so(
    static: Measurement | Failure, half: Measurement, best: str, words: str
) -> None:
    found = {"tflite float32": timed(None), "tflite static8": static, "tflite float16": half}
    ranked = rank_by_latency(FILES, found, "tflite")
    assert ranked[0].name == best
    assert ranked[-1].runtime == "onnx"
    assert words in describe_fastest(ranked, found, "tflite")


def test_a_file_that_was_written_comes_before_the_one_that_came() -> None:
    files = [file("float32", name=AS_IT_CAME), file("float32"), file("static8")]
    found = {AS_IT_CAME: timed(None), "tflite float32": timed(1.0), "tflite static8": timed(1.5)}
    ranked = rank_by_latency(files, found, "tflite")
    assert [one.name for one in ranked] == ["tflite float32", AS_IT_CAME, "tflite static8"]
    assert not describe_fastest([], {}, "tflite")


def test_a_format_that_is_to_be_measured_is_none_before() -> None:
    section = QuantizeSection("fastest", max_drop=1.0)
    assert section.is_measured
    assert section.problem() is None
    with pytest.raises(ConfigError, match="is measured in a run"):
        _ = section.number_format
