"""Latency tables end to end: on a simulated board whose truth is known, and on this computer."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from device_agents.api import BenchProtocol, Failure, Measurement
from device_agents.errors import ConfigError, DeviceError
from models.cost import cost
from models.lower import lower
from models.number_format import FLOAT32, STATIC8
from models.spec import ArchSpec
from pipeline.cli import lut_bench
from pipeline.cli.display import Display
from pipeline.cli.lut_bench import TableOrder, open_bench
from pipeline.cli.main import cli
from pipeline.cli.options import require_agent
from pipeline.measure import untrained
from pipeline.measure.form import Form
from pipeline.measure.isolated import EMPTY
from pipeline.measure.per_op import measure_ops
from pipeline.measure.reference import Reference
from pipeline.measure.timer import Timer
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sections import DeviceSection
from pipeline.search import space as spaces
from pipeline.search.lut import table as lut
from profiles.table import LatencyTable, TableMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from models.graph import Graph
    from pipeline.cli.display import Bar
    from pipeline.measure.bench import DeviceBench

INPUT, CLASSES = (16, 16, 1), 5
OPTIONS = {"stages": [[2, 8, 2], [2, 16, 2]], "head": 0, "kernels": [3, 5]}
SPACE = spaces.create("proxyless", input=INPUT, classes=CLASSES, **OPTIONS)
ORDER = TableOrder(
    "proxyless", OPTIONS, INPUT, CLASSES, number_format=STATIC8, device=DeviceSection("board")
)
OVERHEAD_MS = 0.4
IN_A_NETWORK = 1.2


def op_ms(graph: Graph) -> list[float]:
    """Return what each op of a graph takes alone: the truth of the simulated board."""
    return [0.05 + 1e-5 * (op.macs + op.out_elements) for op in cost(graph).per_op]


def null_model(_bench: DeviceBench, _form: Form, graph: Graph) -> bytes:
    """Return a model of the null runtime that takes as long as the board takes for a graph.

    Graphs that take equally long differ in a digit that nobody sees, so that models can be told
    apart by their hashes.
    """
    factor = IN_A_NETWORK if len(graph.ops) > 2 else 1.0
    latency_ms = OVERHEAD_MS + factor * sum(op_ms(graph)) + 1e-15 * int(graph.digest()[:4], 16)
    return json.dumps({"edgewright_null": 1, "latency_ms": latency_ms, "noise": 0.01}).encode()


def board(folder: Path, script: str = "", profile: str = "") -> None:
    """Write the profile of a simulated board, and what befalls it."""
    devices = folder / "config" / "devices"
    devices.mkdir(parents=True, exist_ok=True)
    (folder / "script.toml").write_text(script)
    address = f'address = "{folder / "script.toml"}"\n' if script else ""
    (devices / "board.toml").write_text(f'extends = "fake"\n{address}{profile}')


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a simulated board `board`, which runs what `null_model` writes."""
    board(tmp_path)
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(untrained, "encode", null_model)
    monkeypatch.setattr(Form, "suffix", ".json")
    monkeypatch.setattr(lut_bench, "require_format", require_agent)
    return tmp_path


@contextmanager
def opened(place: Path) -> Iterator[Timer]:
    """Open the board and measure a reference there."""
    path = place / "reference.json"
    path.write_text(json.dumps({"edgewright_null": 1, "latency_ms": 2.0}))
    with open_bench(ORDER, str(place / "store"), fresh=False, priority=0) as held:
        bench, quick = held.bench, BenchProtocol.quick()
        found = bench.measure({"reference": 1}, lambda: path, protocol=quick)
        assert isinstance(found, Measurement)
        spec = SPACE.sample(np.random.default_rng(0))
        reference = Reference("null", spec, path, bench.memo.store.put_file(path), found)
        yield Timer(bench, Form("null", STATIC8), reference)


def with_bench(timer: Timer, **changes: Any) -> Timer:
    """Return a timer whose bench has other parts."""
    return replace(timer, bench=replace(timer.bench, **changes))


class Interrupting(Display):
    """Raises KeyboardInterrupt, as Ctrl-C does, when `after` ops are measured."""

    after = 7

    def show(self, task: Bar) -> None:
        if task.done == self.after:
            raise KeyboardInterrupt


def models_measured(timer: Timer) -> Counter[str]:
    """Return how often each model was measured in the run."""
    stored = timer.bench.memo.store.measurements(run_id=timer.bench.run_id)
    return Counter(m.model_sha256 for m in stored)


def test_sums_are_what_networks_take(place: Path) -> None:
    with opened(place) as timer:
        table = lut.build_table(timer, SPACE, seed=0)
        again = lut.build_table(timer, SPACE, seed=0)
        checked = lut.check_additivity(timer, table, seed=0, networks=5)
        others = lut.measure_others(timer, table, seed=0, count=5)
        assert set(models_measured(timer).values()) == {1}
    assert table == again
    assert table.additivity is not None
    assert table.additivity.networks == lut.NETWORKS
    assert max(table.additivity.mape, checked.mape) < 0.02
    made_with = {tuple(op.key for op in lower(ArchSpec.parse(n)).ops) for n in table.networks}
    assert len(made_with) == lut.NETWORKS
    assert not made_with & {network.keys for network in others}
    empty_ms = OVERHEAD_MS + sum(op_ms(EMPTY))
    assert table.overhead.latency_ms == pytest.approx(empty_ms, rel=0.1)
    rng = np.random.default_rng(11)
    for _ in range(20):
        graph = lower(SPACE.sample(rng))
        truth = OVERHEAD_MS + IN_A_NETWORK * sum(op_ms(graph))
        value, stderr = table.latency_ms(op.key for op in graph.ops)
        assert value == pytest.approx(truth, rel=0.03)
        assert abs(value - truth) < 3 * stderr


def test_interrupted_table_goes_on_where_it_was(place: Path) -> None:
    with opened(place) as timer:
        with pytest.raises(KeyboardInterrupt):
            lut.build_table(with_bench(timer, events=Interrupting()), SPACE, seed=0)
        before = models_measured(timer)
    assert len(before) >= Interrupting.after
    with opened(place) as timer:
        table = lut.build_table(timer, SPACE, seed=0)
        after = models_measured(timer)
    assert table.entries.keys() == lut.distinct_ops(SPACE).keys()
    assert before.items() <= after.items()
    assert set(after.values()) == {1}


def test_vanished_board_keeps_what_was_measured(place: Path) -> None:
    board(place, '[[fault]]\nkind = "cut"\nat_call = 60\ndown_s = 1e6\n')
    with opened(place) as timer:
        with pytest.raises(DeviceError, match="what was measured is stored"):
            lut.build_table(with_bench(timer, pause=lambda _: None), SPACE, seed=0)
        before = models_measured(timer)
    assert len(before) > 3
    board(place)
    with opened(place) as timer:
        lut.build_table(timer, SPACE, seed=0)
        after = models_measured(timer)
    assert before.keys() < after.keys()


def test_a_space_of_one_network_is_refused_before_anything_is_measured(place: Path) -> None:
    options: dict[str, Any] = {**OPTIONS, "stages": [[2, 8, 1]], "kernels": [3], "expansions": [3]}
    space = spaces.create("proxyless", input=INPUT, classes=CLASSES, **options)
    with opened(place) as timer:
        count = len(models_measured(timer))
        with pytest.raises(ConfigError, match="'proxyless' has 1 networks to measure whole, a"):
            lut.build_table(timer, space, seed=0)
        assert len(models_measured(timer)) == count


def test_a_table_is_not_tested_by_the_networks_it_was_made_with(place: Path) -> None:
    options: dict[str, Any] = {**OPTIONS, "stages": [[2, 8, 1]]}
    space = spaces.create("proxyless", input=INPUT, classes=CLASSES, **options)
    assert space.size == 4
    with opened(place) as timer:
        two = lut.build_table(timer, space, seed=0, networks=2)
        four = lut.build_table(timer, space, seed=0)
        assert (len(two.networks), len(four.networks)) == (2, 4)
        assert len(lut.measure_others(timer, two, seed=0)) == 2
        with pytest.raises(ConfigError, match=r"has 0 networks .* besides the 4 that its table"):
            lut.check_additivity(timer, four, seed=0)


def test_networks_that_cannot_be_measured_are_replaced_but_not_for_ever(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[Graph] = []

    def time_graph(_timer: Any, graph: Graph, _protocol: Any) -> Failure:
        refused.append(graph)
        return Failure("the runtime refuses the model")

    with opened(place) as timer:
        table = lut.build_table(timer, SPACE, seed=0, networks=2)
        monkeypatch.setattr(Timer, "time_graph", time_graph)
        with pytest.raises(DeviceError, match=r"0 of 10 networks .*: the runtime refuses the mod"):
            lut.measure_others(timer, table, seed=0, count=5)
    assert len(refused) == 10


def test_a_table_is_of_the_space_that_is_searched_on_the_device(place: Path) -> None:
    board(place, profile="channel_multiple = 16\n")
    with opened(place) as timer:
        liked = ORDER.create_space(timer.bench.profile.channel_multiple)
        assert all(b.out % 16 == 0 for b in liked.decode((0, 0, 0, 0)).blocks[2:])


def test_ops_of_a_report_are_what_they_take_without_the_call(place: Path) -> None:
    spec = ArchSpec.parse("16x16x8:same:conv_k3_s1_o8:mb_k5_s1_m48_o8_se2-relu-sigmoid_skip:fc5")
    graph = lower(spec)
    empty_ms = sum(op_ms(EMPTY))
    with opened(place) as timer:
        found = measure_ops(timer, spec)
    for row, op, truth in zip(found, graph.ops, op_ms(graph), strict=True):
        behind_a_feeder = len(op.in_shapes[0]) == 2 or len(set(op.in_shapes)) > 1
        expected = truth if behind_a_feeder else truth - empty_ms
        assert row.latency_ms == pytest.approx(expected, abs=0.02), op.key
        low, high = row.latency_ci95_ms
        assert 0 <= low <= row.latency_ms <= high
        assert low - 0.01 <= expected <= high + 0.01, op.key
    assert any(low > 0 for low, _ in (row.latency_ci95_ms for row in found))


def test_a_report_takes_its_ops_from_the_runs_table(place: Path) -> None:
    """Both ask in one way, so what one has measured the other finds."""
    with opened(place) as timer:
        table = lut.build_table(timer, SPACE, seed=0, networks=2)
        before = models_measured(timer)
        rows = measure_ops(timer, SPACE.sample(np.random.default_rng(3)))
        assert models_measured(timer) == before
    assert rows
    for row in rows:
        assert row.latency_ms == table.entries[row.key].alone_ms


def test_table_of_another_runtime_is_refused_before_anything_is_measured(place: Path) -> None:
    with opened(place) as timer:
        table = lut.build_table(timer, SPACE, seed=0, networks=2)
        count = len(models_measured(timer))
        with pytest.raises(TableMismatchError, match="another null version: made with 0"):
            lut.check_additivity(timer, replace(table, runtime_version="0"), seed=0)
        assert len(models_measured(timer)) == count


def run(*args: str) -> str:
    """Run `edgewright lut`; return what it prints."""
    done = CliRunner().invoke(cli, ["lut", *args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.slow
def test_command_builds_shows_and_checks_a_table_of_this_computer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("EDGEWRIGHT_STORE", str(tmp_path / "store"))
    build = (
        "build", "--device", "local", "--space", "proxyless", "--input", "8x8x1", "--classes", "3",
        "--set", "stages=[[2, 8, 1], [2, 16, 1]]", "--set", "kernels=[3]",
        "--set", "expansions=[1, 2, 3]", "--set", "head=0",
        "--set", "first=0", "--networks", "3",
    )  # fmt: skip
    made = run(*build)
    path = tmp_path / "config" / "tables" / "local-proxyless-static8.json"
    table = LatencyTable.load(path)
    options: dict[str, Any] = {
        "stages": [[2, 8, 1], [2, 16, 1]], "kernels": [3], "expansions": [1, 2, 3],
    }  # fmt: skip
    space = spaces.create("proxyless", input=(8, 8, 1), classes=3, head=0, first=0, **options)
    assert table.entries.keys() == lut.distinct_ops(space).keys()
    assert lut.restore_space(table) == space
    assert made.startswith(f"{len(table.entries)} ops of proxyless on local: {path}\n")
    assert "sums against 3 networks measured whole" in made

    run(*build, "--out", str(tmp_path / "again.json"))
    assert LatencyTable.load(tmp_path / "again.json") == table  # nothing is measured twice

    shown = run("show", str(path))
    assert all(key in shown for key in table.entries)
    assert json.loads(run("show", str(path), "--json")) == json.loads(path.read_text())
    checked = run("check", str(path), "--device", "local", "--networks", "2")
    assert checked.startswith("sums against 2 networks measured whole")

    listed = CliRunner().invoke(cli, ["runs"], catch_exceptions=False).output
    assert "measurements of a latency table: the same `edgewright lut` takes them up" in listed
    assert "not finished" not in listed


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--space", "proxyless"), "a table needs --recipe RECIPE, or --space S --input HxWxC"),
        (("--space", "no", "--input", "8x8x1", "--classes", "2"), "no search space 'no' known"),
        (("--space", "proxyless", "--input", "8", "--classes", "2"), "'8' is no size"),
        (
            ("--space", "proxyless", "--input", "8x8x1", "--classes", "2", "--set", "classes=3"),
            "without a recipe write --classes instead",
        ),
        (("--recipe", "r.toml", "--classes", "2"), "come from the recipe's data"),
    ],
)
def test_what_a_table_needs_is_asked_for(args: tuple[str, ...], words: str) -> None:
    done = CliRunner().invoke(cli, ["lut", "build", "--device", "local", *args])
    assert isinstance(done.exception, ConfigError)
    assert words in str(done.exception)


def test_a_recipe_for_a_table_needs_a_space_and_no_target(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text('name = "short"\ndata = { name = "digits", resolution = 16 }\n')
    arguments = ("build", "--device", "local", "--recipe", str(path))
    done = CliRunner().invoke(cli, ["lut", *arguments])
    assert isinstance(done.exception, ConfigError)
    assert "no [search], which `edgewright lut build --recipe` needs" in str(done.exception)
    sets = ["search.space=proxyless", "search.strategy=random_search"]
    recipe = Recipe.load(path, sets)
    order = TableOrder.of(recipe)
    assert (order.size, order.classes, order.reference) == ((16, 16, 1), 10, ("mobilenet-v2", 0.35))
    assert order.plan is recipe
    with_target = Recipe.load(path, [*sets, "target.baseline=mobilenet-v1", "target.widths=[0.25]"])
    assert TableOrder.of(with_target).reference == ("mobilenet-v1", 0.25)


def test_an_order_is_known_again_by_what_it_asks_for() -> None:
    digests = {ORDER.digest(), replace(ORDER).digest()}
    assert len(digests) == 1
    changes: tuple[dict[str, Any], ...] = (
        {"classes": 6}, {"size": (8, 8, 1)}, {"number_format": FLOAT32}, {"seed": 1},
        {"options": {**OPTIONS, "head": 8}}, {"device": DeviceSection("board", threads=2)},
        {"reference": ("mobilenet-v1", 0.25)},
    )  # fmt: skip
    for change in changes:
        digests.add(replace(ORDER, **change).digest())
    assert len(digests) == 1 + len(changes)
