"""The report's text and tables: figures as stored, dashes for the unknown, nothing unescaped."""

from __future__ import annotations

import errno
import json
import re
import tomllib
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from plotly.offline import get_plotlyjs_version

from device_agents.errors import ConfigError
from pipeline.report import write_report
from pipeline.report.figures import accuracy_latency, op_costs, progress
from pipeline.report.headline import speed_sentence, target_sentence
from pipeline.report.marks import artifact
from pipeline.report.markup import DASH, count, duration, interval, number, percent, size
from pipeline.report.page import render
from pipeline.report.templating import TEMPLATES
from pipeline.report.toml_text import to_toml
from pipeline.store.result import FailedFile, RunResult
from tests.pipeline.report_fixture import HOSTILE, bare_result, hostile_result, make_result

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.store.result import RunOutcome

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; raises where elements do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += data.replace("\N{NO-BREAK SPACE}", " ") + "\n"


@pytest.fixture(scope="module")
def result() -> RunResult:
    return make_result(seed=3, candidates=40)


@pytest.fixture(scope="module")
def page(result: RunResult) -> Page:
    return Page(render(result))


def test_the_parts_stand_in_reading_order(page: Page) -> None:
    titles = [
        "faster than",
        "Latency on the device",
        "Accuracy against latency",
        "The search's progress",
        "Artifacts",
        "Where the winner's time goes",
        "Conditions",
        "Device time",
        "Deployed",
    ]
    places = [page.text.index(title) for title in titles]
    assert places == sorted(places)


def test_headline_states_speed_accuracy_and_place(result: RunResult) -> None:
    known = replace(
        result,
        comparison=replace(
            result.comparison,
            ratio=0.25,
            ratio_ci95=(0.24, 0.26),
            winner_accuracy_test=0.9867,
            baseline_accuracy_test=0.98,
        ),
    )
    text = speed_sentence(known).replace("\N{NO-BREAK SPACE}", " ")
    assert text == (
        "4.00\N{MULTIPLICATION SIGN} faster than MobileNetV2-0.35 on pi4b, "
        "at 98.67 % against 98.00 % on 10,000 test images "
        "(+0.67 points, 95 % interval +0.09 to +0.55)"
    )


@pytest.mark.parametrize(
    ("ratio", "bounds", "start"),
    [
        (1.25, (1.2, 1.3), "1.25\N{MULTIPLICATION SIGN} slower than"),
        (0.99, (0.97, 1.01), "No measurable difference in speed from"),
        (float("nan"), (0.9, 1.1), "No measured speed against"),
    ],
)
def test_headline_never_claims_a_speed_that_was_not_measured(
    result: RunResult, ratio: float, bounds: tuple[float, float], start: str
) -> None:
    comparison = replace(result.comparison, ratio=ratio, ratio_ci95=bounds)
    assert speed_sentence(replace(result, comparison=comparison)).startswith(start)


@pytest.mark.parametrize(
    ("ratio", "outcome", "gain", "words"),
    [
        (0.4, "met", (-0.004, 0.003), "20.0 % below the limit. It may lose 0.5 points of accuracy"),
        (0.6, "missed", (-0.004, 0.003), "20.0 % above the limit."),
        (0.4, "missed", (-0.02, -0.006), "the interval says that it loses more."),
        (0.4, "not told apart", (-0.02, 0.001), "10,000 images cannot tell whether it loses more"),
    ],
)
def test_target_says_how_far(
    result: RunResult, ratio: float, outcome: RunOutcome, gain: tuple[float, float], words: str
) -> None:
    comparison = replace(
        result.comparison,
        ratio=ratio,
        target_ratio=0.5,
        outcome=outcome,
        accuracy_gain_ci95=gain,
    )
    assert words in target_sentence(comparison).replace("\N{NO-BREAK SPACE}", " ")
    text = Page(render(replace(result, comparison=comparison))).text
    badges = {"met": "target met", "missed": "target not met"}
    assert badges.get(outcome, "accuracy not told apart") in text


def test_a_target_in_milliseconds_is_held_against_milliseconds(result: RunResult) -> None:
    comparison = replace(
        result.comparison, target_ms=0.5, winner_ms=0.4, winner_ci95_ms=(0.39, 0.41), ratio=0.9
    )
    text = target_sentence(comparison).replace("\N{NO-BREAK SPACE}", " ")
    assert text == (
        "The winner takes 0.400 ms, 95 % interval [0.390, 0.410]; at most 0.500 ms was asked: "
        "20.0 % below the limit. It may lose 0.5 points of accuracy, and the interval says that it "
        "loses no more."
    )


def test_what_is_no_comparison_claims_no_speed(result: RunResult) -> None:
    alone = replace(
        result.comparison,
        outcome="no comparison",
        baseline_ms=None,
        ratio=None,
        ratio_ci95=None,
        target_ratio=None,
        baseline_accuracy_validation=None,
        baseline_accuracy_test=None,
        accuracy_gain_ci95=None,
        sentence="no comparison, for the baseline fails",
    )
    files = tuple(row for row in result.artifacts if row.network == "winner")
    text = Page(render(replace(result, comparison=alone, artifacts=files, baseline_spec=""))).text
    assert "with nothing to compare it with" in text
    assert "no comparison, for the baseline fails" in text
    assert "faster than" not in text
    assert not re.search(r"\b(nan|inf|None|Infinity)\b", text)


def test_nothing_learnt_is_red_and_stands_first(result: RunResult) -> None:
    nothing = replace(
        result.comparison, outcome="learnt nothing", winner_accuracy_test=0.25,
        guessing_accuracy=0.25, sentence="the winner cannot be told from guessing",
    )  # fmt: skip
    html = render(replace(result, comparison=nothing, deployed={}))
    page = Page(html)
    assert "Nothing was learnt: 25.00" in page.text
    assert '<span class="pill missed">\u2717 nothing learnt</span>' in html
    assert "target met" not in page.text
    assert "Nothing was deployed." in page.text


def test_a_doubtful_measurement_stands_beside_the_badge(result: RunResult) -> None:
    doubtful = replace(
        result.comparison, verdict="suspect", reasons=("busy machine",), cautions=("Mind the gap.",)
    )
    html = render(replace(result, comparison=doubtful))
    badges = html[html.index('<div class="target">') :].partition("</div>")[0]
    assert "target met" in badges
    assert (
        '<span class="pill suspect">! suspect</span><small>busy machine. Measured in turns'
        in badges
    )
    assert '<p class="caution">Mind the gap.</p>' in html


def test_results_of_earlier_versions_are_read(result: RunResult) -> None:
    data = json.loads(json.dumps(result.to_json()))
    old = data["comparison"]
    for name in ("outcome", "accuracy_tolerance", "accuracy_gain_ci95", "guessing_accuracy"):
        del old[name]
    for name in ("verdict", "reasons", "cautions"):
        del old[name]
    for met in (True, False):
        again = RunResult.from_json({**data, "comparison": {**old, "met": met}})
        assert again.comparison.met is met
        assert "against" in render(again)


def test_only_what_was_measured_counts_as_measured(result: RunResult) -> None:
    rows = tuple(replace(row, latency_source="table") for row in result.candidates[1:])
    page = Page(render(replace(result, candidates=(result.candidates[0], *rows))))
    assert f"Candidates measured 1 of {len(result.candidates)}" in " ".join(page.text.split())


def test_every_artifact_is_listed_with_its_figures(result: RunResult, page: Page) -> None:
    for row in result.artifacts:
        assert f"{row.bytes:,}" in page.text
        assert row.sha256[:12] in page.text
    suspect = next(row for row in result.artifacts if row.verdict == "suspect")
    assert suspect.reasons[0] in page.text
    for name in ("Compression rate", "Space-saving rate", "Speed-up rate", "SQNR"):
        assert name in page.text


def test_ops_of_earlier_versions_are_read_with_their_parts(result: RunResult) -> None:
    data = json.loads(json.dumps(result.to_json()))
    for row in data["ops"]:
        del row["pointwise"], row["block"]
    assert RunResult.from_json(data).ops == result.ops
    assert {op.block for op in result.ops} >= {"block 0", "block 1", "pool", "dense 0"}
    assert 0 < sum(op.pointwise for op in result.ops) < len(result.ops)


def test_a_file_that_failed_is_named_with_the_reason(result: RunResult, page: Page) -> None:
    assert "Left out" not in page.text
    reason = "does not compute what <the network> computes"
    failed = FailedFile("winner", "onnx", "float32", reason)
    one = replace(result, failed_files=(failed,))
    assert RunResult.from_json(json.loads(json.dumps(one.to_json()))) == one
    shown = Page(render(one)).text
    assert "Left out, because they failed" in shown
    assert "winner onnx float32" in shown
    assert reason in shown
    # What earlier versions wrote knows none, and a lost file leaves no rate to be had.
    data = result.to_json()
    del data["failed_files"]
    assert RunResult.from_json(data).failed_files == ()
    rows = tuple(replace(a, compression_rate=None, space_saving_rate=None) for a in one.artifacts)
    assert DASH in Page(render(replace(one, artifacts=rows))).text


def test_sum_of_ops_is_stated_against_the_whole(result: RunResult, page: Page) -> None:
    times = [op.latency_ms for op in result.ops if op.latency_ms is not None]
    assert f"The {len(times)} of {len(result.ops)} ops measured add up to" in page.text
    assert number(sum(times)) in page.text
    share = percent(sum(times) / result.comparison.winner_ms, 0)
    assert share.replace("\N{NO-BREAK SPACE}", " ") + " of it" in page.text


def test_device_overhead_is_the_rest_of_busy(result: RunResult) -> None:
    text = Page(render(replace(result, device_busy_s=100.0, device_timed_s=80.0))).text
    assert "everything else 20 s" in text
    assert "20.0 % of that was outside timed inference and warm-up" in text


def test_scatter_shows_every_known_candidate_once_and_both_trainings(result: RunResult) -> None:
    figure = accuracy_latency(result)
    assert figure is not None
    traces = {trace.name: trace for trace in figure.data}
    drawn = sum(len(t.x) for name, t in traces.items() if name.startswith("candidate"))
    assert drawn == sum(c.latency_ms is not None for c in result.candidates)
    chosen = next(c for c in result.candidates if c.index == result.chosen)
    assert traces["chosen, in the search"].y[0] == pytest.approx(100 * (chosen.accuracy or 0))
    assert traces["winner, final weights"].y[0] == pytest.approx(98.85)
    baseline = traces["baseline MobileNetV2-0.35, fully trained"]
    assert baseline.x[0] == result.baseline_candidates[0]["latency_ms"]
    assert chosen.spec in traces["chosen, in the search"].hovertext[0].replace("<br>", "")


def test_best_so_far_never_falls_and_ends_at_the_best(result: RunResult) -> None:
    scores = [c.score for c in result.candidates if c.score is not None]
    figure = progress(result)
    assert figure is not None
    best = figure.data[1]
    assert list(best.x) == sorted(best.x)
    assert list(best.y) == sorted(best.y)
    assert best.y[-1] == max(scores)


@pytest.mark.parametrize("objective", ["hard", "constrained"])
def test_what_is_over_the_limit_leaves_the_others_their_scale(
    result: RunResult, objective: str
) -> None:
    recipe = {**result.recipe, "search": {**result.recipe["search"], "objective": objective}}
    scored = [c for c in result.candidates if c.score is not None]
    over = {c.index for c in scored[: len(scored) // 3]} | {scored[-1].index}
    rows = [
        replace(c, score=c.score - 1.7) if c.score is not None and c.index in over else c
        for c in result.candidates
    ]
    limited = replace(result, recipe=recipe, candidates=tuple(rows))
    figure = progress(limited)
    assert figure is not None
    within, best, bottom = figure.data
    kept = [c.score for c in rows if c.score is not None and c.score >= 0]
    assert list(within.y) == kept
    assert (min(best.y), best.y[-1]) == (kept[0], max(kept))
    assert best.x[-1] == scored[-1].index  # also where nothing in the limit came after
    assert set(bottom.x) == over
    assert (within.yaxis, best.yaxis, bottom.yaxis) == (None, None, "y2")
    assert figure.layout.yaxis2.domain[1] < figure.layout.yaxis.domain[0]
    assert "score -" in bottom.hovertext[0].replace("\N{MINUS SIGN}", "-")
    text = Page(render(limited)).text
    assert f"{len(over)} over the limit, marked at the bottom of the figure" in text


def test_where_nothing_keeps_the_limit_the_scores_are_drawn_as_they_are(result: RunResult) -> None:
    rows = [replace(c, score=c.score and c.score - 2.0) for c in result.candidates]
    search = {**result.recipe["search"], "objective": "hard"}
    missed = replace(result, recipe={**result.recipe, "search": search}, candidates=tuple(rows))
    # A loss, negated, is below 0 for every network, and says nothing of a limit.
    loss = {**search, "objective": "mul-log"}
    for one in (missed, replace(missed, recipe={**result.recipe, "search": loss})):
        figure = progress(one)
        assert figure is not None
        assert [trace.name for trace in figure.data] == ["candidate", "best so far"]
        assert list(figure.data[0].y) == [c.score for c in rows if c.score is not None]


def test_ops_have_their_intervals_where_they_were_measured_with_one(result: RunResult) -> None:
    slowest = max(result.ops, key=lambda op: op.latency_ms or 0.0)
    assert interval(slowest.latency_ci95_ms) in Page(render(result)).text
    figure = op_costs(result, of="latency_ms")
    assert figure is not None
    hovers = [text for trace in figure.data for text in trace.hovertext]
    assert any(interval(slowest.latency_ci95_ms) in text for text in hovers)
    # A result of before, which knows of none.
    data = result.to_json()
    for op in data["ops"]:
        del op["latency_ci95_ms"]
    old = RunResult.from_json(data)
    assert {op.latency_ci95_ms for op in old.ops} == {None}
    assert interval(slowest.latency_ci95_ms) not in Page(render(old)).text


def test_op_bars_add_up_to_the_measured_sum_and_to_all_macs(result: RunResult) -> None:
    times, macs = op_costs(result, of="latency_ms"), op_costs(result, of="macs")
    assert times is not None
    assert macs is not None
    measured = sum(op.latency_ms or 0.0 for op in result.ops)
    assert sum(sum(t.x) for t in times.data) == pytest.approx(measured)
    assert sum(sum(t.x) for t in macs.data) == pytest.approx(100.0)


def test_the_deployed_file_is_found_by_hash_and_its_peer_by_format(result: RunResult) -> None:
    winner, baseline = artifact(result, "winner"), artifact(result, "baseline")
    assert winner is not None
    assert baseline is not None
    assert winner.sha256 == result.deployed["sha256"]
    assert (baseline.network, baseline.scheme) == ("baseline", winner.scheme)
    unknown = replace(result, deployed={}, comparison=replace(result.comparison, winner_ms=123.0))
    assert artifact(unknown, "winner") is None


def test_unknown_values_are_dashes_and_not_figures() -> None:
    html = render(bare_result())
    text = Page(html).text
    assert text.count("not measured in this run") == 3
    assert "The run timed no device." in text
    assert "Nothing was deployed." in text
    assert not re.search(r"\b(nan|inf|None|Infinity)\b", text)
    assert "the device did not answer in 30 s" in text


def test_hostile_strings_stay_text() -> None:
    plain = Page(render(make_result(candidates=30)))
    attacked = Page(render(hostile_result()))
    assert {t for t, _ in attacked.tags} <= {t for t, _ in plain.tags} | {"summary"}
    assert "img" not in {t for t, _ in attacked.tags}
    names = {name for _, attributes in attacked.tags for name in attributes}
    assert not {name for name in names if name.startswith("on")}
    assert sum(tag == "script" for tag, _ in attacked.tags) == 6
    assert HOSTILE in attacked.text


def test_hostile_strings_are_escaped_for_plotly_too() -> None:
    result = hostile_result()
    for figure in (accuracy_latency(result), progress(result)):
        assert figure is not None
        texts = re.findall(r"<[^>]*>", json.dumps(figure.to_plotly_json(), default=list))
        assert set(texts) <= {"<b>", "</b>", "<br>", "<extra>", "</extra>"}


def test_what_a_template_writes_is_escaped_and_known() -> None:
    shown = TEMPLATES.from_string("{{ text }} {{ missing }}").render(text=HOSTILE, missing=None)
    assert shown == f"{escape(HOSTILE)} {DASH}"
    with pytest.raises(UndefinedError, match="'txet' is undefined"):
        TEMPLATES.from_string("{{ txet }}").render(text="a")


def test_nothing_is_loaded_from_elsewhere_and_scripts_are_named_by_hash(result: RunResult) -> None:
    html = render(result)
    page = Page(html)
    for _, attributes in page.tags:
        assert not {"src", "href", "srcset", "action", "poster", "data"} & set(attributes)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert html.count("plotly.js (basic - minified) v") == 1


def test_the_page_is_small_and_its_plotly_is_the_version_that_draws(result: RunResult) -> None:
    big = render(make_result(candidates=1000))
    assert len(big.encode()) < 2_000_000
    assert f"plotly.js (basic - minified) v{get_plotlyjs_version()}" in render(result)


def test_a_hash_is_cut_short_rather_than_broken(result: RunResult) -> None:
    sha256 = str(result.deployed["sha256"])
    html = render(result)
    assert f'<code title="{sha256}">{sha256[:12]}</code>' in html
    assert f">{sha256}<" not in html


def test_every_cell_carries_its_title_for_narrow_screens(page: Page) -> None:
    cells = [attributes for tag, attributes in page.tags if tag == "td"]
    assert len(cells) > 100
    assert all(attributes.get("data-label") for attributes in cells)


@pytest.mark.parametrize(
    ("winner_ms", "accuracy", "sides"),
    [
        (0.1, 0.99, ("top right", "bottom left")),
        (0.9, 0.97, ("bottom right", "top left")),
        (1.5, 0.99, ("top left", "bottom right")),
    ],
)
def test_labels_of_winner_and_baseline_never_meet(
    result: RunResult, winner_ms: float, accuracy: float, sides: tuple[str, str]
) -> None:
    best = {**result.finalists[0], "latency_ms": winner_ms, "accuracy_validation": accuracy}
    beside = {**result.baseline_candidates[0], "latency_ms": 1.0, "accuracy_validation": 0.98}
    known = replace(result, finalists=(best,), baseline_candidates=(beside,))
    figure = accuracy_latency(known)
    assert figure is not None
    found = {trace.text[0]: trace.textposition for trace in figure.data if trace.text}
    assert (found["<b>winner</b>"], found["<b>MobileNetV2-0.35</b>"]) == sides


def test_the_recipe_in_the_page_reads_back(page: Page) -> None:
    text = page.text[page.text.index('name = "digits-on-a-pi"') : page.text.rindex("Device time")]
    read = tomllib.loads(text)
    assert read["search"]["stages"] == [{"stride": 2, "width": 16, "layers": 2}]
    assert read["target"]["latency_ratio"] == 0.5
    assert "exponent" not in read["search"]
    assert "edgewright run recipe.toml --device pi4b" in page.text


json_values = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_toml_round_trip(data: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(data)) == data


def test_result_survives_json_and_gives_the_same_page(result: RunResult) -> None:
    again = RunResult.from_json(json.loads(json.dumps(result.to_json())))
    assert render(again) == render(result)


def test_write_makes_folders_replaces_whole_and_leaves_nothing_else(
    result: RunResult, tmp_path: Path
) -> None:
    path = tmp_path / "a" / "b" / "report.html"
    assert write_report(result, path) == path
    first = path.stat().st_ino
    write_report(replace(result, run_id="second"), path)
    assert "run second" in path.read_text(encoding="utf-8")
    assert path.stat().st_ino != first
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_report(
    result: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_report(result, tmp_path / "report.html")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        write_report(replace(result, run_id="second"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_cannot_be_written_is_one_sentence(result: RunResult, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; name a file, such as"):
        write_report(result, tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"cannot write .*choose a path"):
        write_report(result, tmp_path / "file" / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (number(1234.5), "1,234"),
        (number(0.0123456), "0.0123"),
        (number(4.1e-6), "4.10e\N{MINUS SIGN}6"),
        (number(-2.5), "\N{MINUS SIGN}2.50"),
        (number(0.0), "0"),
        (number(None), DASH),
        (number(float("inf")), DASH),
        (percent(float("nan")), DASH),
        (percent(0.98765), "98.77\N{NO-BREAK SPACE}%"),
        (interval((1.0, 2.0), 3), "[1.00, 2.00]"),
        (interval(None), DASH),
        (count(408_123), "408\N{NO-BREAK SPACE}k"),
        (count(950), "950"),
        (size(28_505), "27.8\N{NO-BREAK SPACE}KiB"),
        (duration(59.99), "60\N{NO-BREAK SPACE}s"),
        (duration(245), "4\N{NO-BREAK SPACE}min\N{NO-BREAK SPACE}05\N{NO-BREAK SPACE}s"),
        (duration(7800), "2\N{NO-BREAK SPACE}h\N{NO-BREAK SPACE}10\N{NO-BREAK SPACE}min"),
    ],
)
def test_how_values_read(shown: str, expected: str) -> None:
    assert shown == expected


def test_finalists_show_what_the_search_went_by_beside_what_was_measured(
    result: RunResult,
) -> None:
    row = {
        **result.finalists[0],
        "latency_ms": 1.25,
        "latency_ci95_ms": (1.2, 1.3),
        "predicted_ms": 1.75,
        "predicted_source": "table",
    }
    both = {"by_device_ms": {"pi4": 1.25, "phone": 7.5}}
    text = Page(render(replace(result, finalists=({**row, **both},)))).text
    assert "1.75 (table)" in text
    assert interval((1.2, 1.3)) in text
    assert "ms on phone" in text
    assert "7.5" in text
    assert "ms on" not in Page(render(replace(result, finalists=(row,)))).text
