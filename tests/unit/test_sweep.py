"""What layers lose when each alone is changed: as whole networks that are changed the same way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from device_agents.errors import ConfigError
from models.execute import execute_all
from models.graph import GraphBuilder
from models.lower import lower
from models.model import Model, random_model
from models.ops import Mean
from models.spec import ArchSpec
from pipeline.cli.main import main
from pipeline.compress.api import Needs
from pipeline.compress.layer_changes import LEVELS, round_weight
from pipeline.compress.passes import create
from pipeline.compress.sweep import Scoring, affordable, sweep
from pipeline.data import TASKS

SPEC = "16x16x3:same:conv_k3_s2_o16:mb_k3_s1_m32_o16_se8-relu-hardsigmoid_skip:fc5"


def net() -> Model:
    return random_model(lower(ArchSpec.parse(SPEC)), np.random.default_rng(0))


def images(count: int = 24) -> dict[str, np.ndarray]:
    return {"input": np.random.default_rng(1).standard_normal((count, 16, 16, 3), np.float32)}


def scores(model: Model, given: dict[str, np.ndarray]) -> np.ndarray:
    (found,) = execute_all(model, given).values()
    return np.asarray(found).reshape(len(found), -1)


def scoring(truths: np.ndarray | None = None) -> Scoring:
    return Scoring(truths, TASKS.load("classification")(), TASKS.load("agreement")())


def test_each_figure_is_that_of_the_network_with_this_layer_changed() -> None:
    model, given = net(), images()
    whole = scores(model, given)
    truths = np.random.default_rng(2).permutation(whole.argmax(1))
    found = sweep(model, given, scoring(truths), ["sparsity", "bits", "width"], max_drop=5)
    right = float((whole.argmax(1) == truths).mean())
    assert (found.samples, found.metric) == (24, "accuracy")
    assert found.value == pytest.approx(right)
    layers = [op.name for op in model.graph.ops if op.has_weights]
    for curve in found.curves:
        assert [point.level for point in curve.points] == list(LEVELS[curve.of])
        if curve.of == "width":
            continue
        assert curve.layer in layers
        assert curve.parameters == model.weights[curve.layer][0].size
        for point in (curve.points[0], curve.points[-1]):
            op, (weight, bias) = model.graph[curve.layer], model.weights[curve.layer]
            if curve.of == "bits":
                changed = round_weight(op, weight, int(point.level))
            else:
                least = np.sort(np.abs(weight), axis=None)[round(point.level * weight.size)]
                changed = np.where(np.abs(weight) >= least, weight, 0)
            weights = {**model.weights, op.name: (changed.astype(np.float32), bias)}
            other = scores(replace(model, weights=weights), given)
            assert point.value == pytest.approx(float((other.argmax(1) == truths).mean()))
            assert point.lost_points == pytest.approx(100 * (right - point.value))
            noise = np.square(other - whole).sum() / np.square(whole).sum()
            assert point.sqnr_db == pytest.approx(-10 * np.log10(noise), abs=0.05)
    assert {curve.of for curve in found.curves} == set(LEVELS)


def test_what_is_tolerated_is_what_all_milder_levels_are() -> None:
    model = net()
    found = sweep(model, images(), scoring(), ["bits", "width"], max_drop=10)
    assert found.metric == "agreement"
    for curve in found.curves:
        mild = []
        for point in curve.points:
            if point.lost_points > 10:
                break
            mild.append(point.level)
        assert curve.tolerated == (mild[-1] if mild else None)
        share = {"bits": lambda x: 1 - x / 32, "width": lambda x: 1 - x}[curve.of]
        kept = share(mild[-1]) if mild else 0
        assert curve.redundant == pytest.approx(kept * curve.parameters)
    orders = {of: [c.redundant for c in found.curves if c.of == of] for of in ("bits", "width")}
    assert all(order == sorted(order, reverse=True) for order in orders.values())


def test_a_width_is_that_of_pruning_this_group_alone() -> None:
    model, given = net(), images()
    whole = scores(model, given)
    (curve,) = [
        curve
        for curve in sweep(model, given, scoring(), ["width"], max_drop=1).curves
        if curve.layer == "blocks.1.expand"
    ]
    others = [op.name for op in model.graph.ops if op.has_weights and "blocks.1" not in op.name]
    keep = [*others, "blocks.1.project", "blocks.1.se.reduce"]
    for point in curve.points:
        pruned = create("prune", ratio=1 - point.level, keep=keep).apply(model, Needs())
        agree = float((scores(pruned, given).argmax(1) == whole.argmax(1)).mean())
        assert point.value == pytest.approx(agree)


def test_samples_are_as_many_as_take_a_minute() -> None:
    small = affordable(net(), ["bits"])
    assert small == 1000
    wide = SPEC.replace("16x16x3", "512x512x3")
    large = random_model(lower(ArchSpec.parse(wide)), np.random.default_rng(0))
    assert 4 <= affordable(large, ["sparsity", "bits", "width"]) < 60


def test_what_cannot_be_changed_is_said() -> None:
    builder = GraphBuilder()
    graph = builder.graph(builder.op("mean", "m", [builder.input("x", (1, 4, 4, 2))], Mean()))
    model = random_model(graph, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="bits: the model has no layer with weights"):
        sweep(model, {"x": np.zeros((2, 4, 4, 2), np.float32)}, scoring(), ["bits"], max_drop=1)
    coded = create("small_weights").apply(net(), Needs())
    with pytest.raises(ConfigError, match="is dynamic8 already; give the float model"):
        sweep(coded, images(), scoring(), ["bits"], max_drop=1)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net().save("net.npz")
    np.savez("data.npz", input=images()["input"], labels=np.arange(24) % 5)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["sensitivity", *words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.usefixtures("place")
def test_the_command_prints_tables_json_and_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("net.npz", "--data", "data.npz", "--of", "bits,width", "--max-drop", "3")
    code, out, err = run(capsys, *words, "-o", "all.svg")
    assert code == 0, err
    assert "points of accuracy lost by bits of the weights" in out
    assert "share of the channels that stay" in out
    assert "on 24 samples, one of which is 4.2 points" in out
    assert out.splitlines()[-1] == "all.svg"
    drawn = ET.parse("all.svg")  # noqa: S314  # it is ours
    texts = ["".join(element.itertext()) for element in drawn.iter()]
    assert any("blocks.1.expand" in text for text in texts)
    code, out, err = run(capsys, *words, "--json", "-o", "all.json")
    assert code == 0, err
    told: dict[str, Any] = json.loads(out)
    assert {curve["of"] for curve in told["curves"]} == {"bits", "width"}
    kept = json.loads(Path("all.json").read_text())
    assert kept["curves"] == told["curves"]
    code, _, err = run(capsys, "net.npz", "--of", "bits", "--samples", "3", "-o", "all.html")
    assert code == 0, err
    assert Path("all.html").read_text().startswith("<!doctype html>")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--of", "bit"), "'bit' is nothing that is changed; did you mean 'bits'?"),
        (("-o", "all.png"), "--out all.png ends in none of .svg, .html, .json"),
        (("--max-drop", "nan"), "is no number of points"),
        (("--data", "nosuch.npz"), "nosuch.npz"),
    ],
)
def test_mistakes_are_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    code, _, err = run(capsys, "net.npz", *words)
    assert (code, sentence in err) == (2, True), err
    assert not list(Path().glob("all.*"))
