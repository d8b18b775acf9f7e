"""How real numbers meet a file's own, for any number of inputs and outputs."""

from __future__ import annotations

import numpy as np
import pytest

from device_agents.errors import ConfigError
from device_agents.model_files import Tensor
from pipeline.formats.ends import FileEnds, TensorFormat, tell_apart, to_file_ends

ENDS = FileEnds(
    "NHWC",
    (
        TensorFormat("image", "uint8", (1, -1, 4, 3), 0.5, 3),
        TensorFormat("state", "float32", (2, 6)),
        TensorFormat("step", "int64", ()),
    ),
    (TensorFormat("scores", "int8", (1, 2), 0.25, -1), TensorFormat("next", "int64", (1,))),
)


def samples(count: int = 2) -> dict[str, np.ndarray]:
    return {
        "image": np.full((count, 1, 5, 4, 3), 1.0, np.float32),
        "state": np.zeros((count, 2, 6), np.float32),
        "step": np.arange(count, dtype=np.int32),
    }


def test_every_input_is_encoded_and_every_output_decoded() -> None:
    found = ENDS.encode(samples())
    assert {name: value.dtype.name for name, value in found.items()} == {
        "image": "uint8",
        "state": "float32",
        "step": "int64",
    }
    assert set(found["image"].ravel().tolist()) == {5}
    assert found["step"].tolist() == [0, 1]
    real = ENDS.decode({"scores": np.array([[[3, -5]]], np.int8), "next": np.array([[7]])})
    assert real["scores"].tolist() == [[[1.0, -1.0]]]
    assert real["scores"].dtype == np.float32
    assert real["next"].dtype == np.int64


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stage": np.zeros(2)}, "has no input 'stage'; its inputs: image, state, step"),
        ({"step": np.zeros(3)}, "as many samples, at least one; given: image 2, state 2, step 3"),
        ({"image": np.zeros((2, 1, 5, 5, 3))}, r"'image' is given .*\(1, 5, 5, 3\).* 1x\?x4x3"),
        ({"step": np.zeros((2, 1))}, r"'step' is given .*\(1,\); the file takes single numbers"),
    ],
)
def test_other_inputs_are_refused_in_a_sentence(
    change: dict[str, np.ndarray], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ENDS.encode({**samples(), **change})
    with pytest.raises(ConfigError, match="needs the input 'step' too"):
        ENDS.encode({name: value for name, value in samples().items() if name != "step"})


def test_a_network_of_images_has_one_input() -> None:
    with pytest.raises(ConfigError, match=r"3 inputs \(image, state, step\)"):
        ENDS.pack(np.zeros((1, 3, 4, 4), np.float32))


def test_ends_are_told_apart_and_are_numbers() -> None:
    assert tell_apart(["x", "y", "x", "x"]) == ["x", "y", "x:1", "x:2"]
    found = to_file_ends("NCHW", [], [Tensor("y", "bool", None), Tensor("y", "int64", ("n", 3))])
    assert found.inputs == ()
    assert found.outputs == (TensorFormat("y", "bool", None), TensorFormat("y:1", "int64", (-1, 3)))
    with pytest.raises(ConfigError, match="'t' of the file is string, and only numbers"):
        to_file_ends("NCHW", [Tensor("t", "string", (1,))], [Tensor("y", "bool", None)])
    with pytest.raises(ConfigError, match="no output"):
        to_file_ends("NCHW", [Tensor("x", "bool", (1,))], [])
