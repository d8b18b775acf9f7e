"""Files of older Keras, of mixed precision and with layers of their author's own; no TensorFlow."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.errors import ConfigError
from pipeline.formats.keras.code import own_classes
from pipeline.formats.keras.loadable import loadable, modernise
from pipeline.formats.keras.signature import pick_signature

if TYPE_CHECKING:
    from pathlib import Path


def layer(kind: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": "it", **config}}


@pytest.mark.parametrize(
    ("kind", "argument", "nothing", "something"),
    [("DepthwiseConv2D", "groups", 1, 2), ("LSTM", "time_major", False, True)],
)
def test_arguments_that_mean_nothing_are_left_away(
    kind: str, argument: str, nothing: Any, something: Any
) -> None:
    config = {"config": {"layers": [layer(kind, **{argument: nothing})]}}
    assert modernise(config) == {"config": {"layers": [layer(kind)]}}
    told = {"config": {"layers": [layer(kind, **{argument: something})]}}
    assert modernise(told) == told
    assert modernise(layer("Conv2D", groups=1)) == layer("Conv2D", groups=1)


def test_a_mixed_precision_is_computed_in_float32() -> None:
    policy = {"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}
    assert modernise(layer("Dense", dtype=policy))["config"]["dtype"]["config"]["name"] == "float32"
    assert modernise(layer("Dense", dtype="mixed_bfloat16")) == layer("Dense", dtype="float32")


def archive(path: Path, config: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("model.weights.h5", b"weights")
    return path


def test_a_file_is_copied_only_where_something_is_in_the_way(tmp_path: Path) -> None:
    new = archive(tmp_path / "new.keras", layer("Dense", dtype="float32"))
    with loadable(new) as file:
        assert file == new
    old = archive(tmp_path / "old.keras", layer("Dense", dtype="mixed_float16"))
    with loadable(old) as file, zipfile.ZipFile(file) as held:
        assert file != old
        assert file.suffix == ".keras"
        assert json.loads(held.read("config.json")) == layer("Dense", dtype="float32")
        assert held.read("model.weights.h5") == b"weights"
    assert not file.exists()


def test_classes_of_the_author_are_named_once(tmp_path: Path) -> None:
    own = {"class_name": "Gate", "module": "nets", "registered_name": "own>Gate", "config": {}}
    keras = {"module": "keras.layers", "registered_name": "Functional", **layer("Dense")}
    layers = {"layers": [own, keras, own, layer("Dense")]}
    assert own_classes(archive(tmp_path / "net.keras", {"config": layers})) == ["Gate"]
    (tmp_path / "none.keras").write_bytes(b"PK\3\4")
    assert own_classes(tmp_path / "none.keras") == []


def test_the_usual_signature_or_the_only_one_is_meant() -> None:
    assert pick_signature(["other", "serving_default"]) == "serving_default"
    assert pick_signature(["encode"]) == "encode"
    with pytest.raises(ConfigError, match=r"its signatures: decode, encode; save it"):
        pick_signature(["decode", "encode"])
    with pytest.raises(ConfigError, match=r"its signatures: none"):
        pick_signature([])
