"""Random networks as TFLite files, real and as codes: what they compute is what the graph says."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from models.integer import integer_outputs
from models.layout import settle
from pipeline.compress.passes.ptq import calibrate_all
from pipeline.formats.tflite.write import write_tflite
from tests.random_graphs import RandomNetwork, run

if TYPE_CHECKING:
    from models.model import Model

NETWORKS = 60
OPS = 14
Arrays = dict[str, Any]


def network(seed: int) -> tuple[Model, Arrays]:
    """A network, channels first or settled, and one sample of its inputs."""
    model = RandomNetwork(Random(seed)).model(OPS)
    if seed % 2:
        model = settle(model)
    rng = np.random.default_rng(seed)
    inputs = {
        tensor.name: rng.standard_normal(tensor.shape).astype(np.float32)
        for tensor in model.graph.inputs
    }
    return model, inputs


def computed(model: Model, content: bytes, inputs: Arrays) -> dict[str, Any]:
    """The outputs of a file under their names in the graph."""
    runner = Interpreter(model_content=content, num_threads=1).get_signature_runner()
    ends = zip(model.graph.inputs, model.inputs, strict=True)
    found = runner(**{end.name: inputs[tensor.name] for tensor, end in ends})
    outputs = zip(model.graph.outputs, model.outputs, strict=True)
    return {name: found[end.name] for name, end in outputs}


def references(model: Model, inputs: Arrays) -> list[Any]:
    """What the graph says; the test is skipped where that is no number."""
    with np.errstate(all="ignore"):
        expected = run(model, inputs)
    if not all(np.isfinite(value).all() for value in expected):
        pytest.skip("the network gives what is no number")
    return expected


def check(found: Any, expected: Any, *, share: float) -> None:
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if expected.dtype.kind == "f":
        largest = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, rtol=share, atol=share * largest)


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_a_random_network_is_computed_as_the_graph_says(seed: int) -> None:
    model, inputs = network(seed)
    expected = references(model, inputs)
    found = computed(model, write_tflite(model), inputs)
    for name, value in zip(model.graph.outputs, expected, strict=True):
        check(found[name], value, share=1e-3)


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_a_random_network_of_codes_is_computed_as_they_say(seed: int) -> None:
    model, inputs = network(seed)
    references(model, inputs)
    model = calibrate_all(model, inputs)
    scales = model.quantization
    assert scales is not None
    coded = scales.made_as_codes(model.graph)
    given = {n: scales[n].quantize(x) if n in coded else x for n, x in inputs.items()}
    found = computed(model, write_tflite(model), given)
    for name, value in integer_outputs(model, inputs).items():
        if value.dtype == np.int8:
            assert found[name].shape == value.shape
            assert np.abs(found[name].astype(int) - value).max() <= 4
        else:
            check(found[name], value, share=0.1)
