"""Reading a TFLite file of ours gives the model that it was written of."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings

from models.execute import execute_all
from models.graph import GraphBuilder
from models.lower import lower
from models.model import Model, random_model
from models.number_format import (
    DYNAMIC8,
    FLOAT16,
    FLOAT32,
    STATIC8,
    STATIC16X8,
    NumberFormat,
)
from models.ops import KINDS, Dense
from pipeline.formats.api import ExportError
from pipeline.formats.tflite.read import read_tflite
from pipeline.formats.tflite.write import write_tflite
from tests.op_draws import drawn, modelled
from tests.spec_strategies import REPLAY, specs

if TYPE_CHECKING:
    from models.graph import Op
    from models.spec import ArchSpec

# A failure is shown as found: shrinking would write hundreds of files.
EXAMPLES = settings(REPLAY, max_examples=60, phases=[Phase.explicit, Phase.generate])
FORMATS = (FLOAT32, FLOAT16, DYNAMIC8, STATIC8, STATIC16X8)
SEEDS = 6


def read(content: bytes) -> Model:
    model = read_tflite(content)
    assert isinstance(model, Model), model.sentence
    return model


def plain(model: Model) -> list[Op]:
    """The ops without what is said of them for reports, which no file holds."""
    return [replace(op, role="", block="") for op in model.graph.ops]


@pytest.mark.parametrize("form", FORMATS, ids=str)
@EXAMPLES
@given(spec=specs())
def test_a_network_of_ours_is_read_back_as_it_was(spec: ArchSpec, form: NumberFormat) -> None:
    model = random_model(lower(spec), np.random.default_rng(7), form)
    content = write_tflite(model)
    found = read(content)
    assert found.number_format == form
    assert found.graph.inputs == model.graph.inputs
    assert found.graph.outputs == model.graph.outputs
    assert [end.name for end in found.outputs] == [end.name for end in model.outputs]
    once = write_tflite(found)
    assert write_tflite(read(once)) == once
    if any(op.act == "hardsigmoid" for op in model.graph.ops):
        # A layer and a product then: the same function, said by other ops.
        if form == FLOAT32:
            x = np.random.default_rng(0).standard_normal(model.graph.inputs[0].shape, np.float32)
            (a,), (b,) = (execute_all(m, {"input": x}).values() for m in (model, found))
            assert np.abs(a - b).max() <= 1e-4 * np.abs(a).max()
        return
    if found.quantization is not None and found.number_format.is_static:
        # An op without a kernel for 16 bits is written with real numbers, and is then one of them.
        real = found.quantization.float_ops
        assert form == STATIC16X8 or not real
        assert [op.kind for op in found.graph.ops] == [op.kind for op in model.graph.ops]
        if real:
            return
        assert model.quantization is not None
        assert found.quantization.tensors == model.quantization.tensors
    assert plain(found) == plain(model)
    if form == FLOAT32:
        assert found.weights.keys() == model.weights.keys()
        for name, arrays in model.weights.items():
            for one, other in zip(arrays, found.weights[name], strict=True):
                np.testing.assert_array_equal(one, other)
    assert once == content


@pytest.mark.parametrize(("kind", "seed"), list(itertools.product(KINDS, range(SEEDS))))
def test_an_op_of_ours_is_read_back_as_what_it_computes(kind: str, seed: int) -> None:
    model, inputs = modelled(drawn(kind, seed))
    try:
        content = write_tflite(model)
    except ExportError:  # a dilated pool, which TFLite cannot say
        assert kind == "maxpool"
        return
    found = read(content)
    one: dict[str, Any] = {t.name: inputs[t.name][: t.shape[0]] for t in model.graph.inputs}
    ours, again = execute_all(model, one), execute_all(found, one)
    for mine, other in zip(model.graph.outputs, found.graph.outputs, strict=True):
        assert again[other].dtype == ours[mine].dtype
        assert again[other].shape == ours[mine].shape
        np.testing.assert_allclose(again[other], ours[mine], rtol=1e-4, atol=1e-5)
    # What is read of a file says the same file from then on.
    once = write_tflite(found)
    assert write_tflite(read(once)) == once


def test_a_weight_that_several_layers_share_is_stored_once() -> None:
    builder = GraphBuilder()
    builder.input("x", (1, 80))
    builder.op("dense", "one", ["x"], Dense(80))
    builder.op("dense", "two", ["one"], Dense(80))
    weight = np.random.default_rng(0).standard_normal((80, 80), np.float32)
    bias = np.zeros(80, np.float32)
    shared = Model(builder.graph(), {"one": (weight, bias), "two": (weight, bias)})
    apart = Model(builder.graph(), {"one": (weight, bias), "two": (weight.T, bias)})
    once = write_tflite(shared)
    assert len(once) < weight.nbytes * 1.5 < len(write_tflite(apart))
    assert write_tflite(read(once)) == once
