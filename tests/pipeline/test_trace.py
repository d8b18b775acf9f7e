"""Of a file that computes something else, the op that is at fault is named, and no other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.graph import GraphBuilder
from models.model import Model, random_model
from models.ops import Conv, Dense, Mean, Reshape
from pipeline.compress.passes.ptq import calibrate_all
from pipeline.formats import create, trace
from pipeline.formats.trace import describe_first_difference, find_first_difference

FORMATS = ("tflite", "onnx")


class Careless:
    """A writer that turns two channels of one layer's first weights around."""

    def __init__(self, name: str, layer: str) -> None:
        self.real = create(name)
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def write(self, model: Model) -> bytes:
        weights = dict(model.weights)
        weight, bias = weights[self.layer]
        weights[self.layer] = (np.concatenate([weight[1::-1], weight[2:]]), bias)
        return self.real.write(replace(model, weights=weights))


def net(*, codes: bool) -> tuple[Model, dict[str, np.ndarray[Any, Any]]]:
    """Two inputs, of a real network one without a batch dimension, and layers behind each other."""
    builder, rng = GraphBuilder(), np.random.default_rng(0)
    image = builder.input("image", (1, 9, 7, 3))
    state = builder.input("state", (1, 2, 4) if codes else (2, 4))
    first = builder.op("conv", "first", [image], Conv(out=6), act="relu")
    second = builder.op("conv", "second", [first], Conv(out=6, kernel=(3, 3)), act="relu6")
    third = builder.op("conv", "third", [second], Conv(out=8))
    pooled = builder.op("mean", "pooled", [third], Mean(keepdims=False))
    line = builder.op("reshape", "line", [state], Reshape((1, 8)))
    sum_ = builder.op("add", "sum", [pooled, line])
    builder.op("dense", "scores", [sum_], Dense(4))
    model = random_model(builder.graph(), rng)
    inputs = {t.name: rng.standard_normal(t.shape, np.float32) for t in model.graph.inputs}
    return (calibrate_all(model, inputs) if codes else model), inputs


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("codes", [False, True])
def test_a_right_file_differs_nowhere(name: str, codes: bool) -> None:  # noqa: FBT001
    model, inputs = net(codes=codes)
    assert find_first_difference(create(name), model, inputs) is None


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize("layer", ["first", "second", "scores"])
def test_the_layer_at_fault_is_named(
    name: str,
    codes: bool,  # noqa: FBT001
    layer: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, inputs = net(codes=codes)
    for most in (1 << 25, 400):  # all at once, and a few at a time
        monkeypatch.setattr(trace, "_MOST_VALUES", most)
        said = describe_first_difference(Careless(name, layer), model, inputs)
        assert said.startswith(f"; the first tensor that differs from the graph is {layer!r} (")
