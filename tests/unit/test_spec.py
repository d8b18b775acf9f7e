from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from device_agents.errors import ConfigError
from models.spec import ArchSpec, Block, Dense, SpecError, SqueezeExcite
from tests.spec_strategies import REPLAY, specs

LINE = (
    "32x32x1:same:conv_k3_s1_o16:ds_k3_s2_o24:"
    "mb_k3_s1_m48_o24_hardswish_se6-relu-sigmoid_skip:conv_k1_s1_o128:fc32_relu:fc10"
)
SPEC = ArchSpec(
    (32, 32, 1),
    (
        Block("conv", 3, 1, 16),
        Block("ds", 3, 2, 24),
        Block("mb", 3, 1, 24, 48, "hardswish", SqueezeExcite(6), "identity"),
        Block("conv", 1, 1, 128),
    ),
    (Dense(32, "relu"), Dense(10)),
)


def test_line_reads_as_documented() -> None:
    assert ArchSpec.parse(LINE) == SPEC
    assert str(SPEC) == LINE


@REPLAY
@given(specs())
def test_line_round_trip(spec: ArchSpec) -> None:
    line = str(spec)
    assert ArchSpec.parse(line) == spec
    assert line.isascii()
    assert not set(line) & set(" \t\n'\"$`\\*?;&|<>(){}[]!#~")


@REPLAY
@given(specs())
def test_json_round_trip(spec: ArchSpec) -> None:
    again = ArchSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.digest() == spec.digest()


def test_digest_never_changes() -> None:
    # Stores are keyed by it: a change here orphans every record that a user has.
    assert SPEC.digest() == "68a03694f742f710"
    code = f"from models.spec import ArchSpec; print(ArchSpec.parse({LINE!r}).digest())"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert other.stdout.strip() == SPEC.digest()


def test_digest_sees_every_field() -> None:
    lines = [
        LINE,
        LINE.replace("same", "symmetric"),
        LINE.replace("32x32", "32x31"),
        LINE.replace("k3_s1_m48", "k5_s1_m48"),
        LINE.replace("m48", "m49"),
        LINE.replace("se6", "se7"),
        LINE.replace("sigmoid", "hardsigmoid"),
        LINE.replace("_skip", "_poolskip"),
        LINE.replace("_skip", ""),
        LINE.replace("hardswish", "silu"),
        LINE.replace("fc10", "fc11"),
        LINE.replace("fc32_relu", "fc32"),
    ]
    assert len({ArchSpec.parse(line).digest() for line in lines}) == len(lines)


def test_derived_values() -> None:
    assert SPEC.classes == 10
    assert [channels for channels, _ in SPEC.chain()] == [1, 16, 24, 24]
    assert SPEC.with_classes(7).dense == (Dense(32, "relu"), Dense(7))
    assert SPEC.with_input(8, 9, 3).input == (8, 9, 3)
    assert SPEC.with_input(8, 9, 3).blocks == SPEC.blocks


BAD_LINES = {
    "": "is not a network; it reads like",
    "32x32:same:conv_k3_s1_o16:fc10": "is not a network",
    "32x32x1": "is not a network",
    "0x32x1:same:fc10": "input (0, 32, 1)",
    "32x32x1:valid:fc10": "padding is 'valid'; known: same, symmetric",
    "32x32x1:same:conv_k3_s1_o16": "last layer must be a linear dense layer",
    "32x32x1:same:fc10_relu": "last layer must be a linear dense layer",
    "32x32x1:same:fc9_tanh:fc10": "activation of fc9_tanh is 'tanh'; known: relu6",
    "32x32x1:same:fc0": "fc0 needs a whole number of units",
    "8x8x1:same:conv_k3_o16:fc10": "lacks stride",
    "8x8x1:same:conv_k3_s1_o16_x:fc10": "'x' is not understood",
    "8x8x1:same:conv_k3_s1_k5_o16:fc10": "gives its kernel twice",
    "8x8x1:same:conv_k²_s1_o16:fc10": "'k²' is not understood",
    f"8x8x1:same:conv_k3_s1_o{'9' * 5000}:fc10": "is not understood",
    "8x8x1:same:dw_k3_s1_o16:fc10": "is 'dw'; known: conv, ds, mb",
    "8x8x1:same:conv_k4_s1_o16:fc10": "kernel 4 is not an odd number",
    "8x8x1:same:conv_k3_s3_o16:fc10": "stride 3 is not 1 or 2",
    "8x8x1:same:conv_k3_s1_o0:fc10": "channel counts must be whole numbers above 0",
    "8x8x1:same:ds_k3_s1_m8_o16:fc10": "only an mb block has middle channels",
    "8x8x1:same:conv_k3_s1_o16_skip:fc10": "here stride 1 and 1 -> 16 channels",
    "8x8x1:same:conv_k3_s2_o1_poolskip:fc10": "here stride 2 and 1 -> 1 channels",
    "8x8x1:same:conv_k3_s1_o4_se1-relu:fc10": "'se1-relu' is not understood",
    "8x8x1:same:conv_k3_s1_o4_se1-relu-tanh:fc10": "is 'tanh'; known: sigmoid, hardsigmoid",
    "8x8x1:same:conv_k3_s1_o4_se1-tanh-sigmoid:fc10": "is 'tanh'; known: relu6",
    "8x8x1:same:conv_k3_s1_o4_se0-relu-sigmoid:fc10": "needs at least one channel",
}


@pytest.mark.parametrize(("line", "sentence"), BAD_LINES.items())
def test_bad_line_is_one_sentence(line: str, sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        ArchSpec.parse(line)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ConfigError)


BAD_JSON = {
    "no padding": {"padding": None},
    "float kernel": {"blocks": [{"op": "conv", "kernel": 3.0, "stride": 1, "out": 4}]},
    "boolean stride": {"blocks": [{"op": "conv", "kernel": 3, "stride": True, "out": 4}]},
    "numpy count": {"blocks": [{"op": "conv", "kernel": 3, "stride": 1, "out": np.int64(4)}]},
    "text count": {"blocks": [{"op": "conv", "kernel": "3", "stride": 1, "out": 4}]},
    "unknown key": {"blocks": [{"op": "conv", "kernel": 3, "stride": 1, "out": 4, "groups": 2}]},
    "missing key": {"blocks": [{"op": "conv"}]},
    "block is a list": {"blocks": [["conv", 3, 1, 4]]},
    "blocks is a number": {"blocks": 3},
    "no dense": {"dense": []},
    "flat input": {"input": 32},
    "short input": {"input": [32, 32]},
    "text input": {"input": "888"},
    "fractional input": {"input": [8.5, 8, 1]},
    "bad squeeze": {
        "blocks": [{"op": "conv", "kernel": 3, "stride": 1, "out": 4, "se": {"channels": "2"}}]
    },
}


@pytest.mark.parametrize("change", BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json_is_one_sentence(change: dict[str, object]) -> None:
    with pytest.raises(SpecError) as caught:
        ArchSpec.from_json({**SPEC.to_json(), **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": 3.0}, {"kernel": [3]}, {"stride": True}, {"out": np.int64(4)}, {"mid": 0.0},
        {"mid": False},
    ],
)  # fmt: skip
def test_a_block_is_refused_though_one_that_equals_it_was_not(change: dict[str, Any]) -> None:
    block = Block("conv", 3, 1, 4)
    ArchSpec((8, 8, 1), (block,), (Dense(2),))
    with pytest.raises(SpecError, match="block 0"):
        ArchSpec((8, 8, 1), (replace(block, **change),), (Dense(2),))


@pytest.mark.parametrize("key", ["input", "blocks", "dense", "padding"])
def test_missing_part_is_named(key: str) -> None:
    data = SPEC.to_json()
    del data[key]
    with pytest.raises(SpecError, match=f"it has no '{key}'"):
        ArchSpec.from_json(data)
