"""A model on disk and by its digest, random ones, and its number format's names."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings

from device_agents.errors import ConfigError
from models.codes import QuantizationError
from models.graph import GraphBuilder
from models.lower import lower
from models.model import Input, Model, Output, random_model
from models.number_format import FLOAT32, NAMED, OTHER_NAMES, STATIC8, NumberFormat
from models.ops import Clip
from models.scales import random_quantization
from models.spec import ArchSpec
from tests.corruptions import damaged
from tests.spec_strategies import REPLAY, specs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LINE = "16x16x3:same:conv_k3_s2_o8:mb_k3_s1_m16_o8_se4-relu-hardsigmoid_skip:fc5"
HEADER = "edgewright.json.npy"


def model_of(line: str = LINE, number_format: NumberFormat = STATIC8) -> Model:
    return random_model(lower(ArchSpec.parse(line)), np.random.default_rng(0), number_format)


def whole() -> Model:
    """A model with something in every field."""
    fed = Input("image", "NHWC", (0.485, 0.456, 0.406), (4.4, 4.5, 4.4))
    return replace(model_of(), inputs=(fed,), outputs=(Output("classes", ("cat", "dog")),))


def assert_equal(first: Model, second: Model) -> None:
    assert (first.graph, first.quantization) == (second.graph, second.quantization)
    assert (first.inputs, first.outputs) == (second.inputs, second.outputs)
    assert first.history == second.history
    assert list(first.weights) == list(second.weights)
    for name, pair in first.weights.items():
        for ours, theirs in zip(pair, second.weights[name], strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


@settings(REPLAY, max_examples=20)
@given(specs())
def test_any_model_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, spec: ArchSpec
) -> None:
    path = tmp_path_factory.mktemp("model") / "net.npz"
    for number_format in NAMED.values():
        model = random_model(lower(spec), np.random.default_rng(1), number_format)
        model.save(path)
        found = Model.load(path)
        assert_equal(found, model)
        assert found.digest() == model.digest()
        assert found.number_format == number_format


def test_every_field_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    whole().save(path)
    assert_equal(Model.load(path), whole())


def test_a_limit_on_one_side_is_kept(tmp_path: Path) -> None:
    builder = GraphBuilder()
    builder.input("x", (1, 3))
    builder.op("clip", "low", ["x"], Clip(low=0.5))
    builder.op("clip", "high", ["low"], Clip(high=2.5))
    model = Model(builder.graph(), {})
    model.save(tmp_path / "model.npz")
    assert Model.load(tmp_path / "model.npz").graph == model.graph


def test_weights_of_any_type_and_names_of_any_kind_are_kept(tmp_path: Path) -> None:
    """What readers of other people's files will bring: codes, halves, names with slashes."""
    model = model_of("6x6x2:same:conv_k1_s1_o3:fc2", FLOAT32)
    (conv, pair), (dense, other) = model.weights.items()
    weights: dict[str, Any] = {
        conv: (pair[0].astype(np.float16), pair[1]),
        f"file/../{dense}\n:0": (other[0].astype(np.int8), other[1].astype(np.int32)),
    }
    path = tmp_path / "net.npz"
    replace(model, weights=weights).save(path)
    assert_equal(Model.load(path), replace(model, weights=weights))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: replace(model, weights=dict(list(model.weights.items())[:-1])),
        lambda model: replace(model, quantization=None),
        lambda model: replace(
            model, quantization=replace(model.quantization, dense_per_output=False)
        ),
        lambda model: replace(model, inputs=(Input("other"),)),
        lambda model: replace(model, outputs=(Output(labels=("cat",)),)),
        lambda model: replace(model, graph=lower(ArchSpec.parse(LINE.replace("16x16", "16x15")))),
    ],
)
def test_the_digest_tells_what_files_can_depend_on(change: Callable[[Model], Model]) -> None:
    assert change(model_of()).digest() != model_of().digest()


def test_the_digest_is_of_the_values_and_not_of_the_history() -> None:
    model, other = model_of(), model_of()
    assert model.digest() == other.digest()
    assert replace(model, history=("made otherwise",)).digest() == model.digest()
    other.weights["dense.0"][1][-1] += 1
    assert model.digest() != other.digest()


def test_a_model_is_not_changed_by_whoever_made_it() -> None:
    model = model_of()
    given = dict(model.weights)
    made = replace(model, weights=given)
    del given["dense.0"]
    assert "dense.0" in made.weights
    with pytest.raises(TypeError):
        made.weights["dense.0"] = made.weights["dense.0"]  # type: ignore[index]


def test_no_damage_ends_in_a_bug(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    whole().save(path)
    content, sentences = path.read_bytes(), []
    for seed in range(150):
        path.write_bytes(damaged(content, np.random.default_rng(seed)))
        try:
            assert_equal(Model.load(path), whole())
        except ConfigError as error:
            sentences.append(str(error))
    assert len(sentences) > 75
    assert all(str(path) in sentence and "\n" not in sentence for sentence in sentences)


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of a saved model, its archive kept right."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(str(arrays.pop("edgewright.json")))
    change(header)
    np.savez(path, **{"edgewright.json": np.array(json.dumps(header)), **arrays})


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.pop("graph"),
        lambda header: header.pop("digest"),
        lambda header: header["graph"]["ops"].pop(),
        lambda header: header["graph"]["ops"][0]["attributes"].update(kernel=[7, 7]),
        lambda header: header["graph"]["ops"][0].update(colour="red"),
        lambda header: header["graph"]["inputs"][0].update(shape=[16]),
        lambda header: header.update(graph=None),
        lambda header: header["weights"].append("dense.0"),
        lambda header: header["weights"].pop(),
        lambda header: header.update(weights=7),
        lambda header: header["quantization"]["tensors"].update(input=[1e300, 0]),
        lambda header: header["quantization"]["tensors"].update(input=[float("nan"), 0]),
        lambda header: header["quantization"]["tensors"].update(input=[0.5, 1e400]),
        lambda header: header["quantization"]["tensors"].update(input=[0.5, 3]),
        lambda header: header["quantization"].update(number_format="static9"),
        lambda header: header.update(quantization=["static8"]),
        lambda header: header["inputs"].append({}),
        lambda header: header["inputs"][0].update(shape=[1]),
        lambda header: header.update(outputs=[7]),
        lambda header: header.update(digest="0" * 16),
    ],
)
def test_a_header_that_says_something_else_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    path = tmp_path / "net.npz"
    whole().save(path)
    rewritten(path, lambda _: None)
    assert_equal(Model.load(path), whole())
    rewritten(path, change)
    with pytest.raises(ConfigError, match="damaged") as caught:
        Model.load(path)
    assert str(path) in str(caught.value)


def test_no_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    whole().save(path)
    array = np.array([{"graph": 1}], object)
    with zipfile.ZipFile(path, "w") as archive, archive.open(HEADER, "w") as member:
        np.lib.format.write_array(member, array, allow_pickle=True)
    with pytest.raises(ConfigError, match=r"is not a readable \.npz file|damaged"):
        Model.load(path)


def test_what_is_missing_or_something_else_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no model file .*net\.npz"):
        Model.load(tmp_path / "net.npz")
    (tmp_path / "net.npz").write_text("hello")
    with pytest.raises(ConfigError, match=r"is not a model file of edgewright.*text"):
        Model.load(tmp_path / "net.npz")


@pytest.mark.parametrize("name", [*NAMED, *OTHER_NAMES])
def test_short_names_are_kept(name: str) -> None:
    assert str(NumberFormat.parse(name)) == OTHER_NAMES.get(name, name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dynamic-int8-float32-channel", NumberFormat("int8", "float32", "channel", "dynamic")),
        ("static-int16-int16-tensor", NumberFormat("int16", "int16", "tensor", "static")),
        ("static-int8-int8-tensor", NumberFormat("int8", "int8", "tensor", "static")),
        ("float-float16-float32-none", NumberFormat("float16")),
        ("weight-only-int4-float32-codebook",
         NumberFormat("int4", "float32", "codebook", "weight-only")),
    ],
)  # fmt: skip
def test_formats_without_a_short_name_say_all(text: str, expected: NumberFormat) -> None:
    assert NumberFormat.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("static-int8-int8-channel", "static8"),
        ("static-int8-int16-channel", "static16x8"),
        ("dynamic-int8-int8-channel", "dynamic8"),
        ("weight-only-float16-float32-none", "float16"),
    ],
)
def test_the_long_form_of_a_named_format_is_that_format(text: str, name: str) -> None:
    assert NumberFormat.parse(text) == NAMED[name]
    assert str(NumberFormat.parse(text)) == name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("int9", "no number format 'int9' known; have float32, float16, dynamic8, static8, "),
        ("static-int9-int8-channel", "weights 'int9' is not known; have float32"),
        ("sometimes-int8-int8-channel", "mode 'sometimes' is not known; have float, static"),
        ("", "no number format '' known"),
    ],
)
def test_unknown_formats_are_refused_with_the_known_ones(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        NumberFormat.parse(text)


def test_no_scales_are_assumed_where_nobody_knows_them() -> None:
    other = NumberFormat.parse("static-int8-int16-tensor")
    with pytest.raises(QuantizationError, match="no scales can be assumed for static-int8-int16"):
        model_of(number_format=other)


def test_assumed_scales_are_said_in_the_history() -> None:
    model = model_of()
    assert model.quantization == random_quantization(model.graph)
    assert model.history == ("random weights", "assumed scales, static8")
