from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.activations import FUSED_ACTIVATIONS
from models.graph import INPUT, Graph
from models.lower import lower, window_padding
from models.spec import ArchSpec
from models.window import Window
from tests.spec_strategies import REPLAY, specs

if TYPE_CHECKING:
    from models.ops import Shape


def graph(line: str) -> Graph:
    return lower(ArchSpec.parse(line))


def test_block_becomes_named_ops() -> None:
    ops = graph(
        "8x8x3:same:conv_k3_s2_o4:mb_k5_s1_m8_o4_hardswish_se2-relu-hardsigmoid_skip:fc6_silu:fc5"
    ).ops
    assert [(op.kind, op.name, op.inputs, op.out_shape, op.act) for op in ops] == [
        ("conv", "blocks.0.conv", ("input",), (1, 4, 4, 4), "relu6"),
        ("conv", "blocks.1.expand", ("blocks.0.conv",), (1, 4, 4, 8), "none"),
        ("act", "blocks.1.expand.act", ("blocks.1.expand",), (1, 4, 4, 8), "hardswish"),
        ("depthwise", "blocks.1.depthwise", ("blocks.1.expand.act",), (1, 4, 4, 8), "none"),
        ("act", "blocks.1.depthwise.act", ("blocks.1.depthwise",), (1, 4, 4, 8), "hardswish"),
        ("mean", "blocks.1.se.pool", ("blocks.1.depthwise.act",), (1, 1, 1, 8), "none"),
        ("conv", "blocks.1.se.reduce", ("blocks.1.se.pool",), (1, 1, 1, 2), "relu"),
        ("conv", "blocks.1.se.expand", ("blocks.1.se.reduce",), (1, 1, 1, 8), "none"),
        ("act", "blocks.1.se.expand.act", ("blocks.1.se.expand",), (1, 1, 1, 8), "hardsigmoid"),
        (
            *("mul", "blocks.1.se.scale", ("blocks.1.depthwise.act", "blocks.1.se.expand.act")),
            *((1, 4, 4, 8), "none"),
        ),
        ("conv", "blocks.1.project", ("blocks.1.se.scale",), (1, 4, 4, 4), "none"),
        ("add", "blocks.1.add", ("blocks.0.conv", "blocks.1.project"), (1, 4, 4, 4), "none"),
        ("mean", "pool", ("blocks.1.add",), (1, 4), "none"),
        ("dense", "dense.0", ("pool",), (1, 6), "none"),
        ("act", "dense.0.act", ("dense.0",), (1, 6), "silu"),
        ("dense", "dense.1", ("dense.0.act",), (1, 5), "none"),
    ]


def test_pool_skip_and_separable() -> None:
    lowered = graph("8x8x4:same:ds_k3_s1_o4_relu_poolskip:fc2")
    assert [op.name for op in lowered.ops[:4]] == [
        "blocks.0.depthwise",
        "blocks.0.project",
        "blocks.0.pool",
        "blocks.0.add",
    ]
    pool = lowered["blocks.0.pool"]
    assert (pool.kind, pool.attributes) == ("maxpool", Window(kernel=(3, 3), padding=(1, 1, 1, 1)))
    assert pool.inputs == (INPUT,)
    assert lowered["blocks.0.project"].act == "relu"


def test_weight_shapes_are_those_of_tflite() -> None:
    lowered = graph("8x8x3:same:conv_k3_s1_o4:mb_k5_s1_m8_o6:fc5")
    shapes = {op.name: op.weight_shape for op in lowered.ops if op.has_weights}
    assert shapes == {
        "blocks.0.conv": (4, 3, 3, 3),
        "blocks.1.expand": (8, 1, 1, 4),
        "blocks.1.depthwise": (1, 5, 5, 8),
        "blocks.1.project": (6, 1, 1, 8),
        "dense.0": (5, 6),
    }


@REPLAY
@given(st.integers(1, 64), st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 2]))
def test_same_padding_covers_the_input_with_the_odd_zero_after(
    size: int, kernel: int, stride: int
) -> None:
    before, after = window_padding(size, kernel, stride, "same")
    out = (size + before + after - kernel) // stride + 1
    assert out == -(-size // stride)
    assert after - before in (0, 1)
    # The last window ends at the last zero, or windows fit without any.
    assert (out - 1) * stride + kernel == size + before + after or (before, after) == (0, 0)


@REPLAY
@given(st.integers(1, 64), st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 2]))
def test_symmetric_padding_is_torchs(size: int, kernel: int, stride: int) -> None:
    assert window_padding(size, kernel, stride, "symmetric") == (kernel // 2, kernel // 2)


@pytest.mark.parametrize(
    ("line", "padding"),
    [
        ("8x9x1:same:conv_k3_s2_o4:fc2", (0, 1, 1, 1)),
        ("8x9x1:same:conv_k5_s2_o4:fc2", (1, 2, 2, 2)),
        ("8x8x1:same:conv_k7_s2_o4:fc2", (2, 3, 2, 3)),
        ("8x9x1:same:conv_k3_s1_o4:fc2", (1, 1, 1, 1)),
        ("8x8x1:same:conv_k1_s2_o4:fc2", (0, 0, 0, 0)),
        ("8x9x1:symmetric:conv_k3_s2_o4:fc2", (1, 1, 1, 1)),
    ],
)
def test_padding_of_an_op(line: str, padding: tuple[int, ...]) -> None:
    assert graph(line)["blocks.0.conv"].attributes.padding == padding


@REPLAY
@given(specs())
def test_every_graph_is_consistent(spec: ArchSpec) -> None:
    lowered = lower(spec)
    shapes: dict[str, Shape] = {INPUT: (1, *spec.input)}
    for op in lowered.ops:
        assert op.name not in shapes
        assert op.in_shapes == tuple(shapes[name] for name in op.inputs)
        assert min(op.out_shape) > 0
        assert op.act in FUSED_ACTIVATIONS or op.kind == "act"
        shapes[op.name] = op.out_shape
        if op.kind in ("add", "act", "maxpool"):
            assert set(op.in_shapes) == {op.out_shape}
        if op.kind == "mul":
            assert op.in_shapes == (op.out_shape, (1, 1, 1, op.out_shape[-1]))
    assert lowered.output.out_shape == (1, spec.classes)
    assert {name: lowered.shape(name) for name in shapes} == shapes
    # Nothing is computed for nobody.
    assert set(lowered.readers()) == set(shapes)


def test_key_depends_on_what_costs_and_on_nothing_else() -> None:
    first = graph("8x8x3:same:conv_k3_s1_o4:conv_k3_s1_o4:conv_k3_s1_o4:fc5")
    keys = [op.key for op in first.ops]
    assert keys[1] == keys[2] != keys[0]
    assert keys[1] == "conv:8x8x4->8x8x4:k3s1p1.1.1.1:relu6"
    wide = graph("8x8x3:same:conv_k3_s2_o4:fc5").ops[0].key
    symmetric = graph("8x8x3:symmetric:conv_k3_s2_o4:fc5").ops[0].key
    relu = graph("8x8x3:same:conv_k3_s2_o4_relu:fc5").ops[0].key
    assert len({wide, symmetric, relu, keys[0]}) == 4


def test_digest_is_of_the_computation_not_of_the_description() -> None:
    # At stride 1 the two padding rules are the same computation.
    same, symmetric = (graph(f"8x8x3:{p}:conv_k3_s1_o4:fc5") for p in ("same", "symmetric"))
    assert same.digest() == symmetric.digest()
    assert same.digest() != graph("8x8x3:same:conv_k3_s2_o4:fc5").digest()
    plain, skip = (graph(f"8x8x4:same:conv_k3_s1_o4{s}:fc5") for s in ("", "_skip"))
    assert plain.digest() != skip.digest()


def test_unknown_op_is_a_key_error() -> None:
    with pytest.raises(KeyError, match=r"blocks\.9"):
        graph("8x8x3:same:fc5")["blocks.9"]
