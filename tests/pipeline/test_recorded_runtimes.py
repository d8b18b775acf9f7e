"""What the files computed in old and new runtimes, as recorded by `scripts/bench_runtimes.py`.

tflite-runtime before 2.14 exists for Python 3.9 only, so the outcomes were recorded. They hold for
files as the writers wrote them then: other files are to be recorded anew, as the script says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.bench_runtimes import fingerprint

RECORD = Path(__file__).parents[1] / "recorded" / "int8_runtimes.json"
RENEW = "record it anew, as the head of scripts/bench_runtimes.py says, with --json on this file"
OLD = ("tflite_runtime 2.7.0", "tflite_runtime 2.8.0", "tflite_runtime 2.9.1")
KEYS = {"file", "runtime", "bar", "right", "sqnr_db", "agreement", "accuracy", "exact_sqnr_db"}


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RECORD.read_text())["conditions"]
    return content


def test_the_record_is_of_the_files_that_are_written_today(record: dict[str, Any]) -> None:
    assert record["writer"] == fingerprint(), RENEW


def test_every_file_is_right_in_every_runtime_from_2_7_on(record: dict[str, Any]) -> None:
    rows = record["outcomes"]
    assert all(row.keys() >= KEYS for row in rows)
    runtimes = {row["runtime"] for row in rows}
    assert {*OLD, "tflite_runtime 2.10.0", "tflite_runtime 2.14.0"} <= runtimes
    assert sum(name.startswith("onnxruntime") for name in runtimes) >= 3
    assert any(name.startswith("ai_edge_litert") for name in runtimes)
    wrong = [(row["file"], row["runtime"]) for row in rows if row["bar"] and not row["right"]]
    assert not wrong
    of_today = {row["file"] for row in rows if row["bar"]}
    for runtime in runtimes:
        suffix = "onnx" if runtime.startswith("onnx") else "tflite"
        tried = {row["file"] for row in rows if row["runtime"] == runtime and row["bar"]}
        assert tried == {name for name in of_today if suffix in name}, runtime


def test_the_record_could_have_told(record: dict[str, Any]) -> None:
    """The files that were written before are wrong in it, where they were."""
    before = [row for row in record["outcomes"] if row["file"].endswith("dense per output")]
    assert {row["right"] for row in before if row["runtime"] in OLD} == {False}
    assert all(row["right"] for row in before if row["runtime"] not in OLD)
