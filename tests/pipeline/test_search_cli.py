"""A search from its recipe to its finalists, on simulated boards whose truth is known."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rich.console import Console

from device_agents.api import BenchProtocol
from device_agents.errors import ConfigError, DeviceError, TargetError
from models.cost import cost
from models.lower import lower
from models.number_format import STATIC8
from models.spec import ArchSpec
from pipeline.cli.commands import _recipe_run
from pipeline.cli.commands._search_board import SearchDisplay
from pipeline.cli.main import main
from pipeline.cli.options import require_agent
from pipeline.data import load_data
from pipeline.measure import bench as benches
from pipeline.measure import untrained
from pipeline.measure.form import Form
from pipeline.measure.reference import ZooNet, measure_reference
from pipeline.measure.timer import Timer
from pipeline.recipe.recipe import Recipe
from pipeline.run.opening import open_run
from pipeline.run.stages import run
from pipeline.search import estimators
from pipeline.search.api import Estimate, Trial
from pipeline.search.confirm import confirm_finalists
from pipeline.search.few_shot_fit import SearchedSpace, features_of, find_known_devices
from pipeline.search.serving import ServedDevice
from pipeline.search.stage import prepare_space
from pipeline.store import Store
from pipeline.store.leases import open_leases
from pipeline.store.result import CandidateRow
from profiles.registry import load_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from models.graph import Graph
    from pipeline.measure.bench import DeviceBench
    from pipeline.run.opening import OpenRun
    from pipeline.run.stages import Outcome
    from pipeline.search.estimate.few_shot import Features

RECIPE = """
name = "small"
device = { name = "board" }
data = { name = "digits", resolution = 16 }
target = { baseline = "mobilenet-v1", widths = [0.25], latency_ratio = 2.0 }

[search]
space = "mnasnet"
strategy = "random_search"
candidates = 12
batch = 4
finalists = 2
space_options = { stem = [3, 1, 8], stages = [[2, 16, 1], [2, 24, 1]], head = 32 }
"""
ALSO = ("search.also=[{device='other', latency_ratio=1.3}]",)


def truth_ms(graph: Graph) -> float:
    """Return what a graph takes on the simulated boards."""
    return 0.5 + 1e-5 * sum(op.macs + 3 * op.out_elements for op in cost(graph).per_op)


def null_model(_bench: DeviceBench, _form: Form, graph: Graph) -> bytes:
    model = {"edgewright_null": 1, "latency_ms": truth_ms(graph), "noise": 0.005}
    return json.dumps(model).encode()


def made_up_accuracy(spec: ArchSpec, _training: object, **_: object) -> float:
    """Return an accuracy that grows with what a network computes."""
    macs = cost(spec).macs
    return macs / (macs + 2e5)


def board(folder: Path, name: str = "board", script: str = "") -> None:
    """Write the profile of a simulated board, and what befalls it; each script is a new board."""
    devices = folder / "config" / "devices"
    devices.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{len(list(folder.iterdir()))}.toml"
    path.write_text(script)
    (devices / f"{name}.toml").write_text(f'extends = "fake"\naddress = "{path}"\n')


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with two boards and a recipe; nothing is trained there."""
    board(tmp_path)
    board(tmp_path, "other", "[latency]\nfactor = 3.0\n")
    (tmp_path / "small.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(untrained, "encode", null_model)
    monkeypatch.setattr(Form, "suffix", ".json")
    monkeypatch.setattr(_recipe_run, "require_format", require_agent)
    monkeypatch.setattr(estimators, "score_briefly", made_up_accuracy)
    monkeypatch.setattr(benches, "PAUSES_S", (0.0, 0.0))
    return tmp_path


def searched(place: Path, *overrides: str) -> tuple[Outcome, list[str]]:
    """Search; return the outcome and the lines said."""
    recipe = Recipe.load(place / "small.toml", overrides)
    out = StringIO()
    with (
        Store.open(place / "store") as store,
        open_leases(str(place / "store")) as leases,
        SearchDisplay(Console(file=out, width=400)) as display,
    ):
        found = run(
            recipe, load_device("board"), store=store, leases=leases, events=display, until="search"
        )
    return found, out.getvalue().splitlines()


@pytest.mark.parametrize(
    ("share", "chosen", "words"),
    [(0.5, "static8", "the fastest number format is static8"), (1.5, "float32", "float32 it is")],
)
def test_the_device_says_the_number_format_of_a_search(
    place: Path, monkeypatch: pytest.MonkeyPatch, share: float, chosen: str, words: str
) -> None:
    asked: list[str] = []

    def encode(bench: DeviceBench, form: Form, graph: Graph) -> bytes:
        asked.append(str(form.number_format))
        model = json.loads(null_model(bench, form, graph))
        model["latency_ms"] *= share if form.number_format == STATIC8 else 1.0
        return json.dumps(model).encode()

    monkeypatch.setattr(untrained, "encode", encode)
    found, lines = searched(place, "quantize.scheme=fastest")
    assert asked[:2] == ["float32", "static8"]
    assert set(asked[2:]) == {chosen}
    (said,) = [line for line in lines if words in line]
    assert "mobilenet-v1 x0.25" in said
    assert f"{share:.1f}" in said
    assert found.search.rows
    with Store.open(place / "store") as store:
        before = len(store.measurements())
    again, lines = searched(place, "quantize.scheme=fastest")
    with Store.open(place / "store") as store:
        assert len(store.measurements()) == before
    assert again.run_id == found.run_id
    assert said in lines


def test_finalists_are_measured_again_whatever_the_search_went_by(place: Path) -> None:
    for source in ("measured", "counted"):
        found = searched(place, f"search.latency={source}")[0].search
        assert {row.latency_source for row in found.rows} == {source}
        assert len(found.finalists) == 2
        for one in found.finalists:
            truth = truth_ms(lower(one.trial.spec))
            assert one.predicted.source == source
            assert one.measured.source == "measured"
            assert one.measured.value == pytest.approx(truth, rel=0.02)
            assert one.upper_ms <= found.target_ms
    # Counting knows nothing of what one inference costs at least.
    assert one.predicted.value != pytest.approx(one.measured.value, rel=0.02)


def test_a_few_measurements_make_a_model_of_the_rest(place: Path) -> None:
    found = searched(place, "search.latency=few-shot", "search.measurements=8")[0].search
    assert len(found.rows) == 12
    for row in found.rows:
        assert row.latency_source == "predicted"
        graph = lower(found.trials[row.index].spec)
        assert row.latency_ms == pytest.approx(truth_ms(graph), rel=0.15)


def test_a_target_out_of_reach_names_the_fastest_and_how_it_was_found(place: Path) -> None:
    for latency in ("measured", "counted"):
        overrides = ("target.latency_ms=0.4", f"search.latency={latency}")
        with pytest.raises(TargetError) as caught:
            searched(place, *overrides)
        sentence = str(caught.value)
        assert "no candidate meets the target of 0.4 ms on board: the fastest of 12" in sentence
        assert "found by random_search as candidate" in sentence
        took = float(sentence.partition("took ")[2].partition(" ms")[0])
        assert took > 0.5


@contextmanager
def opened(place: Path, device: str = "board") -> Iterator[tuple[Recipe, OpenRun]]:
    """Open a run of the recipe on a board."""
    recipe, profiles = Recipe.load(place / "small.toml"), [load_device(device)]
    with (
        Store.open(place / "store") as store,
        open_leases(str(place / "store")) as leases,
        SearchDisplay(Console(file=StringIO())) as display,
        open_run(recipe, profiles, store=store, leases=leases, events=display) as held,
    ):
        yield recipe, held


def test_a_table_that_is_wrong_by_a_factor_costs_no_finalist(place: Path) -> None:
    """As of a gradient search: steered by a table, but each candidate was measured as well."""
    with opened(place) as (recipe, held):
        data, section = load_data(recipe.data, seed=0), recipe.need_search("search")
        space, rng = prepare_space(section, data), np.random.default_rng(0)
        specs = list(dict.fromkeys(space.sample(rng) for _ in range(40)))
        slowest = sorted(specs, key=lambda spec: truth_ms(lower(spec)))[-4:]
        limit_ms = 1.1 * truth_ms(lower(slowest[-1]))
        form, protocol = Form("null", STATIC8), BenchProtocol.quick()
        net = ZooNet("mobilenet-v1", 0.25, data.dataset.input, data.dataset.classes)
        how = {"form": form, "protocol": protocol, "folder": held.folder}
        timer = Timer(held.bench, form, measure_reference(held.bench, net, **how))
        own = ServedDevice(timer, limit_ms)
        trials = [
            Trial(
                spec,
                {
                    "accuracy": Estimate(0.9, 0.0, "trained"),
                    "latency_ms": Estimate(truth_ms(lower(spec)), 0.0, "measured"),
                    "table_ms": Estimate(truth_ms(lower(spec)) / 2, 0.0, "table"),
                },
                score=1.0,
            )
            for spec in slowest
        ]
        found = confirm_finalists([own], trials, section=replace(section, finalists=2))
    assert [one.index for one in found] == [0, 1]
    assert all(one.predicted.source == "table" for one in found)
    assert truth_ms(lower(slowest[0])) > limit_ms / 2  # by twice what it takes it were too slow


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("search.space_options.classes=5",), "classes is that of the data; leave it out"),
        (("search.accuracy=predictor", "search.latency=few-shot"), "'mnasnet' has no supernet"),
        (("search.strategy_options.nope=1", "search.latency=few-shot"), "nope"),
        (("search.strategy=proxyless-gradient", *ALSO), "searches for one device"),
    ],
)
def test_what_cannot_be_is_told_before_a_candidate_is_measured(
    place: Path, overrides: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        searched(place, *overrides)
    with Store.open(place / "store", create=False) as store:
        assert len(store.measurements(run_id="small-1")) == 1, "the reference alone"


def test_the_prior_takes_each_devices_own_latencies(place: Path) -> None:
    """Of a search for several devices a row's own latency is none of the devices'."""
    searched(place, "search.candidates=40", "search.combine=weighted", *ALSO)
    board(place, "third")
    with opened(place, "third") as (recipe, held):
        data, section = load_data(recipe.data, seed=0), recipe.need_search("search")
        space = prepare_space(section, data, held.bench.profile.channel_multiple)
        like = SearchedSpace(section.space, section.space_options, 16, "static8")

        def features(specs: Sequence[ArchSpec]) -> Features:
            return features_of(space, specs)

        (known,) = find_known_devices(held.bench, space, like=like, features=features)
        store = held.bench.memo.store
        specs = [ArchSpec.parse(row["spec"]) for row in store.trials("small-1")]
        # What another run measures meanwhile does not change where this one goes on.
        later = {
            **store.trials("small-1")[0],
            "spec": str(space.sample(np.random.default_rng(9))),
        }
        store.add_trial("small-1", len(specs), later["spec"], later)
        (again,) = find_known_devices(held.bench, space, like=like, features=features)
        assert len(again.latency_ms) == len(known.latency_ms)
    truths = [truth_ms(lower(spec)) for spec in dict.fromkeys(specs)]
    assert known.name == "board"
    assert list(known.latency_ms) == pytest.approx(truths, rel=0.05)


def test_one_network_for_two_devices_meets_both_targets(place: Path) -> None:
    found = searched(place, *ALSO)[0].search
    reference_ms = found.target_ms / 2.0
    targets = {"board": 2.0 * reference_ms, "other": 1.3 * 3.0 * reference_ms}
    assert found.finalists
    for one in found.finalists:
        truth = truth_ms(lower(one.trial.spec))
        assert one.by_device["board"].value == pytest.approx(truth, rel=0.03)
        assert one.by_device["other"].value == pytest.approx(3.0 * truth, rel=0.03)
        assert all(one.by_device[name].value <= targets[name] for name in targets)
    # The tighter of the two targets is what counts, in milliseconds of the first device.
    row = next(row for row in found.rows if row.latency_ms)
    assert row.by_device_ms.keys() == {"board", "other"}
    share = row.by_device_ms["other"] / targets["other"]
    assert row.latency_ms == pytest.approx(share * found.target_ms, rel=0.01)
    alone = searched(place)[0].search
    assert max(o.trial.score for o in alone.finalists) > max(o.trial.score for o in found.finalists)


def test_a_device_cannot_be_served_twice(place: Path) -> None:
    with pytest.raises(ConfigError, match="device 'board' is named twice"):
        searched(place, "search.also=[{device='board'}]")


GONE = '[[fault]]\nkind = "cut"\nat_call = 40\ndown_s = 1e6\n'


def test_a_lost_device_stops_the_search_which_goes_on_later(place: Path) -> None:
    board(place, script=GONE)
    with pytest.raises(DeviceError, match="the same command goes on from there"):
        searched(place)
    with Store.open(place / "store", create=False) as store:
        before = [m.model_sha256 for m in store.measurements(run_id="small-1")]
    assert len(before) >= 2
    board(place)
    found, _ = searched(place)
    assert found.run_id == "small-1"
    assert len(found.search.rows) == 12
    with Store.open(place / "store", create=False) as store:
        after = [m.model_sha256 for m in store.measurements(run_id="small-1")]
    assert after[: len(before)] == before, "what was measured is not measured again"
    searching = 1 + 12  # the reference, and each candidate once
    assert len(after) == searching + len({one.index for one in found.search.finalists})


def test_a_lost_device_may_end_the_search_with_what_there_is(place: Path) -> None:
    board(place, script=GONE)
    outcome, lines = searched(place, "search.on_device_lost=end")
    found = outcome.search
    assert 0 < len(found.rows) < 12
    assert "cannot measure any more" in found.lost
    assert any(f"the search ends with {len(found.rows)} candidates" in line for line in lines)
    assert all(one.upper_ms <= found.target_ms for one in found.finalists)
    assert [one.measured for one in found.finalists] == [one.predicted for one in found.finalists]


def test_the_command_prints_json_and_goes_on_with_the_run(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["search", "small.toml", "--store", str(place / "store")]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "finalists, measured again" in shown.out
    assert "12 candidates" in shown.out
    assert sum(line.startswith("candidate ") for line in shown.err.splitlines()) == 12
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == "small-1"
    assert len(found["candidates"]) == 12
    assert 0 < found["hypervolume"] < 1
    for one in found["finalists"]:
        assert f"{one['index']}: {one['spec']}" in shown.out
        assert one["measured_ci95_ms"][1] <= found["target_ms"]


def row(
    index: int, latency_ms: float | None, accuracy: float | None, **changes: object
) -> CandidateRow:
    values = {
        "index": index, "spec": f"net {index}", "digest": "", "params": 1000, "macs": 1,
        "accuracy": accuracy, "latency_ms": latency_ms,
        "latency_ci95_ms": latency_ms and (latency_ms - 0.01, latency_ms + 0.01), "ratio": 1.0,
        "verdict": None, "score": accuracy, "elapsed_s": 0.0, "reused": False,
    }  # fmt: skip
    return CandidateRow(**{**values, **changes})  # type: ignore[arg-type]


ROWS = (
    row(0, 2.0, 0.9),
    row(1, 3.0, 0.8),
    row(2, 1.0, 0.7),
    row(3, 1.0, 0.7, reused=True),
    row(4, None, None, failure="it broke"),
)


def test_a_pipe_gets_a_line_for_each_candidate_and_the_front_grows() -> None:
    out = StringIO()
    with SearchDisplay(Console(file=out, width=200)) as display:
        for one in ROWS:
            display.candidate(one)
    lines = out.getvalue().splitlines()
    assert [line.endswith("on the front") for line in lines] == [True, False, True, False]
    assert lines[0].startswith("candidate 0: 2.0000 ± 0.0100 ms measured, accuracy 90.00%")
    assert lines[3] == "candidate 4: failed: it broke"
    assert [one.index for one in display.front] == [2, 0]


def test_estimated_candidates_are_printed_where_they_reach_the_front() -> None:
    out = StringIO()
    with SearchDisplay(Console(file=out, width=200)) as display:
        for one in (row(i, 2.0 - 0.1 * (i % 3), 0.5, latency_source="table") for i in range(50)):
            display.candidate(one)
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["0:", "1:", "2:"]


def test_a_terminal_shows_the_front_above_the_bar() -> None:
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=120, color_system=None)
    with SearchDisplay(console) as display, display.task("search", 5) as task:
        for one in ROWS:
            display.candidate(one)
            task.advance()
    drawn = out.getvalue()
    assert "4 candidates, 2 on the front" in drawn
    assert "candidate 0:" not in drawn
    assert drawn.rindex("1.0000 ± 0.0100") < drawn.rindex("5/5")
