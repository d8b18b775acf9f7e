"""Ops by what a user calls them."""

from __future__ import annotations

import pytest

from device_agents.errors import ConfigError
from models.graph import Graph, GraphBuilder
from models.ops import Dense
from pipeline.compress.op_names import find_ops

FUSED = "model/block_{0}/dense/MatMul;model/block_{0}/dense/BiasAdd;model/block_{0}/act/Relu" * 9


def long_names() -> Graph:
    builder = GraphBuilder()
    x = builder.input("x", (1, 4))
    for number in range(30):
        x = builder.op("dense", FUSED.format(number), [x], Dense(units=4))
    builder.op("dense", "classify", [x], Dense(units=4))
    return builder.graph()


def test_an_unknown_name_is_answered_in_a_line_with_what_is_most_like_it() -> None:
    with pytest.raises(ConfigError) as raised:
        find_ops(long_names(), ["clasify"])

    said = str(raised.value)
    assert "did you mean 'classify'? it has 31 ops: classify, " in said
    assert said.endswith(", ...")
    assert len(said) < 500


def test_a_long_name_that_is_offered_finds_an_op() -> None:
    graph = long_names()
    with pytest.raises(ConfigError) as raised:
        find_ops(graph, ["block_17"])

    offered = str(raised.value).partition("ops: ")[2].removesuffix(", ...").split(", ")

    assert len(offered) > 1
    assert all(find_ops(graph, [name]) for name in offered)
