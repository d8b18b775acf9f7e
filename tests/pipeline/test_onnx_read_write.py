"""Reading an ONNX file of ours gives a network that computes what it was written of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from models.codes import QParams
from models.lower import lower
from models.model import Input, Model, Output, random_model
from models.number_format import FLOAT32, STATIC8, NumberFormat
from models.ops import KINDS
from pipeline.formats.onnx.read import read_onnx
from pipeline.formats.onnx.write import write_onnx
from tests.onnx_cases import run_read
from tests.op_draws import drawn, modelled, referred
from tests.random_networks import random_graph
from tests.spec_strategies import REPLAY, specs

if TYPE_CHECKING:
    from models.spec import ArchSpec

Array = np.ndarray[Any, Any]

EXAMPLES = settings(REPLAY, max_examples=40, phases=[Phase.explicit, Phase.generate])
SEEDS = 8


def as_it_is(model: Model) -> Model:
    """Return a model whose user has what goes in and out as the graph has it."""
    graph = model.graph
    return Model(
        graph,
        model.weights,
        inputs=tuple(Input(tensor.name, layout="") for tensor in graph.inputs),
        outputs=tuple(Output(f"out{place}") for place, _ in enumerate(graph.outputs)),
    )


def read(content: bytes) -> Model:
    model = read_onnx(content)
    assert isinstance(model, Model), model.sentence
    return model


def check(model: Model, inputs: dict[str, Array]) -> Model:
    found = read(write_onnx(model))
    pairs = zip(referred(model, inputs).values(), run_read(found, inputs), strict=True)
    for wanted, value in pairs:
        assert value.shape == wanted.shape
        assert value.dtype == wanted.dtype
        if wanted.dtype.kind != "f":
            np.testing.assert_array_equal(value, wanted)
            continue
        span = max(float(np.abs(wanted).max()), 1.0)
        assert np.abs(value - wanted).max() <= 1e-4 * span
    return found


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("kind", KINDS)
def test_an_op_of_every_kind(kind: str, seed: int) -> None:
    model, inputs = modelled(drawn(kind, seed), seed)
    found = check(as_it_is(model), {name: value[:1] for name, value in inputs.items()})
    assert len(found.graph.ops) <= 40


@EXAMPLES
@given(seed=st.integers(0, 2**32 - 1))
def test_a_random_network(seed: int) -> None:
    model, inputs = modelled(random_graph(np.random.default_rng(seed)), seed)
    for op in model.graph.ops:
        if op.kind == "gather":  # entries that are there
            places, size = op.inputs[1], op.in_shapes[0][op.attributes.axis]
            weights = {**model.weights, places: (model.weights[places][0] % size,)}
            model = replace(model, weights=weights)
    check(as_it_is(model), {name: value[:1] for name, value in inputs.items()})


@pytest.mark.parametrize("form", [FLOAT32, STATIC8], ids=str)
@EXAMPLES
@given(spec=specs())
def test_a_network_of_ours(spec: ArchSpec, form: NumberFormat) -> None:
    model = random_model(lower(spec), np.random.default_rng(7), form)
    found = read(write_onnx(model))
    assert [end.name for end in found.outputs] == [end.name for end in model.outputs]
    assert found.number_format == form
    assert all(op.kind != "transpose" for op in found.graph.ops)
    if form == FLOAT32:
        x = np.random.default_rng(0).standard_normal(model.graph.inputs[0].shape, np.float32)
        (wanted,) = referred(model, {model.graph.inputs[0].name: x}).values()
        (value,) = run_read(found, {found.inputs[0].name: x.transpose(0, 3, 1, 2)})
        assert np.abs(value - wanted).max() <= 1e-4 * max(float(np.abs(wanted).max()), 1e-3)
        return
    assert found.quantization is not None
    assert model.quantization is not None
    assert len(found.quantization.weights) == sum(op.has_weights for op in model.graph.ops)
    written = set(model.quantization.tensors.values())
    same = [item for item in found.quantization.tensors.values() if item in written]
    assert all(isinstance(item, QParams) for item in same)
    assert len(same) > len(model.graph.ops) / 2
