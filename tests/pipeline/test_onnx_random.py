"""ONNX files of random networks compute what the networks do, whatever is moved, joined and cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.execute import execute_all
from models.graph import Graph, Tensor
from models.integer import integer_reals
from models.model import Input, Model, Output, random_model
from pipeline.compress.passes.ptq import calibrate_all
from pipeline.formats import create
from pipeline.formats.api import ReadOptions
from pipeline.formats.onnx.axes import user_axes
from pipeline.formats.onnx.run import run_onnx
from pipeline.formats.onnx.write import write_onnx
from tests.random_networks import random_graph
from tests.spec_strategies import REPLAY

if TYPE_CHECKING:
    from collections.abc import Mapping

Arrays = dict[str, np.ndarray[Any, Any]]

LAYOUTS: Mapping[int, tuple[str, ...]] = {3: ("NCL", ""), 4: ("NCHW", "NHWC", "")}


def modelled(seed: int) -> tuple[Model, Arrays]:
    """A random network for users who have its ends in random layouts, and a sample for it."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    model = random_model(graph, rng)

    def layout(rank: int) -> str:
        return str(rng.choice(LAYOUTS.get(rank, ("",))))

    ends = [Input(t.name, layout(len(t.shape))) for t in graph.inputs]
    outputs = [Output(n, (), layout(len(graph.shape(n)))) for n in graph.outputs]
    inputs = {t.name: rng.standard_normal(t.shape, np.float32) for t in graph.inputs}
    return replace(model, inputs=tuple(ends), outputs=tuple(outputs)), inputs


def run(model: Model, inputs: Arrays) -> Arrays:
    """Run a file of a model on a sample in the graph's order; return its outputs in that."""
    given = {
        end.name: inputs[tensor.name].transpose(user_axes(end.layout, len(tensor.shape)))[None]
        for tensor, end in zip(model.graph.inputs, model.inputs, strict=True)
    }
    found = run_onnx(write_onnx(model), given)
    return {
        name: found[end.name][0].transpose(
            np.argsort(user_axes(end.layout, len(model.graph.shape(name))))
        )
        for name, end in zip(model.graph.outputs, model.outputs, strict=True)
    }


@settings(REPLAY, max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_a_random_network_is_written_as_what_it_is(seed: int) -> None:
    model, inputs = modelled(seed)
    found = run(model, inputs)
    for name, value in execute_all(model, inputs).items():
        assert found[name].shape == value.shape
        largest = max(1.0, float(np.abs(value).max(initial=0)))
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5 * largest)


@settings(REPLAY, max_examples=80)
@given(st.integers(0, 2**32 - 1))
def test_every_op_of_a_random_network_computes_its_codes(seed: int) -> None:
    model, inputs = modelled(seed)
    model = calibrate_all(model, inputs)
    graph, scales = model.graph, model.quantization
    assert scales is not None
    names = tuple(op.name for op in graph.ops)
    traced = replace(model, graph=replace(graph, outputs=names), outputs=tuple(map(Output, names)))
    found = run(traced, inputs)
    values = {**inputs, **found}
    for op in graph.ops:
        # From what the file gave of the ops before: roundings do not add up.
        read = {name: values[name] for name in op.inputs if name not in op.constants}
        ends = [Tensor(name, value.shape, value.dtype.name) for name, value in read.items()]
        alone = Graph(tuple(ends), (op,), (op.name,))
        as_made = replace(scales, ends=dict.fromkeys(read.keys() & found.keys(), "float32"))
        part = Model(alone, model.weights, as_made)
        value = integer_reals(part, read)[op.name]
        assert (found[op.name].shape, found[op.name].dtype) == (value.shape, value.dtype)
        if scales.is_integer(op) and op.name in scales.tensors:
            steps = np.abs(found[op.name] - value) / scales[op.name].scale
            assert steps.max(initial=0) <= 1.01, op
        elif op.name in scales.tensors:  # what codes are made of may be taken from the codes
            np.testing.assert_allclose(
                found[op.name], value, rtol=1e-4, atol=0.51 * scales[op.name].scale
            )
        else:
            np.testing.assert_allclose(found[op.name], value, rtol=1e-4, atol=1e-5)


@settings(REPLAY, max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_what_is_read_back_is_the_same_network(seed: int) -> None:
    model, inputs = modelled(seed)
    first = write_onnx(model)
    read = read_back(first)
    second = write_onnx(read)
    assert ends(first) == ends(second)
    given = {
        end.name: inputs[tensor.name].transpose(user_axes(end.layout, len(tensor.shape)))[None]
        for tensor, end in zip(model.graph.inputs, model.inputs, strict=True)
    }
    expected, found = run_onnx(first, given), run_onnx(second, given)
    for name, value in expected.items():
        largest = max(1.0, float(np.abs(value).max(initial=0)))
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5 * largest)
    # A reader may choose another order, but leaves nothing around every op.
    assert moved(second) <= moved(first) + 1
    assert abs(moved(write_onnx(read_back(second))) - moved(second)) <= 1


def read_back(content: bytes) -> Model:
    with TemporaryDirectory() as folder:
        path = Path(folder, "net.onnx")
        path.write_bytes(content)
        read = create("onnx").read(str(path), ReadOptions())
    assert isinstance(read, Model)
    return read


def ends(content: bytes) -> list[Any]:
    graph = onnx.load_from_string(content).graph
    return [
        (end.name, [dim.dim_value for dim in end.type.tensor_type.shape.dim])
        for end in (*graph.input, *graph.output)
    ]


def moved(content: bytes) -> int:
    return sum(node.op_type == "Transpose" for node in onnx.load_from_string(content).graph.node)


@pytest.mark.parametrize("seed", range(3))
def test_random_networks_have_many_kinds_and_ranks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graphs = [random_graph(rng) for _ in range(40)]
    assert len({op.kind for graph in graphs for op in graph.ops}) > 20
    assert {len(op.out_shape) for graph in graphs for op in graph.ops} >= {2, 3, 4, 5}
