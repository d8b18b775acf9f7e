"""The report's section on a chain of passes: every figure of every step, and a browser's view."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline.report.compression import compression_section, drawn_figures
from pipeline.report.page import whole_page
from pipeline.store.compression import Compression, LayerRow
from tests.compressed_result import make_compression
from tests.pipeline.test_report_browser import BROWSER, needs_browser, picture

if TYPE_CHECKING:
    from pathlib import Path


def page(found: Compression) -> str:
    drawn = drawn_figures(found)
    return whole_page("a net", [compression_section(found, drawn)], drawn)


def test_every_figure_of_every_step_is_shown() -> None:
    text = page(make_compression())
    for words in (
        "11.1", "33.3", "91.0", "5.00", "[4.85, 5.15]", "12,000", "36,000", "21.5", "96.75 %",
        "pruned by l2, uniform: 120 of 240 channels", "left in float32 for it: fc",
        "sparsify:ratio=0.8 does not show to be faster on board than without it.",
        "The time after finetune:epochs=5 is suspect: the clock fell.",
    ):  # fmt: skip
        assert words in text, words
    assert text.count('class="plot"') == 2


def test_a_pass_that_made_nothing_better_is_named() -> None:
    found = make_compression()
    first, pruned, *rest = found.steps
    idle = replace(pruned, name="idle", lost_points=21.5, ratio=0.4, ratio_ci95=(0.39, 0.41))
    remarks = list(replace(found, steps=(first, pruned, idle, *rest)).remarks())
    assert (
        "idle did not pay: the file is neither smaller (130,000 to 130,000 bytes) nor faster on "
        "board, and no accuracy was got back."
    ) in remarks
    assert not any(remark.startswith("finetune:epochs=5 does") for remark in remarks), (
        "it got accuracy back"
    )
    unchanged = replace(found, steps=(first, replace(pruned, changed=False)))
    assert list(unchanged.remarks()) == ["prune:ratio=0.5 changed nothing."]
    away = replace(pruned, latency_ms=None, ratio=None, ratio_ci95=None, verdict=None)
    away = replace(away, reasons=("no such kernel",))
    assert list(replace(found, steps=(first, away)).remarks()) == [
        "The time after prune:ratio=0.5 could not be taken: no such kernel."
    ]


def test_rates_are_of_the_model_as_it_came_and_survive_json() -> None:
    found = make_compression()
    last = found.steps[-1]
    assert found.compression_rate(last) == pytest.approx(400 / 36)
    assert found.space_saving_rate(last) == pytest.approx(1 - 36 / 400)
    assert found.packed_rate(last) == pytest.approx(400 / 12)
    assert last.speed_up == pytest.approx(5)
    told = json.loads(json.dumps(found.to_json()))
    assert told["steps"][-1]["speed_up_rate"] == pytest.approx(5)
    assert Compression.from_json(told) == found


def test_a_chain_without_labels_or_times_is_shown_too() -> None:
    found = make_compression()
    bare = {"latency_ms": None, "ci95_ms": None, "ratio": None, "ratio_ci95": None}
    bare |= {"score": None, "score_ci95": None, "packed_bytes": None, "verdict": None}
    steps = tuple(replace(step, shown="", reasons=(), **bare) for step in found.steps)
    text = page(replace(found, device="", metric=None, steps=steps, layers=()))
    assert "Work and speed" not in text
    assert "agreement with the model as it came" in text
    assert text.count('class="plot"') == 1


@needs_browser
def test_a_browser_draws_it_and_complains_of_nothing(tmp_path: Path) -> None:
    """Names from outside are text, in tables and figures alike."""
    found = make_compression()
    hostile = "<img src=x onerror=alert(1)>"
    steps = tuple(replace(step, name=f"{step.name} {hostile}") for step in found.steps)
    layers = (*found.layers, LayerRow(hostile, "conv", 10, 5, 5))
    file = tmp_path / "page.html"
    file.write_text(page(replace(found, steps=steps, layers=layers)))
    for width in (1200, 500):
        options = ("--enable-logging=stderr", "--dump-dom", f"--window-size={width},1400")
        done = picture.browse(BROWSER, file, *options)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "CONSOLE" not in done.stderr
        assert 'data-drawn="2"' in done.stdout
        assert "<img" not in done.stdout
