from __future__ import annotations

from math import prod

import pytest
from hypothesis import given

from models.cost import cost
from models.lower import lower
from models.spec import ArchSpec
from tests.spec_strategies import REPLAY, specs

SKIP = ArchSpec.parse("4x4x1:same:conv_k3_s1_o2:mb_k3_s1_m4_o2_skip:fc3")


def test_counts_by_hand() -> None:
    counted = cost(SKIP)
    assert {item.name: (item.macs, item.params) for item in counted.per_op} == {
        "blocks.0.conv": (16 * 9 * 2, 9 * 2 + 4),
        "blocks.1.expand": (16 * 2 * 4, 2 * 4 + 8),
        "blocks.1.depthwise": (16 * 9 * 4, 9 * 4 + 8),
        "blocks.1.project": (16 * 4 * 2, 4 * 2 + 4),
        "blocks.1.add": (0, 0),
        "pool": (0, 0),
        "dense.0": (2 * 3, 2 * 3 + 3),
    }
    assert counted.macs == 288 + 128 + 576 + 128 + 6
    assert counted.params == 22 + 16 + 44 + 12 + 9
    assert counted.se_macs == 0


def test_squeeze_excite_is_counted_apart_and_has_biases() -> None:
    plain = cost(ArchSpec.parse("4x4x8:same:conv_k1_s1_o8:fc3"))
    squeezed = cost(ArchSpec.parse("4x4x8:same:conv_k1_s1_o8_se2-relu-sigmoid:fc3"))
    assert squeezed.se_macs == 2 * 8 * 2
    assert squeezed.macs == plain.macs
    assert squeezed.params - plain.params == (8 * 2 + 2) + (2 * 8 + 8)


def test_peak_holds_the_skipped_tensor() -> None:
    # While the depthwise op runs: its input 64, its output 64, and 32 that the add will read.
    assert cost(SKIP, bytes_per_element=1).peak_activation_bytes == 160
    assert cost(SKIP).peak_activation_bytes == 640
    without = ArchSpec.parse(str(SKIP).replace("_skip", ""))
    assert cost(without, bytes_per_element=1).peak_activation_bytes == 128


def test_peak_counts_a_tensor_that_is_read_twice_once() -> None:
    # Input 32 and output 32 of the pooling; the block's own result 32 waits for the add.
    spec = ArchSpec.parse("4x4x2:same:conv_k1_s1_o2_poolskip:fc3")
    assert cost(spec, bytes_per_element=1).peak_activation_bytes == 96


@REPLAY
@given(specs())
def test_invariants(spec: ArchSpec) -> None:
    counted, graph = cost(spec), lower(spec)
    assert counted == cost(graph)
    assert counted.macs + counted.se_macs == sum(item.macs for item in counted.per_op)
    assert [item.name for item in counted.per_op] == [op.name for op in graph.ops]
    floor = max(sum(map(prod, op.in_shapes)) + prod(op.out_shape) for op in graph.ops)
    assert counted.peak_activation_bytes >= 4 * floor
    assert (
        counted.peak_activation_bytes == 4 * cost(spec, bytes_per_element=1).peak_activation_bytes
    )


@pytest.mark.parametrize("resolution", [96, 192])
def test_convolutions_scale_with_the_area(resolution: int) -> None:
    spec = ArchSpec.parse("32x32x3:same:conv_k3_s2_o16:mb_k3_s1_m32_o16_skip:fc10")
    base, big = cost(spec), cost(spec.with_input(resolution, resolution, 3))
    dense = 16 * 10
    assert (big.macs - dense) * 32**2 == (base.macs - dense) * resolution**2
    assert big.params == base.params
