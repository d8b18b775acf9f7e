"""What the page of a user's own model says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

from pipeline.evaluate.own_model import Original, OwnModel
from pipeline.formats.api import ReadOptions

if TYPE_CHECKING:
    from pathlib import Path


def test_an_open_length_is_shown_as_inspect_shows_it(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "open",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
    )
    path = tmp_path / "open.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path)
    original = Original(path, "", "onnx", "onnxruntime")
    own = OwnModel("open.onnx", "", ReadOptions(), None, "", original)

    assert own.facts["inputs"] == ["x float32 1x10"]  # the batch that it is run with
    assert own.facts["outputs"] == ["y float32 ?x10"]
