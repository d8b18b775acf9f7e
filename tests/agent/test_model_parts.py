"""ONNX models whose weights lie in files beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from device_agents.agent.parts import check, lay_together
from device_agents.agent.wire import Refused
from device_agents.api import BenchProtocol, Inference, Measurement, TensorValue
from device_agents.errors import ConfigError
from device_agents.model_files import read
from pipeline.cli.main import main
from pipeline.formats.files import run_file
from tests.tiny_models import onnx_conv

if TYPE_CHECKING:
    from device_agents.runner import Device

ONE = replace(BenchProtocol.quick(), processes=1, max_processes=1)
LOCATION = "weights of it/data.bin"


def in_parts(path: Path, *, seed: int = 0, location: str = LOCATION) -> Path:
    """Write a model with its weights in a file below its folder."""
    model = onnx.load(onnx_conv(path, seed=seed))
    (path.parent / location).parent.mkdir(exist_ok=True)
    onnx.save_model(
        model, str(path), save_as_external_data=True, location=location, size_threshold=0
    )
    return path


def test_all_parts_are_pushed_and_run(device: Device, tmp_path: Path) -> None:
    path = in_parts(tmp_path / "m.onnx")
    found = device.measure(path, ONE, runtime="onnx", reference=path)
    assert isinstance(found, Measurement), found
    assert found.model_sha256 == found.reference_sha256
    images = np.random.default_rng(0).random((2, 1, 3, 16, 16), np.float32)
    value = TensorValue("float32", images.shape, images.tobytes())
    there = device.infer(path, [value], runtime="onnx")
    assert isinstance(there, Inference), there
    here = run_file(path, images[:, 0])
    np.testing.assert_allclose(
        np.frombuffer(there.outputs[0].data, np.float32).reshape(2, -1), here, rtol=1e-4, atol=1e-5
    )
    memory = device.memory(path, runtime="onnx")
    assert memory.model_bytes == path.stat().st_size + (tmp_path / LOCATION).stat().st_size
    assert device.per_op(path, runtime="onnx").ops
    # Nothing of the folders that stood while it was loaded.
    assert not list((tmp_path / "device $(touch x)" / "models").glob(".parts*"))


def test_other_weights_are_another_model(device: Device, tmp_path: Path) -> None:
    path = in_parts(tmp_path / "m.onnx")
    graph = path.read_bytes()
    first = device.measure(path, ONE, runtime="onnx")
    (tmp_path / LOCATION).unlink()
    in_parts(tmp_path / "m.onnx", seed=1)
    assert path.read_bytes() == graph
    second = device.measure(path, ONE, runtime="onnx")
    assert isinstance(first, Measurement)
    assert isinstance(second, Measurement)
    assert first.model_sha256 != second.model_sha256


def renamed(path: Path, location: str) -> Path:
    """Let a model name its weights' file otherwise, as a hostile one may."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "a/../../secret", "a\\..\\secret", "", "link/x"]
)
def test_what_is_not_beside_the_model_is_not_followed(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"x" * 5000)
    (tmp_path / "x").write_bytes(b"x" * 5000)
    (folder / "link").symlink_to(tmp_path)
    path = renamed(in_parts(folder / "m.onnx", location="w.bin"), location)
    with pytest.raises(ConfigError, match="which is not beside it or below"):
        read(path)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    path = in_parts(tmp_path / "m.onnx")
    (tmp_path / LOCATION).unlink()
    with pytest.raises(ConfigError, match=r"'weights of it/data.bin', which is not there; copy"):
        read(path)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], r"parts = \[\] is no object of files"),
        *(({name: "0" * 64}, f"part '{name}' does not lie beside the model")
          for name in ("../x", "/x", "a//b", "a/.")),
    ],
)  # fmt: skip
def test_the_agent_checks_names_too(value: Any, words: str) -> None:
    with pytest.raises(Refused, match=words):
        check(value, lambda sha256: sha256)


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    for name in ("model", "part"):
        (tmp_path / name).write_text(name)
    left = tmp_path / ".parts-999999999"
    left.mkdir()
    with lay_together(str(tmp_path / "model"), {"model": str(tmp_path / "part")}) as whole:
        assert not left.exists()
        with open(whole, encoding="utf-8") as file:  # noqa: PTH123
            assert file.read() == "model"


def test_in_graphs_within_graphs(tmp_path: Path) -> None:
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["w"], ["y"])],
        "inner",
        [],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.ones(99, np.float32), "w")],
    )
    outer = onnx.helper.make_graph(
        [onnx.helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)],
        "outer",
        [onnx.helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [1])],
        [onnx.helper.make_tensor_value_info("o", onnx.TensorProto.FLOAT, None)],
    )
    path = tmp_path / "m.onnx"
    onnx.save_model(
        onnx.helper.make_model(outer, ir_version=10), str(path),
        save_as_external_data=True, location="w.bin", size_threshold=0,
    )  # fmt: skip
    assert [part.location for part in read(path).parts] == ["w.bin"]


def test_bench_and_deploy_take_the_parts_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path))
    monkeypatch.setenv("EDGEWRIGHT_LEASES", str(tmp_path / "leases"))
    monkeypatch.chdir(tmp_path)
    in_parts(tmp_path / "m.onnx")
    assert main(["bench", "m.onnx", "--device", "local", "--protocol", "quick", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["input_shapes"] == {"x": [1, 3, 16, 16]}
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.toml").write_text(
        f'transport = "local"\ndirectory = "{tmp_path / "board"}"\n'
    )
    # What is deployed is one file, which needs no other.
    assert main(["deploy", "m.onnx", "--device", "here", "--name", "net", "--version", "1"]) == 0
    there = Path(capsys.readouterr().out.strip())
    assert there.is_relative_to(tmp_path / "board")
    images = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    np.testing.assert_array_equal(run_file(there, images), run_file(tmp_path / "m.onnx", images))
