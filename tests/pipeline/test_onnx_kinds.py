"""ONNX files of every kind of op: in every layout, as codes and real, and with nothing to move."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from models.codes import QParams
from models.execute import execute_all
from models.graph import Graph, GraphBuilder
from models.integer import integer_reals
from models.model import Input, Model, Output, random_model
from models.ops import (
    KINDS,
    Concat,
    Conv,
    Deconv,
    Dense,
    Depthwise,
    Gather,
    LayerNorm,
    Matmul,
    Mean,
    Pad,
    Reduce,
    Reshape,
    Resize,
    Slice,
    Softmax,
    Transpose,
)
from models.window import Window
from pipeline.compress.passes.ptq import calibrate_all
from pipeline.formats import create
from pipeline.formats.api import ExportError
from pipeline.formats.onnx.describe import read_quantization
from pipeline.formats.onnx.run import run_onnx
from pipeline.formats.onnx.write import write_onnx
from tests.op_draws import SEEDS, drawn, modelled, referred

if TYPE_CHECKING:
    from collections.abc import Callable

Arrays = dict[str, np.ndarray[Any, Any]]
FIRST = {3: ("NCL", (0, 1, 3, 2)), 4: ("NCHW", (0, 1, 4, 2, 3))}
"""Rank -> its layout with channels first, and the order of axes of samples (N, *shape)."""


def in_layout(model: Model, *, first: bool) -> Model:
    """The model for users who have everything channels first, or as the graph has it."""

    def layout(rank: int) -> str:
        return FIRST[rank][0] if first and rank in FIRST else ""

    graph = model.graph
    return replace(
        model,
        inputs=tuple(Input(t.name, layout(len(t.shape))) for t in graph.inputs),
        outputs=tuple(Output(name, (), layout(len(graph.shape(name)))) for name in graph.outputs),
    )


def run(content: bytes, inputs: Arrays, *, first: bool) -> Arrays:
    """Run a file on samples (N, …) in the graph's order; return its outputs in that order."""
    given = {}
    for name, value in inputs.items():
        sample = value[:, None]
        order = FIRST.get(value.ndim)
        given[name] = sample.transpose(order[1]) if first and order else sample
    found = {}
    for name, value in run_onnx(content, given).items():
        order = FIRST.get(value.ndim - 1)
        moved = value.transpose(np.argsort(order[1])) if first and order else value
        found[name] = moved[:, 0] if moved.ndim > 1 and moved.shape[1] == 1 else moved
    return found


def written(model: Model) -> bytes | None:
    """The file; None of a pool that onnxruntime refuses."""
    op = model.graph.output
    if op.kind in ("maxpool", "avgpool"):
        (height, width), (top, bottom, left, right) = op.attributes.kernel, op.attributes.padding
        if max(top, bottom) >= height or max(left, right) >= width:
            with pytest.raises(ExportError, match="which onnxruntime refuses"):
                write_onnx(model)
            return None
    return write_onnx(model)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_computes_the_reference_in_every_layout(
    kind: str,
    seed: int,
    first: bool,  # noqa: FBT001
) -> None:
    model, inputs = modelled(drawn(kind, seed))
    content = written(in_layout(model, first=first))
    if content is None:
        return
    found = run(content, inputs, first=first)
    for name, value in referred(model, inputs).items():
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype)
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_computes_its_codes(kind: str, seed: int) -> None:
    model, inputs = modelled(drawn(kind, seed))
    calibrated = calibrate_all(model, inputs)
    scales = calibrated.quantization
    assert scales is not None
    content = written(in_layout(calibrated, first=False))
    if content is None:
        return
    found = run(content, inputs, first=False)
    for name, value in integer_reals(calibrated, inputs).items():
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype)
        if name in scales.tensors:
            steps = np.abs(found[name] - value) / scales[name].scale
            assert steps.max(initial=0) <= 2.01
        else:
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)


def classifier(builder: GraphBuilder) -> tuple[str, ...]:
    """Convolutions, a pool, a flatten before dense, as VGG's."""
    x = builder.op("conv", "stem", [builder.input("x", (1, 9, 13, 3))], Conv(out=6), act="relu")
    x = builder.op("maxpool", "pool", [x], Window(kernel=(2, 2), stride=(2, 2)))
    x = builder.op("reshape", "flat", [x], Reshape((1, 4 * 6 * 6)))
    x = builder.op("act", "tanh", [x], act="tanh")
    x = builder.op("dense", "hidden", [x], Dense(7), act="relu")
    return (builder.op("dense", "scores", [x], Dense(4)),)


def unet(builder: GraphBuilder) -> tuple[str, ...]:
    """A map out of a map: pools, transposed convolution, resize, concat, pad, softmax."""
    x = builder.op("conv", "down", [builder.input("x", (1, 8, 12, 3))], Conv(out=4), act="relu")
    low = builder.op("maxpool", "pool", [x], Window(kernel=(2, 2), stride=(2, 2)))
    low = builder.op("conv", "bottom", [low], Conv(out=8), act="relu6")
    window = {"kernel": (2, 2), "stride": (2, 2)}
    up = builder.op("deconv", "up", [low], Deconv(out=4, **window))
    both = builder.op("concat", "both", [x, up, x], Concat(3))
    gain = builder.constant("gain", (1, 1, 1, 12))
    scaled = builder.op("mul", "scaled", [both, gain])
    padded = builder.op("pad", "padded", [scaled], Pad(((0, 0), (1, 0), (0, 2), (0, 0))))
    large = builder.op("resize", "large", [padded], Resize((18, 28), "bilinear"))
    part = builder.op("slice", "part", [large], Slice((0, 1, 2, 0), (1, 17, 26, 9), (1, 1, 1, 1)))
    classes = builder.op("conv", "classes", [part], Conv(out=5))
    return (builder.op("softmax", "shares", [classes], Softmax(3)),)


def shuffle(builder: GraphBuilder) -> tuple[str, ...]:
    """Channels shuffled between grouped convolutions, as ShuffleNet's."""
    x = builder.op("conv", "one", [builder.input("x", (1, 5, 7, 6))], Conv(out=12, groups=2))
    x = builder.op("reshape", "groups", [x], Reshape((1, 5, 7, 2, 6)))
    x = builder.op("transpose", "turned", [x], Transpose((0, 1, 2, 4, 3)))
    x = builder.op("reshape", "mixed", [x], Reshape((1, 5, 7, 12)))
    x = builder.op("conv", "two", [x], Conv(out=12, groups=3))
    return (builder.op("reduce", "scores", [x], Reduce("mean", (1, 2), keepdims=False)),)


def split(builder: GraphBuilder) -> tuple[str, ...]:
    """Shuffled channels cut in halves, of which one is a gate, and flattened."""
    x = builder.op("conv", "one", [builder.input("x", (1, 5, 7, 6))], Conv(out=12, groups=2))
    x = builder.op("reshape", "groups", [x], Reshape((1, 5, 7, 2, 6)))
    x = builder.op("transpose", "turned", [x], Transpose((0, 1, 2, 4, 3)))
    x = builder.op("reshape", "mixed", [x], Reshape((1, 5, 7, 12)))
    ends = ((0, 6), (6, 12))
    halves = [
        builder.op("slice", f"half{low}", [x], Slice((0, 0, 0, low), (1, 5, 7, high), (1,) * 4))
        for low, high in ends
    ]
    gate = builder.op("act", "gate", [halves[1]], act="sigmoid")
    same = {"kernel": (3, 3), "padding": (1, 1, 1, 1)}
    deep = builder.op("depthwise", "deep", [x], Depthwise(**same))
    deep = builder.op("slice", "part", [deep], Slice((0, 0, 0, 0), (1, 5, 7, 6), (1,) * 4))
    gated = builder.op("mul", "gated", [deep, gate])
    both = builder.op("concat", "both", [halves[0], gated], Concat(3))
    x = builder.op("conv", "two", [both], Conv(out=4))
    x = builder.op("reshape", "flat", [x], Reshape((1, 140)))
    return (builder.op("dense", "scores", [x], Dense(4)),)


def detector(builder: GraphBuilder) -> tuple[str, ...]:
    """Two heads whose places are put into one list."""
    x = builder.op("conv", "stem", [builder.input("x", (1, 8, 12, 3))], Conv(out=6), act="relu")
    small = builder.op("maxpool", "pool", [x], Window(kernel=(2, 2), stride=(2, 2)))
    heads = []
    for name, source, places in (("fine", x, 96), ("coarse", small, 24)):
        head = builder.op("conv", name, [source], Conv(out=10))
        heads.append(builder.op("reshape", f"{name}.list", [head], Reshape((1, 2 * places, 5))))
    every = builder.op("concat", "every", heads, Concat(1))
    boxes = builder.op("slice", "boxes", [every], Slice((0, 0, 0), (1, 240, 4), (1, 1, 1)))
    best = builder.op("reduce", "best", [every], Reduce("max", (2,), keepdims=False))
    return builder.op("reshape", "sides", [boxes], Reshape((1, 960))), best


def sequence(builder: GraphBuilder) -> tuple[str, ...]:
    """1-D convolutions as those of maps of one row, with arithmetic of sequences between."""
    x = builder.input("x", (1, 20, 4))
    for number in range(2):
        x = builder.op("reshape", f"row{number}", [x], Reshape((1, 1, 20, 4)))
        same = {"kernel": (1, 3), "padding": (0, 0, 1, 1)}
        x = builder.op("conv", f"conv{number}", [x], Conv(out=4, **same), act="relu")
        x = builder.op("reshape", f"line{number}", [x], Reshape((1, 20, 4)))
        shift = builder.constant(f"shift{number}", (1, 1, 4))
        x = builder.op("add", f"added{number}", [x, shift])
    return (builder.op("reduce", "scores", [x], Reduce("max", (1,), keepdims=False)),)


def encoder(builder: GraphBuilder) -> tuple[str, ...]:
    """Two tokens' worth of a transformer: attention of three heads, and a mean of the tokens."""
    tokens = builder.input("tokens", (1, 7), "int32")
    table = builder.constant("table", (11, 12))
    x = builder.op("gather", "embedded", [table, tokens], Gather(0))
    scale, shift = builder.constant("scale", (12,)), builder.constant("shift", (12,))
    normal = builder.op("layernorm", "normal", [x, scale, shift], LayerNorm())
    parts = {}
    for name in ("query", "key", "value"):
        part = builder.op("dense", name, [normal], Dense(12))
        part = builder.op("reshape", f"{name}.heads", [part], Reshape((1, 7, 3, 4)))
        order = (0, 2, 3, 1) if name == "key" else (0, 2, 1, 3)
        parts[name] = builder.op("transpose", f"{name}.turned", [part], Transpose(order))
    logits = builder.op("matmul", "logits", [parts["query"], parts["key"]], Matmul())
    shares = builder.op("softmax", "shares", [logits], Softmax(3))
    mixed = builder.op("matmul", "mixed", [shares, parts["value"]], Matmul())
    mixed = builder.op("transpose", "back", [mixed], Transpose((0, 2, 1, 3)))
    mixed = builder.op("reshape", "joined", [mixed], Reshape((1, 7, 12)))
    x = builder.op("add", "sum", [x, builder.op("dense", "out", [mixed], Dense(12))])
    hidden = builder.op("dense", "hidden", [x], Dense(24))
    hidden = builder.op("act", "gelu", [hidden], act="gelu")
    pooled = builder.op("reduce", "pooled", [hidden], Reduce("mean", (1,), keepdims=False))
    return (builder.op("dense", "scores", [pooled], Dense(4)),)


NETS: dict[str, tuple[Callable[[GraphBuilder], tuple[str, ...]], int]] = {
    "classifier": (classifier, 0),
    "unet": (unet, 0),
    "shuffle": (shuffle, 1),
    "split": (split, 1),
    "detector": (detector, 2),
    "sequence": (sequence, 0),
    "encoder": (encoder, 4),
}
"""Net -> what adds its ops, and how many transpositions torch's export of it has."""


def net(name: str) -> tuple[Model, Arrays]:
    """A net with random weights, for users who have it channels first, and samples for it."""
    builder, rng = GraphBuilder(), np.random.default_rng(0)
    outputs = NETS[name][0](builder)
    graph: Graph = builder.graph(*outputs)
    inputs = {
        tensor.name: (
            rng.integers(0, 11, (3, *tensor.shape[1:])).astype(tensor.dtype)
            if tensor.dtype == "int32"
            else rng.standard_normal((3, *tensor.shape[1:]), np.float32)
        )
        for tensor in graph.inputs
    }
    return in_layout(random_model(graph, rng), first=True), inputs


def kinds(content: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(content).graph.node)


@pytest.mark.parametrize("name", NETS)
def test_values_are_moved_no_more_than_in_the_original(name: str) -> None:
    model, inputs = net(name)
    for quantized in (False, True):
        given = calibrate_all(model, inputs) if quantized else model
        assert kinds(write_onnx(given))["Transpose"] == NETS[name][1]
        content = create("onnx").write(given)
        assert kinds(content)["Transpose"] == NETS[name][1]
        found = run(content, inputs, first=True)
        expected = integer_reals(given, inputs) if quantized else execute_all(model, inputs)
        for output, value in expected.items():
            error = np.sqrt(np.mean((found[output] - value) ** 2))
            assert error <= (0.01 if quantized else 1e-6) * np.abs(value).max()
        assert given.graph.outputs == tuple(found)


def test_scales_of_tensors_that_are_only_moved_are_read_back() -> None:
    model, inputs = net("shuffle")
    scales = calibrate_all(model, inputs).quantization
    assert scales is not None
    content = write_onnx(replace(model, quantization=scales))
    found = read_quantization(content, model.graph)
    assert found is not None
    assert found.tensors == scales.tensors


def test_a_tensor_is_moved_once_for_all_its_readers() -> None:
    builder = GraphBuilder()
    x = builder.op("conv", "conv", [builder.input("x", (1, 5, 7, 6))], Conv(out=8))
    rows = [builder.op("reshape", f"list{n}", [x], Reshape((1, 35, 8))) for n in range(3)]
    made = [builder.op("dense", f"dense{n}", [row], Dense(n + 2)) for n, row in enumerate(rows)]
    model = random_model(builder.graph(*made), np.random.default_rng(0))
    assert kinds(write_onnx(model)) == {
        "Conv": 1,
        "Transpose": 1,
        "Reshape": 1,
        "MatMul": 3,
        "Add": 3,
    }


def test_what_no_output_is_made_of_is_not_written() -> None:
    builder = GraphBuilder()
    x = builder.op("conv", "conv", [builder.input("x", (1, 5, 7, 6))], Conv(out=8))
    builder.op("conv", "idle", [x], Conv(out=3))
    model = random_model(builder.graph(x), np.random.default_rng(0))
    sample = {"x": np.random.default_rng(1).standard_normal((2, 5, 7, 6), np.float32)}
    for given in (model, calibrate_all(model, sample)):
        assert kinds(create("onnx").write(in_layout(given, first=True)))["Conv"] == 1


def test_outputs_that_nothing_computes_are_named_all_the_same() -> None:
    builder = GraphBuilder()
    x = builder.op("conv", "conv", [builder.input("x", (1, 5, 7, 6))], Conv(out=8))
    same = builder.op("reshape", "same", [x], Reshape((1, 5, 7, 8)))
    turned = builder.op("transpose", "turned", [x], Transpose((0, 3, 1, 2)))
    given = builder.op("transpose", "given", ["x"], Transpose((0, 3, 1, 2)))
    model = random_model(builder.graph(x, same, turned, given), np.random.default_rng(0))
    model = in_layout(model, first=False)
    model = replace(model, inputs=(Input("x", "NCHW"),), outputs=tuple(map(Output, "abcd")))
    sample = np.random.default_rng(1).standard_normal((1, 5, 7, 6), np.float32)
    found = run_onnx(write_onnx(model), {"x": sample.transpose(0, 3, 1, 2)[None]})
    for end, value in zip("abcd", execute_all(model, {"x": sample}).values(), strict=True):
        np.testing.assert_allclose(found[end][0], value, rtol=1e-5, atol=1e-5)
    assert kinds(write_onnx(model))["Transpose"] == 1


def test_a_network_may_be_codes_in_part() -> None:
    model, inputs = net("unet")
    calibrated = calibrate_all(model, inputs)
    scales = calibrated.quantization
    assert scales is not None
    for real in ({"up"}, {"both", "scaled"}, {"down", "classes", "shares"}, {"padded"}):
        mixed = replace(calibrated, quantization=replace(scales, float_ops=scales.float_ops | real))
        found = run(write_onnx(mixed), inputs, first=True)
        for output, value in integer_reals(mixed, inputs).items():
            error = np.sqrt(np.mean((found[output] - value) ** 2))
            assert error <= 0.01 * np.abs(value).max()


def test_names_of_others_do_not_meet_a_writers_own() -> None:
    builder = GraphBuilder()
    names = ["conv.weight", "conv.relu", "conv.bias", "constant.6", "conv.code", "conv.scale"]
    x = builder.op("conv", "conv", [builder.input("x", (1, 5, 7, 6))], Conv(out=6), act="relu")
    for name in names:
        x = builder.op("conv", name, [x], Conv(out=6), act="relu6")
    model = random_model(builder.graph(), np.random.default_rng(0))
    sample = {"x": np.random.default_rng(1).standard_normal((2, 5, 7, 6), np.float32)}
    for given in (model, calibrate_all(model, sample)):
        content = write_onnx(in_layout(given, first=True))
        found = run(content, sample, first=True)
        compute = execute_all if given.quantization is None else integer_reals
        expected = compute(given, sample)
        np.testing.assert_allclose(found["conv.scale"], expected["conv.scale"], atol=0.02)


@pytest.mark.parametrize("kind", ["conv", "depthwise", "deconv", "dense"])
def test_a_real_layer_between_codes_keeps_its_real_weights(kind: str) -> None:
    """Weights that int8 with one scale would lose: the channels differ by a thousand."""
    builder = GraphBuilder()
    x = builder.op("conv", "before", [builder.input("x", (1, 6, 8, 5))], Conv(out=6), act="relu")
    if kind == "dense":
        x = builder.op("mean", "pool", [x], Mean(keepdims=False))
    attributes = {
        "conv": Conv(out=6),
        "depthwise": Depthwise(kernel=(2, 2)),
        "deconv": Deconv(out=6, kernel=(2, 2), stride=(2, 2)),
        "dense": Dense(6),
    }[kind]
    x = builder.op(kind, "real", [x], attributes, act="relu")
    after = Dense(4) if kind == "dense" else Conv(out=4)
    builder.op("dense" if kind == "dense" else "conv", "after", [x], after)
    rng = np.random.default_rng(0)
    model = in_layout(random_model(builder.graph(), rng), first=True)
    weight, bias = model.weights["real"]
    channels = np.logspace(-3, 0, 6, dtype=np.float32)
    axes = [1] * weight.ndim
    axes[model.graph["real"].layer.channel_axis] = -1
    weights = {**model.weights, "real": (weight * channels.reshape(axes), bias * channels)}
    later = weights["after"][0] / channels  # all of them count
    weights["after"] = (later.astype(np.float32), weights["after"][1])
    inputs = {"x": rng.standard_normal((3, 6, 8, 5), np.float32)}
    model = replace(model, weights=weights)
    calibrated = calibrate_all(model, inputs)
    scales = calibrated.quantization
    assert scales is not None
    names = {name: scales.tensors[name] for name in scales.tensors}
    names["real"] = QParams(names["real"].scale / 500, -128)
    mixed = replace(
        calibrated,
        quantization=replace(scales, tensors=names, float_ops=frozenset({"real"})),
    )
    found, expected = run(write_onnx(mixed), inputs, first=True), integer_reals(mixed, inputs)
    steps = np.abs(found["after"] - expected["after"]) / scales["after"].scale
    assert steps.max() <= 1.01
