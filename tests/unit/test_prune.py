"""Which channels are cut, and that the files of what is left compute it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings

from device_agents.errors import ConfigError
from models.channels import follow
from models.cost import cost
from models.graph import GraphBuilder
from models.lower import lower
from models.model import Model, random_model
from models.number_format import DYNAMIC8
from models.ops import BatchNorm, Conv, Dense, Depthwise, Mean
from models.quantization import Quantization
from models.spec import ArchSpec
from models.zoo import get
from pipeline.compress.api import Lessons, Needs
from pipeline.compress.importance import score_channels
from pipeline.compress.passes import create
from pipeline.compress.taylor import taylor_terms
from pipeline.data.tasks.classification import Classification
from pipeline.formats import FORMATS
from pipeline.formats import create as create_format
from pipeline.formats.convert import write_checked
from pipeline.formats.subjects import ModelSubject
from tests.masked_channels import masked
from tests.op_draws import referred
from tests.spec_strategies import specs

ROOT = Path(__file__).resolve().parents[2]
SPEC = "16x16x3:same:conv_k3_s2_o16:mb_k3_s1_m32_o16_se8-relu-hardsigmoid_skip:fc5"


def prune(model: Model, **options: Any) -> Model:
    made: Model = create("prune", **options).apply(model, Needs())
    return made


def widths(model: Model) -> dict[str, int]:
    return {op.name: op.out_shape[-1] for op in model.graph.ops if op.has_weights}


def strong(*, bn: bool = True) -> Model:
    """A network in which channels 1 and 5 of the first layer, and 0 of the second, are small."""
    builder, rng = GraphBuilder(), np.random.default_rng(0)
    x = builder.op("conv", "first", [builder.input("x", (1, 6, 6, 3))], Conv(out=6))
    weights: dict[str, Any] = {}
    if bn:
        names = [builder.constant(f"bn.{part}", (6,)) for part in ("scale", "shift", "mean", "var")]
        weights = {name: (np.ones(6, np.float32),) for name in names}
        weights["bn.scale"] = (np.array([1, 1, 1, 0.1, 1, 0.1], np.float32),)
        x = builder.op("batchnorm", "bn", [x, *names], BatchNorm(), act="relu")
    x = builder.op("depthwise", "deep", [x], Depthwise(kernel=(3, 3)))
    x = builder.op("conv", "second", [x], Conv(out=4), act="relu")
    x = builder.op("mean", "mean", [x], Mean(keepdims=False))
    builder.op("dense", "head", [x], Dense(3))
    graph = builder.graph()
    for op in graph.ops:
        if op.has_weights:
            weight = np.sign(rng.standard_normal(op.weight_shape)).astype(np.float32)
            weights[op.name] = (weight, np.zeros(op.out_shape[-1], np.float32))
    weights["first"][0][[1, 5]] *= 0.01
    weights["second"][0][0] *= 0.1
    return Model(graph, weights, history=("made",))


def left_of(model: Model, made: Model, layer: str) -> list[int]:
    """The output channels of a layer that are left, by their weights' signs and sizes."""
    whole, part = (one.weights[layer][0] for one in (model, made))
    rows = whole[..., : part.shape[-1]] if whole.shape[-1] != part.shape[-1] else whole
    return [i for i, row in enumerate(rows) if any(np.array_equal(row, other) for other in part)]


@pytest.mark.parametrize("importance", ["l1", "l2"])
def test_the_channels_of_the_smallest_weights_are_cut(importance: str) -> None:
    made = prune(strong(bn=False), ratio=0.34, importance=importance)
    assert widths(made) == {"first": 4, "deep": 4, "second": 3, "head": 3}
    assert left_of(strong(bn=False), made, "first") == [0, 2, 3, 4]
    assert made.history == (
        "made",
        f"pruned by {importance}, uniform: 3 of 10 channels that can be cut, in 2 groups",
    )


def test_scales_of_normalisation_count_and_alone_if_asked() -> None:
    by_weights = prune(strong(), ratio=0.34)
    assert left_of(strong(), by_weights, "first") == [0, 2, 3, 4]
    by_scale = prune(strong(), ratio=0.34, importance="bn_scale")
    assert left_of(strong(), by_scale, "first") == [0, 1, 2, 4]
    with pytest.raises(ConfigError, match=r"the model has none .* choose l1 or l2"):
        prune(strong(bn=False), importance="bn_scale")


def test_globally_groups_of_small_channels_lose_more() -> None:
    model = strong(bn=False)
    made = prune(model, ratio=0.3, scope="global")
    assert widths(made) == {"first": 4, "deep": 4, "second": 3, "head": 3}
    every = prune(model, ratio=0.95, scope="global")
    assert widths(every) == {"first": 1, "deep": 1, "second": 1, "head": 3}
    half = prune(model, ratio=0.95, scope="global", least=0.5)
    assert widths(half) == {"first": 3, "deep": 3, "second": 2, "head": 3}


def test_globally_equal_channels_lose_what_was_asked() -> None:
    model = strong()
    even = replace(model, weights={**model.weights, "bn.scale": (np.ones(6, np.float32),)})
    made = prune(even, ratio=0.5, scope="global", importance="bn_scale")
    assert widths(made) == {"first": 3, "deep": 3, "second": 4, "head": 3}


def test_groups_that_no_scale_is_known_of_stay_whole() -> None:
    made = prune(strong(), ratio=0.5, importance="bn_scale")
    assert widths(made) == {"first": 3, "deep": 3, "second": 4, "head": 3}
    assert made.history[-1].endswith("; 1 groups stay whole, which no batch normalisation follows")


def test_what_cannot_be_cut_says_why() -> None:
    builder = GraphBuilder()
    builder.op("conv", "only", [builder.input("x", (1, 6, 4, 3))], Conv(out=8))
    model = random_model(builder.graph(), np.random.default_rng(0))
    with pytest.raises(ConfigError, match="of layer 'only' stay because only is an output of the"):
        prune(model)


def test_the_lines_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = random_model(lower(ArchSpec.parse(SPEC)), np.random.default_rng(0))
    (tmp_path / "net.onnx").write_bytes(create_format("onnx").write(model))
    page = (ROOT / "docs" / "pruning.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    held: dict[str, Any] = {}
    exec(lines, held)  # noqa: S102  # of our own page
    assert widths(held["pruned"]) != widths(held["model"])
    assert create_format("tflite").describe(held["content"]).outputs


def test_widths_are_multiples_and_kept_layers_stay() -> None:
    model = random_model(lower(ArchSpec.parse(SPEC)), np.random.default_rng(0))
    for group in follow(prune(model, ratio=0.4, multiple=8).graph).groups:
        assert group.width % 8 == 0
    kept = prune(model, ratio=0.5, keep=["blocks.1.*"])
    before = widths(model)
    assert {n: w for n, w in widths(kept).items() if n.startswith("blocks.1.")} == {
        n: w for n, w in before.items() if n.startswith("blocks.1.")
    }
    nothing = prune(model, ratio=0.0)
    assert nothing.digest() == model.digest()
    assert nothing.history[-1].startswith("pruned nothing: ratio 0 of ")
    with pytest.raises(ConfigError, match="no op of the network is named 'nose'"):
        prune(model, keep=["nose"])
    for ratio in (1.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="is not at least 0 and below 1"):
            create("prune", ratio=ratio)


def test_a_model_that_holds_codes_and_one_that_is_damaged_are_refused() -> None:
    coded = replace(strong(), quantization=Quantization({}, number_format=DYNAMIC8))
    with pytest.raises(ConfigError, match="is dynamic8 already; channels are cut before"):
        prune(coded)
    bad = strong(bn=False)
    weights = dict(bad.weights)
    weights["second"] = (np.full_like(weights["second"][0], np.nan), weights["second"][1])
    with pytest.raises(ConfigError, match="layer 'second' has weights that are not finite"):
        prune(replace(bad, weights=weights))


@settings(max_examples=15, deadline=None)
@given(spec=specs())
def test_networks_of_our_spaces_compute_what_they_did_with_zeros(spec: ArchSpec) -> None:
    model = random_model(lower(spec), np.random.default_rng(0))
    channels = follow(model.graph)
    assume(channels.groups)  # a single layer, whose channels are the outputs, has none
    made = prune(model, ratio=0.5, importance="l1")
    scores = score_channels(model, channels, "l1")
    gone = [
        group.ids[place]
        for group, values in zip(channels.groups, scores, strict=True)
        for place in np.lexsort((-np.arange(group.width), values))[
            : group.width - max(round(group.width * 0.5), 1)
        ]
    ]
    x = {
        "input": np.random.default_rng(1).standard_normal((1, *model.graph.image_shape), np.float32)
    }
    expected, found = masked(model, channels, gone, x), referred(made, x)
    for name in model.graph.outputs:
        size = max(float(np.abs(expected[name]).max()), 1.0)
        np.testing.assert_allclose(found[name] / size, expected[name] / size, atol=1e-4)


@pytest.mark.parametrize("file_format", FORMATS.names())
def test_files_of_a_pruned_network_compute_it(file_format: str, tmp_path: Path) -> None:
    spec = ArchSpec.parse(SPEC)
    made = prune(random_model(lower(spec), np.random.default_rng(0)), ratio=0.5, scope="global")
    writer = create_format(file_format)
    target = tmp_path / f"pruned{writer.suffix}"
    x = np.random.default_rng(1).standard_normal((2, 1, 16, 16, 3), np.float32)
    checked = write_checked(writer, made, target, ModelSubject("pruned", made), {"input": x})
    assert checked.beside.outputs[0].error_share < 1e-5


def test_half_the_channels_are_a_quarter_of_the_work() -> None:
    model = random_model(lower(get("mobilenet-v3-small")), np.random.default_rng(0))
    before, after = cost(model.graph), cost(prune(model, multiple=8).graph)
    assert 0.2 < after.macs / before.macs < 0.35
    assert after.params < before.params / 2


def test_what_the_loss_does_not_need_is_cut_whatever_its_weights() -> None:
    """Unit 2 has the largest weights, and nothing reads it: Taylor cuts it, a norm does not."""
    builder, rng = GraphBuilder(), np.random.default_rng(0)
    x = builder.input("x", (1, 5))
    x = builder.op("dense", "hidden", [x], Dense(4), act="relu")
    builder.op("dense", "head", [x], Dense(3))
    graph = builder.graph()
    model = random_model(graph, rng)
    model.weights["hidden"][0][2] *= 10
    model.weights["head"][0][:, 2] = 0
    inputs = {"x": rng.standard_normal((64, 5), np.float32)}
    lessons = Lessons(inputs, rng.integers(3, size=64), Classification())
    step = create("prune", importance="taylor", ratio=0.25)
    assert step.uses == {"ranking"}
    assert create("prune").uses == frozenset()
    found = step.apply(model, Needs(lessons=lessons))
    kept = [0, 1, 3]
    np.testing.assert_array_equal(found.weights["hidden"][0], model.weights["hidden"][0][kept])
    np.testing.assert_array_equal(found.weights["head"][0], model.weights["head"][0][:, kept])
    assert found.history[-1].startswith("pruned by taylor, uniform: 1 of 4 channels")
    by_norm = prune(model, ratio=0.25)
    assert np.abs(by_norm.weights["hidden"][0]).max() == np.abs(model.weights["hidden"][0]).max()
    with pytest.raises(ConfigError, match="prune takes samples to learn from, and there are none"):
        step.apply(model, Needs())
    with pytest.raises(ConfigError, match="by the loss of the truths, and there are none"):
        step.apply(model, Needs(lessons=replace(lessons, truths=None)))


def test_the_terms_are_the_squares_of_weight_times_gradient() -> None:
    """Molchanov et al. 2019, equation 8, of one layer of logits whose gradient is known."""
    builder, rng = GraphBuilder(), np.random.default_rng(0)
    builder.op("dense", "head", [builder.input("x", (1, 5))], Dense(3))
    model = random_model(builder.graph(), rng)
    x, truths = rng.standard_normal((20, 5), np.float32), rng.integers(3, size=20)
    found = taylor_terms(model, Lessons({"x": x}, truths, Classification()))["head"]
    weight, bias = model.weights["head"]
    expected = np.zeros_like(found)
    for rows in (slice(0, 16), slice(16, 20)):
        scores = x[rows] @ weight.T + bias
        shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        gradient = (shares - np.eye(3)[truths[rows]]).T @ x[rows] / len(x[rows])
        expected += np.square(gradient * weight)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
