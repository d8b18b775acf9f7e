"""Which file is compared with which, what is faster than what is deployed, and what is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_agents.api import BenchProtocol, Failure
from device_agents.errors import DeviceError
from models.number_format import FLOAT32, STATIC8
from pipeline.evaluate.baseline import NoBaseline
from pipeline.evaluate.comparison import Headline, Tried, beside_headline, compare
from pipeline.measure.form import Form
from pipeline.recipe.sections import TargetSection
from tests.unit.test_verdict import TIMED

if TYPE_CHECKING:
    from device_agents.api import Measurement
    from pipeline.store.result import Comparison

INT8, FLOAT, ONNX = Form("tflite", STATIC8), Form("tflite", FLOAT32), Form("onnx", FLOAT32)
RIGHT = np.ones(400, bool)
WINNER: Any = SimpleNamespace(accuracy=0.95, name="the winner")
NAMED: Any = SimpleNamespace(accuracy=0.94, name="mobilenet-v2 x1")


def timed(ms: float, half: float = 0.001) -> Measurement:
    return replace(TIMED, median_ms=ms, ci95_ms=(ms - half, ms + half))


def tried(form: Form, outcome: Measurement | Failure, right: Any = RIGHT) -> Tried:
    file: Any = SimpleNamespace(
        format=form.runtime,
        number_format=form.number_format,
        sha256=f"{form.runtime}-{form.number_format}",
        path=Path(f"/runs/w {form.number_format}"),
    )
    return Tried(file, outcome, right, 0.99)


ANSWERS: dict[tuple[str, str | None], Any] = {}


class Bench:
    """A device that answers from a table of (file, beside); an unexpected one is an error.

    By the protocol of the figures that are shown a file is measured alone; in turns with the one
    to be deployed it need not be measured as long.
    """

    name, run_id = "pi4", "digits-1"

    def measure(
        self, subject: Any, _file: Any, *, protocol: BenchProtocol, beside: Any, runtime: str
    ) -> Any:
        shown = BenchProtocol.thorough()
        assert protocol == (shown if beside is None else beside_headline(shown))
        assert subject["model"].startswith(f"{runtime}-")
        return ANSWERS[subject["model"], None if beside is None else beside.sha256]


@pytest.fixture
def asked() -> dict[tuple[str, str | None], Any]:
    """Return the table that a `Bench` answers from."""
    ANSWERS.clear()
    return ANSWERS


def compared(
    winner: dict[Form, Tried],
    baseline: dict[Form, Tried] | NoBaseline,
    guessing: float = 0.1,
) -> Comparison:
    bench: Any = Bench()
    target = TargetSection("mobilenet-v2", latency_ratio=0.9, accuracy_tolerance=0.05)
    nothing = isinstance(baseline, NoBaseline)
    return compare(
        WINNER,
        baseline if isinstance(baseline, NoBaseline) else NAMED,
        tried={"winner": winner} if nothing else {"winner": winner, "baseline": baseline},  # type: ignore[dict-item]
        headline=Headline(INT8, BenchProtocol.thorough(), target, "digits"),
        bench=bench,
        guessing=guessing,
    )[0]


def baseline_files(right: Any = RIGHT) -> dict[Form, Tried]:
    return {INT8: tried(INT8, timed(0.8), right)}


def test_a_faster_file_of_the_same_runtime_is_measured_in_turns_and_named(asked: Any) -> None:
    files = {INT8: tried(INT8, timed(0.0312)), FLOAT: tried(FLOAT, timed(0.0274))}
    asked["tflite-float32", "tflite-static8"] = replace(
        timed(0.027), ratio=0.88, ratio_ci95=(0.86, 0.9), reference_median_ms=0.031
    )
    found = compared(files, baseline_files())
    (caution,) = found.cautions
    assert "tflite float32 file is faster on pi4 than the tflite static8 one" in caution
    assert "in turns: 0.88 of its latency, 95 % interval 0.86 to 0.90" in caution
    assert "100.00% test accuracy" in caution
    assert caution.endswith(
        "edgewright deploy '/runs/w float32' --device pi4 --name digits "
        "--version digits-1-float32-tflite"
    )
    # In turns the two may turn out alike: then nothing is said.
    asked["tflite-float32", "tflite-static8"] = replace(timed(0.027), ratio_ci95=(0.9, 1.01))
    assert compared(files, baseline_files()).cautions == ()


@pytest.mark.parametrize(
    ("onnx_ms", "half", "named"), [(0.02, 0.001, True), (0.0305, 0.001, False), (0.5, 0.01, False)]
)
def test_a_file_of_another_runtime_is_faster_where_intervals_are_apart(
    asked: Any,
    onnx_ms: float,
    half: float,
    named: bool,  # noqa: FBT001
) -> None:
    assert not asked
    files = {INT8: tried(INT8, timed(0.0312)), ONNX: tried(ONNX, timed(onnx_ms, half))}
    found = compared(files, baseline_files())
    assert bool(found.cautions) == named
    assert not named or "onnx float32 file is faster" in found.cautions[0]


def test_of_several_faster_files_the_fastest_is_named(asked: Any) -> None:
    files = {
        INT8: tried(INT8, timed(0.04)),
        ONNX: tried(ONNX, timed(0.03)),
        FLOAT: tried(FLOAT, timed(0.02)),
    }
    asked["tflite-float32", "tflite-static8"] = replace(timed(0.02), ratio_ci95=(0.5, 0.6))
    assert "tflite float32" in compared(files, baseline_files()).cautions[0]
    asked["tflite-float32", "tflite-static8"] = Failure("crashed")
    assert "onnx float32" in compared(files, baseline_files()).cautions[0]


def test_each_accuracy_is_that_of_its_own_network_and_split(asked: Any) -> None:
    assert not asked
    half = np.arange(400) % 2 == 0
    mine, theirs = tried(INT8, timed(0.0312)), tried(INT8, timed(0.8), half)
    found = compared({INT8: replace(mine, accuracy_float=0.98)}, {INT8: theirs})
    assert (found.winner_accuracy_validation, found.baseline_accuracy_validation) == (0.95, 0.94)
    assert (found.winner_accuracy_test, found.baseline_accuracy_test) == (1.0, 0.5)
    assert found.guessing_accuracy == 0.1
    # The baseline's loss is told from its own network before export.
    (caution,) = found.cautions
    assert "quantisation took 49.00 of them (99.00% before)" in caution
    assert compared({INT8: mine}, {INT8: theirs}, guessing=0.5).outcome == "learnt nothing"


def test_without_a_usable_width_the_winner_stands_alone(asked: Any) -> None:
    assert not asked
    nothing = NoBaseline("mobilenet-v2", "6.5 dB is below 10 dB", ())
    alone = replace(timed(0.03), ratio=None, ratio_ci95=None, reference_median_ms=None)
    found = compared({INT8: tried(INT8, alone)}, nothing)
    assert found.outcome == "no comparison"
    assert (
        "no width of mobilenet-v2 could be used (6.5 dB is below 10 dB); choose" in found.sentence
    )


def test_a_baseline_that_the_device_cannot_run_is_no_fault_of_the_winner(asked: Any) -> None:
    found = compared({INT8: tried(INT8, timed(0.03))}, baseline_files(Failure("it crashed")))
    assert found.outcome == "no comparison"
    assert "the device cannot run mobilenet-v2 x1 on the test images (it crashed)" in found.sentence

    asked["tflite-static8", None] = replace(timed(0.03), ratio=None, ratio_ci95=None)
    found = compared({INT8: tried(INT8, Failure("it crashed"))}, baseline_files())
    assert found.outcome == "no comparison"
    assert "mobilenet-v2 x1 cannot be measured beside it (it crashed)" in found.sentence
    assert found.winner_ms == 0.03


def test_a_winner_that_cannot_be_measured_or_run_is_an_error(asked: Any) -> None:
    asked["tflite-static8", None] = Failure("it crashed too")
    with pytest.raises(DeviceError, match="the winner cannot be measured: it crashed too"):
        compared({INT8: tried(INT8, Failure("it crashed"))}, baseline_files())
    with pytest.raises(DeviceError, match=r"cannot run the winner on the test images: .*no memory"):
        compared({INT8: tried(INT8, timed(0.03), Failure("no memory"))}, baseline_files())
    with pytest.raises(DeviceError, match="no ratio"):
        compared({INT8: tried(INT8, replace(TIMED, ratio=None))}, baseline_files())
