"""Latency tables: sums, refusals, which ops a space has, the correction by whole networks."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_agents.api import BenchProtocol, Measurement, SensorReading
from device_agents.errors import ConfigError
from models.cost import cost
from models.graph import Graph, Op
from models.lower import lower
from models.model import random_model
from models.spec import ArchSpec
from pipeline.formats import FORMATS, create
from pipeline.measure.isolated import EMPTY, isolate
from pipeline.search import space as spaces
from pipeline.search.estimate.counted import CountedLatency
from pipeline.search.estimate.table import TableLatency
from pipeline.search.lut.calibration import Whole, calibrate
from pipeline.search.lut.ops import distinct_ops
from profiles.table import (
    Additivity,
    LatencyTable,
    MissingKeysError,
    TableEntry,
    TableMismatchError,
    default_path,
)

if TYPE_CHECKING:
    from pathlib import Path

    from models.number_format import NumberFormat
    from pipeline.search.api import SearchSpace

DRAWS = 200

TABLE = LatencyTable(
    device="board",
    device_digest="d1",
    runtime="tflite",
    runtime_version="2.3.0",
    threads=2,
    scheme="static8",
    when="2026-01-02T03:04:05+00:00",
    overhead=TableEntry(0.5, 0.3, 2),
    entries={"a": TableEntry(1.0, 0.1, 2, 0.9), "b": TableEntry(2.0, 0.4, 2)},
    cpus=(1, 2),
    settings={"xnnpack": "on"},
    space={"name": "mnasnet"},
    edgewright="0.1.0",
)
STILL = SensorReading()
IN_USE = Measurement(
    device="board", device_digest="d1", model_sha256="", reference_sha256=None, agent_sha256="",
    runtime="tflite", runtime_version="2.3.0", threads=2, cpus=(1, 2),
    protocol=BenchProtocol.quick(), started_at="", samples_ns=(), reference_samples_ns=(),
    process_medians_ms=(), median_ms=1.0, ci95_ms=(1.0, 1.0), p90_ms=1.0, ratio=None,
    ratio_ci95=None, reference_median_ms=None, partitions=1, before=STILL, after=STILL,
    verdict="valid", reasons=(), busy_ns=0, timed_ns=0, warmup_ns=0, load_ns=0, peak_rss_bytes=0,
    settings={"xnnpack": "on"},
)  # fmt: skip


def test_sum_counts_the_overhead_once_and_an_op_as_often_as_it_stands() -> None:
    value, stderr = TABLE.latency_ms(["a", "b", "a"])
    assert value == pytest.approx(0.5 + 2 * 1.0 + 2.0)
    # The error of one entry is the same at both places: 2 * 0.1, not 0.1 * sqrt(2).
    assert stderr == pytest.approx(np.sqrt(0.3**2 + (2 * 0.1) ** 2 + 0.4**2))


def test_relative_error_comes_on_top() -> None:
    value, stderr = replace(TABLE, relative_error=0.1).latency_ms(["b"])
    assert stderr == pytest.approx(np.sqrt(0.3**2 + 0.4**2 + (0.1 * value) ** 2))


def test_missing_keys_are_named_with_the_command_that_measures_them() -> None:
    keys = [f"conv:{n}" for n in range(7)]
    with pytest.raises(MissingKeysError) as caught:
        TABLE.latency_ms(["a", *keys, "conv:0"])
    assert caught.value.keys == tuple(keys)
    assert str(caught.value) == (
        "the latency table of board has no entry for conv:0, conv:1, conv:2, conv:3, conv:4 and "
        "2 more; it was built for space mnasnet; `edgewright lut build --device board --space "
        "mnasnet` with the options, input and classes in use measures them"
    )


def test_table_fits_what_it_was_made_with() -> None:
    TABLE.check(IN_USE, "static8")


@pytest.mark.parametrize(
    ("change", "scheme", "words"),
    [
        ({"device_digest": "d2"}, "static8", "another device: made with d1"),
        ({"runtime": "onnx"}, "static8", "another runtime: made with tflite"),
        ({"runtime_version": "2.4.0"}, "static8", "another tflite version: made with 2.3.0"),
        ({"threads": 1}, "static8", "another number of threads: made with 2"),
        ({"cpus": ()}, "static8", "another CPUs: made with (1, 2)"),
        ({"settings": {}}, "static8", "another settings: made with {'xnnpack': 'on'}"),
        ({}, "float32", "another number format: made with static8"),
    ],
)
def test_table_for_something_else_is_refused(
    change: dict[str, Any], scheme: str, words: str
) -> None:
    with pytest.raises(TableMismatchError) as caught:
        TABLE.check(replace(IN_USE, **change), scheme)
    assert words in str(caught.value)
    assert str(caught.value).endswith("build one for it with `edgewright lut build`")


def test_table_follows_its_reference_model_from_day_to_day() -> None:
    table = replace(TABLE, reference={"sha256": "r", "latency_ms": 2.0}, relative_error=0.1)
    slower = table.rescale("r", 3.0)
    assert slower.latency_ms(["a", "b"]) == pytest.approx(
        tuple(1.5 * value for value in table.latency_ms(["a", "b"]))
    )
    assert slower.entries["a"].alone_ms == pytest.approx(1.5 * 0.9)
    assert slower.rescale("r", 2.0).latency_ms(["a"]) == pytest.approx(table.latency_ms(["a"]))
    assert table.rescale("another model", 3.0) == table


def test_table_survives_its_file(tmp_path: Path) -> None:
    table = replace(
        TABLE,
        additivity=Additivity(20, 0.02, 1.0, 0.99, 0.001),
        networks=("8x8x1:same:conv_k3_s1_o4:fc2",),
        reference={"name": "r", "sha256": "r", "latency_ms": 2.0},
    )
    path = tmp_path / "new" / "table.json"
    table.save(path)
    assert LatencyTable.load(path) == table
    assert [item.name for item in path.parent.iterdir()] == ["table.json"]


@pytest.mark.parametrize("value", [float("nan"), -1.0, "1"])
def test_entry_that_is_no_latency_is_refused(value: Any) -> None:
    data = TABLE.to_json()
    data["entries"]["a"]["latency_ms"] = value
    with pytest.raises(ConfigError, match=r"entry a, latency_ms is .*, not a number of 0 or more"):
        LatencyTable.from_json(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"relative_error": "0.1"}, "relative_error is '0.1', not a number of 0 or more"),
        ({"relative_error": True}, "relative_error is True"),
        ({"reference": {"sha256": "r"}}, "has no 'latency_ms'"),
        ({"reference": {"latency_ms": 0}}, "reference latency_ms is 0, not a number above 0"),
        ({"reference": 3}, "is damaged"),
        ({"space": "mnasnet"}, "is damaged"),
        ({"settings": None}, "is damaged"),
        ({"scheme": 5}, "the latency table's scheme is 5, not text; build it again"),
        ({"runtime": None}, "runtime is None, not text"),
        ({"threads": "1"}, "threads is '1', not a whole number"),
        ({"entries": {"a": {"latency_ms": 1, "stderr_ms": 0, "samples": 2, "alone_ms": "1"}}},
         "entry a, alone_ms is '1'"),
        ({"extra": 1}, "is damaged"),
    ],
)  # fmt: skip
def test_no_damage_waits_for_the_table_to_be_used(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LatencyTable.from_json({**TABLE.to_json(), **change})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "it is not JSON"),
        ("[]", "it holds no JSON object"),
        ('{"edgewright_latency_table": 9}', "not a latency table of format 1"),
        ('{"edgewright_latency_table": 1}', "has no 'overhead'"),
        (
            '{"edgewright_latency_table": 1, "overhead": {"latency_ms": -1, "stderr_ms": 0}}',
            "is damaged",
        ),
    ],
)
def test_damaged_table_is_one_sentence_with_its_file(
    tmp_path: Path, content: str | None, words: str
) -> None:
    path = tmp_path / "table.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=words) as caught:
        LatencyTable.load(path)
    assert str(path) in str(caught.value)


def test_tables_of_ones_own_lie_beside_the_profiles(tmp_path: Path) -> None:
    path = default_path("board", "mnasnet", "static8", tmp_path)
    assert path == tmp_path / "tables" / "board-mnasnet-static8.json"


def offered(name: str) -> SearchSpace[ArchSpec]:
    options: dict[str, Any] = {}
    if name == "mnasnet":
        options = {"acts": ("relu6", "hardswish")}
    if name == "proxyless":
        options = {"acts": ("relu6", "hardswish"), "se_ratios": (0.0, 0.25), "head": 0}
    if name.startswith("ofa"):
        options = {"resolutions": (16, 24, 32)}
    return spaces.create(name, input=(32, 32, 3), classes=10, **options)


@pytest.mark.parametrize("name", spaces.SPACES.names())
def test_enumeration_has_every_op_of_random_networks(name: str) -> None:
    space, rng = offered(name), np.random.default_rng(3)
    ops = distinct_ops(space)
    drawn: set[str] = set()
    for _ in range(DRAWS):
        drawn |= {op.key for op in lower(space.sample(rng)).ops}
    assert drawn <= ops.keys()
    assert all(op.key == key for key, op in ops.items())


def test_enumeration_has_no_op_that_no_network_has() -> None:
    space = spaces.create(
        "proxyless", input=(16, 16, 1), classes=3, stages=[[2, 8, 2], [1, 16, 2]], kernels=[3, 5]
    )
    every = {
        op.key
        for choices in np.ndindex(*space.cardinalities)
        for op in lower(space.decode(choices)).ops
    }
    assert distinct_ops(space).keys() == every


def test_space_of_another_kind_is_refused() -> None:
    other: Any = SimpleNamespace(name="other")
    with pytest.raises(ConfigError, match="ops of space 'other' cannot be enumerated"):
        distinct_ops(other)


def kinds_of_ops() -> dict[str, Op]:
    """Return one op of each kind, activation and rank of its inputs."""
    line = (
        "16x16x3:same:conv_k3_s2_o8:ds_k5_s1_o8_se2-relu-sigmoid_poolskip:"
        "mb_k3_s1_m24_o8_hardswish_se4-relu-hardsigmoid_skip:fc6_silu:fc5"
    )
    ops = lower(ArchSpec.parse(line)).ops
    return {f"{op.kind}-{op.act}-{len(op.in_shapes[0])}-{len(op.out_shape)}": op for op in ops}


@pytest.mark.parametrize(
    ("name", "number_format"),
    [(name, held) for name in FORMATS.names() for held in create(name).number_formats],
    ids=str,
)
def test_every_kind_of_op_can_be_written_as_a_model_of_its_own(
    name: str, number_format: NumberFormat
) -> None:
    ops = kinds_of_ops()
    assert {op.kind for op in ops.values()} >= {
        "conv", "depthwise", "dense", "add", "mul", "mean", "maxpool", "act",
    }  # fmt: skip
    rng = np.random.default_rng(0)
    for op in ops.values():
        model = isolate(op)
        for graph in (model.graph, model.without):
            create(name).write(random_model(graph, rng, number_format))
        assert model.graph.output.key == op.key
        assert [o.key for o in model.graph.ops[:-1]] == [
            o.key for o in model.without.ops if model.without != EMPTY
        ]


def test_equal_ops_are_equal_models() -> None:
    graph = lower(ArchSpec.parse("8x8x4:same:conv_k3_s1_o4:conv_k3_s1_o4:fc2"))
    first, second = graph.ops[:2]
    assert first.name != second.name
    assert isolate(first).graph.digest() == isolate(second).graph.digest()


KINDS = {f"{kind}:{n}": kind for kind in ("conv", "depthwise") for n in range(10)}


def problem(
    count: int, *, factor: float
) -> tuple[dict[str, TableEntry], TableEntry, list[Whole], np.ndarray[Any, Any]]:
    """Return ops alone, the overhead, and networks in which each op takes `factor` as long."""
    rng = np.random.default_rng(5)
    keys = list(KINDS)
    alone = {key: TableEntry(float(rng.uniform(1, 5)), 0.02, 2) for key in keys}
    overhead = TableEntry(0.5, 0.01, 2)
    networks = []
    for _ in range(count):
        drawn = tuple(rng.choice(keys, size=12).tolist())
        truth = 0.5 + factor * sum(alone[key].latency_ms for key in drawn)
        networks.append(Whole(drawn, truth * float(rng.normal(1, 0.01)), 0.01 * truth))
    return alone, overhead, networks, rng.choice(keys, size=(30, 12))


def test_networks_correct_what_ops_take_alone() -> None:
    alone, overhead, networks, others = problem(20, factor=1.25)
    found = calibrate(alone, overhead, networks, KINDS)
    for keys in others:
        truth = 0.5 + 1.25 * sum(alone[key].latency_ms for key in keys)
        total = found.overhead.latency_ms + sum(found.entries[key].latency_ms for key in keys)
        assert total == pytest.approx(truth, rel=0.03)
    assert found.additivity.mape < 0.02
    assert found.additivity.within_10 == 1.0
    assert abs(found.additivity.bias) < 0.01
    assert found.relative_error < 0.03


def test_entries_become_surer_by_networks_that_hold_them() -> None:
    alone, overhead, networks, _ = problem(20, factor=1.0)
    unsure = {key: replace(entry, stderr_ms=1.0) for key, entry in alone.items()}
    found = calibrate(unsure, overhead, networks, KINDS)
    assert all(entry.stderr_ms < 1.0 for entry in found.entries.values())
    assert all(entry.latency_ms >= 0 for entry in found.entries.values())


def test_left_out_sums_are_those_of_a_table_made_without_the_network() -> None:
    alone, overhead, networks, _ = problem(8, factor=1.1)
    errors = []
    for index, network in enumerate(networks):
        rest = calibrate(alone, overhead, networks[:index] + networks[index + 1 :], KINDS)
        keys = network.keys
        total = rest.overhead.latency_ms + sum(rest.entries[key].latency_ms for key in keys)
        errors.append(total / network.latency_ms - 1)
    found = calibrate(alone, overhead, networks, KINDS)
    # Not to the last digit: the noise of the others is fitted with the network among them.
    assert found.additivity.mape == pytest.approx(np.mean(np.abs(errors)), rel=0.02)
    assert found.relative_error == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=0.02)


def test_one_disturbed_network_does_not_spoil_the_table() -> None:
    alone, overhead, networks, others = problem(20, factor=1.25)
    first = networks[0]
    disturbed = [replace(first, latency_ms=3 * first.latency_ms), *networks[1:]]
    found = calibrate(alone, overhead, disturbed, KINDS)
    for keys in others:
        truth = 0.5 + 1.25 * sum(alone[key].latency_ms for key in keys)
        total = found.overhead.latency_ms + sum(found.entries[key].latency_ms for key in keys)
        assert total == pytest.approx(truth, rel=0.03)
    assert found.additivity.mape > 0.03  # and yet it counts


SPEC = ArchSpec.parse("8x8x1:same:conv_k3_s1_o4:conv_k3_s1_o4_skip:fc2")


def test_table_estimator_sums_the_ops_of_the_network() -> None:
    keys = [op.key for op in lower(SPEC).ops]
    entries = {key: TableEntry(n + 1.0, 0.1, 2) for n, key in enumerate(dict.fromkeys(keys))}
    table = replace(TABLE, entries=entries)
    [estimate] = TableLatency(table).estimate([SPEC])
    assert (estimate.value, estimate.stderr) == table.latency_ms(keys)
    assert estimate.source == "table"
    with pytest.raises(MissingKeysError, match=r"no entry for conv:8x8x1"):
        TableLatency(TABLE).estimate([SPEC])


def test_counted_estimator_is_proportional_to_macs() -> None:
    wide = ArchSpec.parse("8x8x1:same:conv_k3_s1_o8:fc2")
    estimator = CountedLatency.scaled_on(SPEC, 2.0)
    own, other = estimator.estimate([SPEC, wide])
    assert own.value == pytest.approx(2.0)
    assert other.value == pytest.approx(2.0 * cost(wide).macs / cost(SPEC).macs)
    assert own.source == "counted"
    assert own.stderr > 0.1 * own.value


def test_empty_model_has_one_small_op() -> None:
    assert isinstance(EMPTY, Graph)
    assert sum(item.macs for item in cost(EMPTY).per_op) == 64
