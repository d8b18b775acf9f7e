"""What a file says of pixels and classes: written by both writers, read again, held in bounds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models import recorded
from models.graph import GraphBuilder
from models.model import Input, Model, Output, random_model
from models.ops import Conv, Dense, Mean
from pipeline.compress.passes.ptq import calibrate
from pipeline.data.pictures.values import Values
from pipeline.formats import create
from pipeline.formats.api import ReadOptions
from pipeline.formats.files import describe_file
from pipeline.formats.samples import sample_ends
from pipeline.formats.source import read_model

if TYPE_CHECKING:
    from pathlib import Path

FED = Input("picture", "NCHW", (1.0, 2.0, 3.0), (0.5, 0.25, 0.125), "BGR")
NAMED = Output("animal", ("cat", "dög", 'a "fish"'))


def network(*, said: bool) -> Model:
    builder = GraphBuilder()
    x = builder.input("picture", (1, 6, 4, 3))
    x = builder.op("conv", "conv", [x], Conv(kernel=(3, 3), padding=(1, 1, 1, 1), out=3))
    x = builder.op("mean", "pool", [x], Mean(keepdims=False))
    builder.op("dense", "classify", [x], Dense(units=3))
    model = random_model(builder.graph(), np.random.default_rng(0))
    inputs, outputs = (FED, NAMED) if said else (Input("picture"), Output("animal"))
    return Model(model.graph, model.weights, inputs=(inputs,), outputs=(outputs,))


@pytest.mark.parametrize("codes", [False, True], ids=["float32", "static8"])
@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_what_a_model_says_is_in_its_files(tmp_path: Path, format_: str, codes: bool) -> None:  # noqa: FBT001
    model = network(said=True)
    if codes:
        images = np.random.default_rng(0).standard_normal((8, 3, 6, 4)).astype(np.float32)
        model = calibrate(model, images)
    path = tmp_path / f"net.{format_}"
    path.write_bytes(create(format_).write(model))
    ends = sample_ends(describe_file(path))
    assert ends[0].values == Values(FED.mean, FED.scale, "BGR")
    again = read_model(str(path), ReadOptions())
    assert isinstance(again, Model)
    assert (again.inputs[0].mean, again.inputs[0].scale) == (FED.mean, FED.scale)
    assert again.inputs[0].colours == "BGR"
    assert again.outputs[0].labels == NAMED.labels


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_a_file_of_a_model_that_says_nothing_is_what_it_was(format_: str) -> None:
    content = create(format_).write(network(said=False))
    assert b"edgewright.ends" not in content
    assert recorded.find(content) == ""
    assert recorded.record(network(said=False)) == ""


@pytest.mark.parametrize(
    "line",
    [
        '{"edgewright": "ends"',
        '{"edgewright": "ends", "inputs": 3, "outputs": "x"}',
        '{"edgewright": "ends", "inputs": [{"mean": ["a"], "scale": [1]}], "outputs": [[]]}',
        '{"edgewright": "ends", "inputs": [{"mean": [1], "scale": []}]}',
        '{"edgewright": "ends", "inputs": [{"mean": [NaN], "scale": [1]}], "outputs": []}',
        '{"edgewright": "ends", "inputs": [{"mean": [1], "scale": [1], "colours": "XYZ"}]}',
        '{"edgewright": "ends", "outputs": [{"labels": ["one"]}]}',
        '{"edgewright": "ends", "inputs": [' + "[" * 5000,
    ],
)
def test_a_line_that_cannot_be_changes_nothing(line: str) -> None:
    model = network(said=False)
    found = recorded.find(b"\0\1" + line.encode() + b"\xff\0")
    assert recorded.apply(model, found).digest() == model.digest()
    assert recorded.apply(model, line).digest() == model.digest()


def test_what_a_model_says_itself_stays() -> None:
    line = json.dumps(
        {
            "edgewright": "ends",
            "inputs": [{"mean": [9], "scale": [9]}],
            "outputs": [{"labels": ["x", "y", "z"]}],
        }
    )
    assert recorded.apply(network(said=True), line).digest() == network(said=True).digest()
    said = recorded.apply(network(said=False), line)
    assert said.inputs[0].mean == (9.0,)
    assert said.outputs[0].labels == ("x", "y", "z")
