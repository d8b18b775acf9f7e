"""Keras files and SavedModels are read by way of TensorFlow, or refused in a sentence."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.errors import ConfigError
from models.lower import lower
from models.model import Model, random_model
from models.spec import ArchSpec
from pipeline.formats.api import ReadOptions, Unsupported
from pipeline.formats.keras import code
from pipeline.formats.keras.read import _named
from pipeline.formats.source import read_model

if TYPE_CHECKING:
    from pathlib import Path

MODELS = """
import sys
import tensorflow as tf
layers, folder = tf.keras.layers, sys.argv[1]
tf.keras.utils.set_random_seed(0)
net = tf.keras.Sequential([
    layers.Input((12, 9, 3)), layers.Conv2D(4, 3, strides=2, padding="same"),
    layers.BatchNormalization(), layers.ReLU(), layers.DepthwiseConv2D(3),
    layers.Activation("swish"), layers.Flatten(), layers.Dense(5, activation="softmax"),
])
net.save(f"{folder}/net.keras")
net.save(f"{folder}/net.h5")
net.export(f"{folder}/saved")
image, extra = layers.Input((8, 10, 3), name="file"), layers.Input((4,), name="extra")
x = layers.Conv2D(4, 3, padding="same")(image)
both = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), extra])
label = layers.Dense(5, name="label")(both)
mask = layers.Conv2DTranspose(2, 3, strides=2, name="mask")(x)
tf.keras.Model([image, extra], [label, mask]).save(f"{folder}/two.keras")
words = layers.Input((None,), dtype="int32", name="words")
looked = layers.LayerNormalization()(layers.Embedding(10, 4)(words))
mean = layers.GlobalAveragePooling1D()(looked)
tf.keras.Model(words, layers.Dense(2)(mean)).save(f"{folder}/words.keras")
twice = [layers.Input((4,)), layers.Lambda(lambda x: x * 2, name="twice")]
tf.keras.Sequential(twice).save(f"{folder}/lambda.keras")
tf.keras.Sequential(twice).save(f"{folder}/lambda.h5")
inner = tf.keras.Sequential([layers.Input((3, 4)), layers.TimeDistributed(twice[1])])
tf.keras.Sequential([layers.Input((3, 4)), inner]).save(f"{folder}/inside.keras")
recurrent = tf.keras.Sequential([
    layers.Input((6, 4)), layers.Masking(),
    layers.Bidirectional(layers.LSTM(3, return_sequences=True)), layers.GRU(2),
])
recurrent.save(f"{folder}/recurrent.keras")
recurrent.save(f"{folder}/recurrent.h5")
recurrent.export(f"{folder}/recurrent")
tf.keras.Sequential([layers.Input((None, 4)), layers.LSTM(3)]).save(f"{folder}/lstm.keras")
kept = [layers.Input((2, 4), batch_size=1), layers.LSTM(3, stateful=True, name="memory")]
tf.keras.Sequential(kept).save(f"{folder}/stateful.keras")
import h5py
mixed = dict(dtype="mixed_float16")
old = tf.keras.Sequential([
    layers.Input((6, 5, 2)), layers.DepthwiseConv2D(3, **mixed), layers.Conv2D(3, 1, **mixed),
])
old.save(f"{folder}/old.h5")
with h5py.File(f"{folder}/old.h5", "r+") as file:
    new, key = file.attrs["model_config"], '"depth_multiplier"'
    file.attrs["model_config"] = new.replace(key, '"groups": 1, ' + key)
class Sum(tf.Module):
    def __init__(self):
        self.total = tf.Variable(tf.zeros([1, 3]))
    @tf.function(input_signature=[tf.TensorSpec([1, 3], tf.float32, "x")])
    def add(self, x):
        self.total.assign_add(x)
        return {"total": self.total + 0.0}
module = Sum()
tf.saved_model.save(module, f"{folder}/state", signatures={"add": module.add})
"""
NOTHING = ReadOptions()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None, reason="needs edgewright[keras]"
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("keras")
    argv = [sys.executable, "-c", MODELS, str(place)]
    subprocess.run(argv, check=True, capture_output=True, timeout=300)
    return place


def read(source: Path, options: ReadOptions = NOTHING) -> Model:
    found = read_model(str(source), options)
    assert isinstance(found, Model), found.sentence
    return found


@pytest.mark.parametrize("name", ["net.keras", "net.h5", "saved"])
def test_one_network_is_the_same_in_every_form(folder: Path, name: str) -> None:
    model = read(folder / name)
    assert [op.kind for op in model.graph.ops] == [
        *("conv", "depthwise", "act", "reshape", "dense", "softmax")
    ]
    assert model.graph.inputs[0].shape == (1, 12, 9, 3)
    assert [end.name for end in model.outputs] == ["output_0"]
    assert model.history == (f"read from {name}, converted by TensorFlow",)


def test_several_inputs_and_outputs_have_their_names_and_order(folder: Path) -> None:
    model = read(folder / "two.keras")
    assert [end.name for end in model.inputs] == ["file", "extra"]
    assert [end.name for end in model.outputs] == ["label", "mask"]
    shapes = [model.graph.shape(name) for name in model.graph.outputs]
    assert shapes == [(1, 5), (1, 17, 21, 2)]


def test_an_open_dimension_must_be_given(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"input 'words' open \(\?x\?\); .* words=1x64, with"):
        read(folder / "words.keras")
    model = read(folder / "words.keras", ReadOptions({"words": (1, 7)}))
    assert [end.name for end in model.inputs] == ["words"]
    assert [(t.shape, t.dtype) for t in model.graph.inputs] == [((1, 7), "int32")]
    with pytest.raises(ConfigError, match=r"has no input 'word'; its inputs: words"):
        read(folder / "words.keras", ReadOptions({"word": (1, 7)}))


@pytest.mark.parametrize("name", ["lambda.keras", "lambda.h5", "inside.keras"])
def test_code_is_not_run_unless_it_is_trusted(folder: Path, name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"holds the Lambda layer 'twice', which is code.*--trust"
    ):
        read(folder / name)


def test_code_that_is_trusted_runs(folder: Path) -> None:
    model = read(folder / "lambda.keras", ReadOptions(trust=True))
    assert [op.kind for op in model.graph.ops] == ["mul"]


@pytest.mark.parametrize("name", ["recurrent.keras", "recurrent.h5"])
def test_the_steps_of_recurrent_layers_are_written_out(folder: Path, name: str) -> None:
    model = read(folder / name)
    kinds = Counter(op.kind for op in model.graph.ops)
    assert kinds["dense"] >= 2 * 6 + 6  # two directions, and the layer behind them
    assert kinds["where"] > 0  # of the mask
    assert [model.graph.shape(name) for name in model.graph.outputs] == [(1, 2)]


@pytest.mark.parametrize(("name", "steps"), [("recurrent", 6), ("lstm.keras", 129)])
def test_what_the_graph_cannot_say_is_named(folder: Path, name: str, steps: int) -> None:
    found = read_model(str(folder / name), ReadOptions({"": (1, steps, 4)}))
    assert isinstance(found, Unsupported)
    assert str(folder / name) in found.sentence
    assert "WHILE" in found.sentence


def test_a_recurrent_layer_that_keeps_its_state_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"stateful\.keras keeps a state .*\(memory\).*stateful"):
        read(folder / "stateful.keras")


def test_the_ops_that_keep_a_state_are_named_and_an_only_signature_is_taken(folder: Path) -> None:
    found = read_model(str(folder / "state"), NOTHING)
    assert isinstance(found, Unsupported)
    assert {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"} <= {op.kind for op in found.ops}


def test_a_file_of_keras_2_in_mixed_precision_is_read_in_float32(folder: Path) -> None:
    model = read(folder / "old.h5")
    assert [op.kind for op in model.graph.ops] == ["depthwise", "conv"]
    assert {model.graph.dtype(name) for name in model.graph.tensors} == {"float32"}


def test_bad_files_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    code.check(folder / "net.keras")
    for name in ("net.keras", "net.h5"):
        content = (folder / name).read_bytes()
        for part in (b"", content[:100], content[: len(content) // 2]):
            (tmp_path / name).write_bytes(part)
            with pytest.raises(ConfigError, match=r"is no Keras model, or it is damaged"):
                read(tmp_path / name)
    with pytest.raises(ConfigError, match=r"no Keras file or SavedModel folder .*none\.keras"):
        read(tmp_path / "none.keras")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "saved_model.pb").write_bytes(b"not a graph")
    with pytest.raises(ConfigError, match=r"TensorFlow cannot load .*folder: "):
        read(tmp_path / "folder")


def test_without_tensorflow_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"not installed: pip install edgewright\[keras\]"):
        read(folder / "net.keras")


def test_outputs_that_no_name_tells_apart_are_refused() -> None:
    model = random_model(
        lower(ArchSpec.parse("16x12x3:same:conv_k3_s2_o8:mb_k3_s1_m16_o8_skip:fc5")),
        np.random.default_rng(0),
    )
    with pytest.raises(ConfigError, match=r"an output '\w+' of it, and the model has x, y"):
        _named(model, ["x", "y"], "net.keras")
