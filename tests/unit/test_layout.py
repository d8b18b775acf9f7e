"""Settling layouts never changes what a network computes, and leaves few transposes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codes import QParams, quantize_layer
from models.graph import GraphBuilder
from models.layout import settle
from models.model import Input, Model, Output
from models.ops import (
    Arg,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    LayerNorm,
    LeakyRelu,
    Matmul,
    Pad,
    Reduce,
    Reshape,
    Slice,
    Softmax,
    Tile,
    Transpose,
)
from models.quantization import Quantization
from models.window import Window
from tests.random_graphs import TO_FIRST, TO_LAST, RandomNetwork, run

if TYPE_CHECKING:
    from random import Random

Array = np.ndarray[Any, Any]
PERMUTATIONS = {"NCHW": TO_LAST, "NCL": (0, 2, 1)}


def random_inputs(model: Model, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        tensor.name: rng.standard_normal(tensor.shape).astype(np.float32)
        for tensor in model.graph.inputs
    }


def run_settled(settled: Model, inputs: dict[str, Array]) -> list[Array]:
    """Run it as its user would: ends that are said to be channels-first are turned."""
    given_inputs = {}
    for tensor, end in zip(settled.graph.inputs, settled.inputs, strict=True):
        value = inputs[tensor.name]
        given_inputs[tensor.name] = (
            value.transpose(PERMUTATIONS[end.layout]) if end.layout else value
        )
    found = []
    for value, end in zip(run(settled, given_inputs), settled.outputs, strict=True):
        back = {"NCHW": TO_FIRST, "NCL": (0, 2, 1)}
        found.append(value.transpose(back[end.layout]) if end.layout else value)
    return found


def check_same(model: Model, settled: Model, seed: int = 0) -> None:
    inputs = random_inputs(model, seed)
    pairs = zip(run(model, inputs), run_settled(settled, inputs), strict=True)
    for wanted, found in pairs:
        assert wanted.shape == found.shape
        assert wanted.dtype == found.dtype
        scale = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(found / scale, wanted / scale, atol=2e-4)


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 14))
def test_settling_never_changes_what_a_network_computes(rng: Random, ops: int) -> None:
    model = RandomNetwork(rng).model(ops)
    settled = settle(model)
    check_same(model, settled)


class Network:
    """Builds a channels-first network of an image (1, 3, 9, 6) as readers do."""

    def __init__(self, *shape: int) -> None:
        self.builder = GraphBuilder()
        self.rng = np.random.default_rng(3)
        self.weights: dict[str, tuple[Array, ...]] = {}
        self.x = self.builder.input("x", shape or (1, 3, 9, 6))

    def op(self, kind: str, *inputs: str, attributes: Any = None, act: str = "none") -> str:
        name = f"{kind}{len(self.builder.ops)}"
        self.builder.op(kind, name, inputs, attributes, act=act)
        if self.builder.ops[-1].has_weights:
            weight = self.rng.standard_normal(self.builder.ops[-1].weight_shape) / 4
            bias = self.rng.standard_normal(self.builder.shapes[name][-1])
            self.weights[name] = (weight.astype(np.float32), bias.astype(np.float32))
        return name

    def constant(self, *shape: int) -> str:
        name = self.builder.constant(f"c{len(self.weights)}", shape)
        self.weights[name] = (self.rng.standard_normal(shape).astype(np.float32),)
        return name

    def on_map(self, kind: str, x: str, attributes: Any) -> str:
        last = self.op("transpose", x, attributes=Transpose(TO_LAST))
        made = self.op(kind, last, attributes=attributes)
        return self.op("transpose", made, attributes=Transpose(TO_FIRST))

    def conv(self, x: str, out: int = 8, side: int = 3) -> str:
        margin = side // 2
        return self.on_map("conv", x, Conv(kernel=(side, side), padding=(margin,) * 4, out=out))

    def conv_1d(self, x: str, out: int = 8) -> str:
        _, channels, length = self.builder.shapes[x]
        last = self.op("transpose", x, attributes=Transpose((0, 2, 1)))
        flat = self.reshape(last, 1, 1, length, channels)
        made = self.op("conv", flat, attributes=Conv(kernel=(1, 3), padding=(0, 0, 1, 1), out=out))
        back = self.reshape(made, 1, length, out)
        return self.op("transpose", back, attributes=Transpose((0, 2, 1)))

    def relu(self, x: str) -> str:
        return self.op("act", x, act="relu")

    def mean(self, x: str, *, keepdims: bool) -> str:
        return self.op("reduce", x, attributes=Reduce("mean", (2, 3), keepdims))

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("reshape", x, attributes=Reshape(shape))

    def transpose(self, x: str, *order: int) -> str:
        return self.op("transpose", x, attributes=Transpose(order))

    def dense(self, x: str, units: int) -> str:
        return self.op("dense", x, attributes=Dense(units))

    def settled(self, *outputs: str) -> tuple[Model, Counter[str]]:
        """Settle it, see that it computes the same, and count what it has."""
        graph = self.builder.graph(*outputs)
        inputs = tuple(Input(tensor.name, layout="") for tensor in graph.inputs)
        ends = tuple(Output(name) for name in graph.outputs)
        model = Model(graph, self.weights, inputs=inputs, outputs=ends)
        settled = settle(model)
        check_same(model, settled)
        return settled, Counter(op.kind for op in settled.graph.ops)


def test_a_cnn_has_no_transpose_and_its_input_is_said_to_be_channels_first() -> None:
    net = Network()
    x = net.relu(net.conv(net.x))
    y = net.op("add", net.relu(net.conv(x)), x)
    y = net.op("mul", y, net.constant(1, 8, 1, 1))
    y = net.on_map("maxpool", y, Window(kernel=(2, 2), stride=(2, 2)))
    settled, found = net.settled(net.dense(net.mean(y, keepdims=False), 5))
    assert not found["transpose"]
    assert not found["reshape"]
    assert found["mean"] == 1
    assert settled.inputs[0].layout == "NCHW"
    assert settled.graph.inputs[0].shape == (1, 9, 6, 3)
    assert settled.outputs[0].layout == ""


def test_a_map_that_comes_out_is_said_to_be_channels_first() -> None:
    net = Network()
    settled, found = net.settled(net.conv(net.x))
    assert found == {"conv": 1}
    assert settled.outputs[0].layout == "NCHW"
    assert settled.graph.shape(settled.graph.outputs[0]) == (1, 9, 6, 8)


def test_an_end_whose_layout_is_said_stays_as_it_is() -> None:
    net = Network()
    graph = net.builder.graph(net.conv(net.x))
    model = Model(graph, net.weights, inputs=(Input("x", layout="NHWC"),))
    settled = settle(model)
    assert settled.graph.inputs == graph.inputs
    assert settled.inputs[0].layout == "NHWC"


@pytest.mark.parametrize("between", ["nothing", "relu", "batchnorm", "prelu"])
def test_a_map_flattened_before_dense_moves_its_weights(between: str) -> None:
    net = Network()
    x = net.reshape(net.conv(net.x), 1, 8 * 9 * 6)
    if between == "relu":
        x = net.relu(x)
    if between == "batchnorm":
        parameters = [net.constant(8 * 9 * 6) for _ in range(3)]
        variance = net.constant(8 * 9 * 6)
        net.weights[variance] = (abs(net.weights[variance][0]) + 1,)
        x = net.op("batchnorm", x, *parameters, variance, attributes=BatchNorm())
    if between == "prelu":
        x = net.op("prelu", x, net.constant(1, 8 * 9 * 6))
    _, found = net.settled(net.dense(x, 5), net.dense(x, 3))
    assert not found["transpose"]


def test_two_flattened_maps_put_together_before_dense_move_its_weights() -> None:
    net = Network()
    x = net.conv(net.x)
    flat = [net.reshape(x, 1, 432), net.reshape(net.conv(x, 2), 1, 108), net.reshape(net.x, 1, 162)]
    joined = net.op("concat", *flat, attributes=Concat(1))
    _, found = net.settled(net.dense(joined, 5))
    assert not found["transpose"]


def test_a_map_flattened_for_something_else_keeps_its_transpose() -> None:
    net = Network()
    flat = net.reshape(net.conv(net.x), 1, 8 * 9 * 6)
    _, found = net.settled(net.dense(flat, 5), net.relu(flat))
    assert found["transpose"] == 1


def test_a_map_made_by_a_dense_layer_moves_its_weights() -> None:
    net = Network(1, 10)
    x = net.relu(net.dense(net.x, 4 * 3 * 5))
    settled, found = net.settled(net.conv(net.reshape(x, 1, 4, 3, 5)))
    assert not found["transpose"]
    assert settled.outputs[0].layout == "NCHW"


@pytest.mark.parametrize("pooled", ["mean", "pool"])
def test_squeeze_and_excite_leaves_a_reshape_at_most(pooled: str) -> None:
    net = Network()
    x = net.conv(net.x)
    if pooled == "mean":
        y = net.mean(x, keepdims=True)
    else:
        y = net.on_map("avgpool", x, AvgPool(kernel=(9, 6)))
    y = net.reshape(y, 1, 8)
    y = net.op("act", net.dense(net.relu(net.dense(y, 2)), 8), act="sigmoid")
    y = net.op("mul", x, net.reshape(y, 1, 8, 1, 1))
    _, found = net.settled(net.conv(y))
    assert not found["transpose"]
    assert found["reshape"] <= (1 if pooled == "mean" else 2)


def test_squeeze_and_excite_by_convolutions_leaves_nothing() -> None:
    net = Network()
    x = net.conv(net.x)
    y = net.conv(net.relu(net.conv(net.mean(x, keepdims=True), 2, 1)), 8, 1)
    _, found = net.settled(net.conv(net.op("mul", x, net.op("act", y, act="sigmoid"))))
    assert not found["transpose"]
    assert not found["reshape"]


def test_a_chain_of_1d_convolutions_leaves_reshapes_at_its_ends_only() -> None:
    net = Network(1, 5, 13)
    x = net.relu(net.conv_1d(net.x))
    x = net.op("add", x, net.relu(net.conv_1d(x)))
    x = net.op("leakyrelu", x, attributes=LeakyRelu(0.1))
    settled, found = net.settled(net.conv_1d(net.op("mul", x, net.constant(1, 8, 1))))
    assert not found["transpose"]
    assert found["reshape"] == 2
    assert settled.inputs[0].layout == settled.outputs[0].layout == "NCL"


def test_a_detection_head_that_moves_its_classes_last_needs_no_transpose() -> None:
    net = Network()
    heads = []
    for _ in range(2):
        x = net.transpose(net.conv(net.x, 4 * 7), 0, 2, 3, 1)
        heads.append(net.reshape(x, 1, 9 * 6 * 4, 7))
    joined = net.op("concat", *heads, attributes=Concat(1))
    _, found = net.settled(net.op("softmax", joined, attributes=Softmax(2)))
    assert not found["transpose"]


def test_a_detection_head_with_anchors_first_needs_one_transpose() -> None:
    net = Network()
    x = net.reshape(net.conv(net.x, 4 * 7), 1, 4, 7, 9, 6)
    x = net.op("act", net.transpose(x, 0, 1, 3, 4, 2), act="sigmoid")
    _, found = net.settled(net.reshape(x, 1, 4 * 9 * 6, 7))
    assert found["transpose"] == 1


def test_positions_put_together_and_cut_again_need_no_transpose() -> None:
    net = Network()
    x = net.reshape(net.conv(net.x), 1, 8, 9 * 6)
    x = net.op("softmax", net.relu(x), attributes=Softmax(1))
    settled, found = net.settled(net.conv(net.reshape(x, 1, 8, 9, 6)))
    assert not found["transpose"]
    (softmax,) = (op for op in settled.graph.ops if op.kind == "softmax")
    assert softmax.attributes.axis == len(softmax.out_shape) - 1


def test_axes_follow_their_channels() -> None:
    net = Network()
    x, y = net.conv(net.x), net.conv(net.x, 4)
    joined = net.op("concat", x, y, attributes=Concat(1))
    part = net.op("slice", joined, attributes=Slice((0, 3, 0, 1), (1, 9, 9, 6), (1, 2, 1, 1)))
    padded = net.op("pad", part, attributes=Pad(((0, 0), (1, 0), (0, 2), (0, 0))))
    over = net.op("reduce", padded, attributes=Reduce("max", (1,), keepdims=True))
    mixed = net.op("sub", padded, over)
    settled, found = net.settled(net.conv(net.op("softmax", mixed, attributes=Softmax(1))))
    assert not found["transpose"]
    assert settled.graph[joined].attributes == Concat(3)
    assert settled.graph[over].attributes == Reduce("max", (3,), keepdims=True)


def test_a_classification_of_every_position_needs_no_transpose() -> None:
    net = Network()
    found_class = net.op("argmax", net.conv(net.x, 5), attributes=Arg("argmax", 1))
    settled, found = net.settled(found_class)
    assert not found["transpose"]
    assert settled.graph.output.out_shape == (1, 9, 6)
    assert settled.graph.output.out_dtype == "int64"


def test_group_normalisation_of_a_map_needs_no_transpose() -> None:
    net = Network()
    x = net.reshape(net.conv(net.x), 1, 2, 4, 9, 6)
    mean = net.op("reduce", x, attributes=Reduce("mean", (2, 3, 4), keepdims=True))
    x = net.reshape(net.op("sub", x, mean), 1, 8, 9, 6)
    _, found = net.settled(net.conv(net.op("mul", x, net.constant(1, 8, 1, 1))))
    assert not found["transpose"]


def test_inputs_that_are_added_before_a_convolution_come_channels_last_together() -> None:
    net = Network()
    y = net.builder.input("y", (1, 3, 9, 6))
    settled, found = net.settled(net.conv(net.relu(net.op("add", net.relu(net.x), net.relu(y)))))
    assert not found["transpose"]
    assert {end.layout for end in settled.inputs} == {"NCHW"}


def test_attention_turns_its_keys_within_the_product() -> None:
    net = Network(1, 7, 12)
    query, key, value = (
        net.transpose(net.reshape(net.dense(net.x, 12), 1, 7, 3, 4), 0, 2, 1, 3) for _ in range(3)
    )
    scores = net.op("matmul", query, net.transpose(key, 0, 1, 3, 2), attributes=Matmul())
    shares = net.op("softmax", scores, attributes=Softmax(3))
    mixed = net.op("matmul", shares, value, attributes=Matmul())
    out = net.reshape(net.transpose(mixed, 0, 2, 1, 3), 1, 7, 12)
    _, found = net.settled(net.dense(out, 12))
    assert found["transpose"] <= 4


def test_attention_over_the_positions_of_a_map_needs_no_transpose() -> None:
    net = Network()
    query, key, value = (net.reshape(net.conv(net.x, 8, 1), 1, 8, 54) for _ in range(3))
    scores = net.op("matmul", net.transpose(query, 0, 2, 1), key, attributes=Matmul())
    shares = net.op("softmax", scores, attributes=Softmax(2))
    mixed = net.op("matmul", value, net.transpose(shares, 0, 2, 1), attributes=Matmul())
    _, found = net.settled(net.conv(net.reshape(mixed, 1, 8, 9, 6)))
    assert not found["transpose"]


def test_shuffled_channels_need_one_transpose() -> None:
    net = Network()
    x = net.reshape(net.conv(net.x), 1, 2, 4, 9, 6)
    x = net.reshape(net.transpose(x, 0, 2, 1, 3, 4), 1, 8, 9, 6)
    _, found = net.settled(net.conv(x))
    assert found["transpose"] == 1


def test_channels_shuffled_again_and_again_need_one_transpose_each() -> None:
    net = Network()
    x = net.conv(net.x)
    for _ in range(3):
        halves = [
            net.op("slice", x, attributes=Slice((0, at, 0, 0), (1, at + 4, 9, 6), (1, 1, 1, 1)))
            for at in (0, 4)
        ]
        x = net.op("concat", halves[0], net.conv(halves[1], 4), attributes=Concat(1))
        x = net.transpose(net.reshape(x, 1, 2, 4, 9, 6), 0, 2, 1, 3, 4)
        x = net.reshape(x, 1, 8, 9, 6)
    _, found = net.settled(net.mean(x, keepdims=False))
    assert found["transpose"] == 3


def test_an_activation_stays_with_the_op_before() -> None:
    net = Network()
    x = net.relu(net.conv(net.x))
    settled, found = net.settled(net.reshape(net.transpose(x, 0, 3, 1, 2), 1, 6, 8 * 9))
    assert found["transpose"] == 1
    assert [op.kind for op in settled.graph.ops][:2] == ["conv", "act"]


def test_layer_normalisation_of_channels_between_transposes_needs_none() -> None:
    net = Network()
    x = net.transpose(net.conv(net.x), 0, 2, 3, 1)
    parameters = [net.constant(8), net.constant(8)]
    x = net.op("layernorm", x, *parameters, attributes=LayerNorm())
    x = net.dense(net.op("act", net.dense(x, 16), act="gelu"), 8)
    _, found = net.settled(net.conv(net.transpose(x, 0, 3, 1, 2)))
    assert not found["transpose"]


def test_a_transpose_is_pushed_through_what_makes_a_tensor_larger() -> None:
    net = Network()
    x = net.op("tile", net.conv(net.x), attributes=Tile((1, 1, 4, 4)))
    _, found = net.settled(net.conv(net.relu(x)))
    assert not found["transpose"]


def test_the_codes_of_a_quantised_dense_layer_move_with_its_weights() -> None:
    net = Network()
    x = net.conv(net.x)
    y = net.dense(net.reshape(x, 1, 432), 5)
    graph = net.builder.graph(y)
    params = {name: QParams(0.1, 3) for name in graph.tensors}
    codes = quantize_layer(graph[y], *net.weights[y], in_scale=0.1, out_scale=0.1)
    quantization = Quantization(params, weights={y: codes})
    model = Model(graph, net.weights, quantization, (Input("x", layout=""),), (Output("classes"),))
    settled = settle(model)
    assert settled.quantization is not None
    assert set(settled.quantization.tensors) == set(settled.graph.tensors)
    moved = settled.quantization.weights[y]
    again = quantize_layer(settled.graph[y], *settled.weights[y], in_scale=0.1, out_scale=0.1)
    assert moved == again
    assert moved != codes
