"""What every runtime of the agent promises, for every file in `device_agents/agent/runtimes/`.

The real runtime runs a real file, in this process and on this computer as a device.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_agents.agent import model_job, runtimes
from device_agents.agent.wire import Refused
from device_agents.api import Failure, Inference, TensorValue
from device_agents.runner import Device
from models.lower import lower
from models.model import random_model
from models.spec import ArchSpec
from pipeline.formats import FORMATS, create
from profiles.schema import DeviceProfile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


NETWORK = ArchSpec.parse("32x32x3:same:conv_k3_s1_o16:mb_k3_s2_m32_o16:fc5")


def file_of(runtime: str, folder: Path) -> Path | None:
    """Write a network that a runtime runs: by the format of its name, if there is one."""
    if runtime == "null":
        path = folder / "net.json"
        path.write_text(json.dumps({"edgewright_null": 1, "latency_ms": 0.01}))
        return path
    if runtime not in FORMATS.names():
        return None
    format_ = create(runtime)
    path = folder / f"net{format_.suffix}"
    path.write_bytes(format_.write(random_model(lower(NETWORK), np.random.default_rng(0))))
    return path


PROFILING = [name for name in runtimes.names() if hasattr(runtimes.module(name), "profile")]
TENSOR = {"name", "dtype", "shape", "scale", "zero_point"}
# As the agent does: the package first, then the model; the threads are those of this process.
THREADS = """
import os, sys
from device_agents.agent import runtimes
runtimes.prepare(sys.argv[1])
tasks = lambda: len(os.listdir("/proc/self/task"))
before = tasks()
for threads in (1, 3, 4):
    model = runtimes.module(sys.argv[1]).Model(sys.argv[2], threads)
    model.fill(0)
    model.invoke()
    print(threads, tasks() - before)
    del model
"""
IMPORTS = """
import json, sys
from device_agents.agent import runtimes
for name in runtimes.names():
    runtimes.find_installed(name)
packages = [own for name in runtimes.names() for own, _ in runtimes.module(name).PACKAGES]
print(json.dumps([own for own in [*packages, "numpy"] if own in sys.modules]))
"""


@pytest.fixture(params=runtimes.names())
def name(request: pytest.FixtureRequest) -> str:
    found = str(request.param)
    if runtimes.find_installed(found) is None:
        pytest.skip(f"{found} is not installed: pip install {runtimes.module(found).install()}")
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    folder = tmp_path_factory.mktemp("runtimes")
    return {name: file_of(name, folder) for name in runtimes.names()}


@pytest.fixture
def path(name: str, files: dict[str, Path | None]) -> Path:
    found = files[name]
    if found is None:
        pytest.fail(f"no format writes for runtime {name!r}; let file_of write a network for it")
    return found


@pytest.fixture
def model(name: str, path: Path) -> Any:
    return runtimes.module(name).Model(str(path), 1)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    directory = tmp_path_factory.mktemp("board") / "device"
    with Device.open(DeviceProfile("here", transport="local", directory=str(directory))) as opened:
        yield opened


def size(info: dict[str, Any]) -> int:
    return int(np.dtype(info["dtype"]).itemsize * np.prod(info["shape"]))


def same_for_all(infos: list[dict[str, Any]], value: int) -> list[bytes]:
    return [np.full(i["shape"], value, i["dtype"]).tobytes() for i in infos]


def outputs(model: Any, data: list[bytes]) -> list[bytes]:
    model.set_inputs(data)
    model.invoke()
    read: list[bytes] = model.read()
    return read


def run(device: Device, path: Path, name: str, arrays: list[Any], **how: Any) -> Inference:
    values = [TensorValue(a.dtype.name, a.shape, a.tobytes()) for a in arrays]
    found = device.infer(path, values, runtime=name, **how)
    assert isinstance(found, Inference), found
    return found


def refusal(found: object) -> Failure:
    assert isinstance(found, Failure), found
    assert "\n" not in found.reason
    return found


def test_a_file_says_what_it_needs_and_what_it_takes(name: str) -> None:
    module = runtimes.module(name)
    assert all(isinstance(package, str) and own for package, own in module.PACKAGES)
    # What can be missing can be installed.
    assert bool(module.install()) == bool(module.PACKAGES)
    parameters = list(inspect.signature(module.Model).parameters)
    settings = list(getattr(module, "SETTINGS", ()))
    assert parameters == ["path", "threads", "shapes", *settings]
    assert set(settings) <= set(model_job.ARGUMENTS), "a host cannot ask for it"


def test_listing_imports_none_of_them() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout) == []


def test_a_loaded_model_describes_itself(name: str, model: Any) -> None:
    assert (model.package, model.version) == runtimes.find_installed(name)
    assert model.version != "unknown"
    assert model.inputs()
    model.fill(0)
    model.invoke()
    for info in (*model.inputs(), *model.outputs()):
        assert info.keys() == TENSOR
        assert min(info["shape"]) > 0
        assert (info["scale"] is None) == (info["zero_point"] is None)
    assert [len(raw) for raw in model.read()] == [size(info) for info in model.outputs()]
    assert model.partitions() is None or model.partitions() >= 1
    assert all(count > 0 for count in model.ops().values())
    told = runtimes.read_delegation(model)
    assert told.keys() == {"delegate", "share", "left"}
    ops, left = model.ops(), told["left"]
    assert left.keys() <= ops.keys()
    if told["share"] is not None:
        assert told["share"] == pytest.approx(1 - sum(left.values()) / sum(ops.values()))
    assert runtimes.read_settings(model) == {}  # its defaults


def test_outputs_follow_the_inputs_and_nothing_else(name: str, model: Any, path: Path) -> None:
    zeros, ones = (same_for_all(model.inputs(), value) for value in (0, 1))
    first = outputs(model, zeros)
    assert outputs(model, ones) != first
    assert outputs(model, zeros) == first
    assert outputs(runtimes.module(name).Model(str(path), 2), zeros) == pytest.approx(first)


def test_a_seed_fills_the_same_inputs(model: Any) -> None:
    found = []
    for seed in (5, 5):
        model.fill(seed)
        model.invoke()
        found.append(model.read())
    assert found[0] == found[1]


def test_it_computes_with_as_many_threads_as_asked(name: str, path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADS, name, str(path)],
        capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    more = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    networks = bool(runtimes.module(name).PACKAGES)  # null computes nothing
    assert more == [(threads, (threads - 1) * networks) for threads in (1, 3, 4)]


@pytest.mark.parametrize("name", PROFILING, indirect=True)
def test_the_ops_of_a_profile_are_timed_as_often_as_asked(
    name: str, path: Path, tmp_path: Path
) -> None:
    rows = runtimes.module(name).profile(str(path), 1, {}, invokes=3, folder=str(tmp_path), data=[])
    assert rows
    for row in rows:
        assert row.keys() == {"name", "kind", "where", "samples_ns"}
        assert len(row["samples_ns"]) == 3
        assert min(row["samples_ns"]) >= 0
    assert sum(sum(row["samples_ns"]) for row in rows) > 0


@pytest.mark.parametrize("harm", ["empty", "cut", "text"])
def test_a_damaged_file_is_refused_in_one_sentence(
    name: str, path: Path, device: Device, tmp_path: Path, harm: str
) -> None:
    content = path.read_bytes()
    bad = tmp_path / path.name
    bad.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"a text"}[harm])
    failure = refusal(device.infer(bad, [], runtime=name))
    words = {"load_failed": f"the {name} runtime refuses the model: ", "crashed": "ended"}
    assert words[failure.kind] in failure.reason
    assert run(device, path, name, []).inputs_info, "the agent lives"


def test_a_shape_that_the_file_does_not_have_is_refused(name: str, path: Path) -> None:
    model = runtimes.module(name).Model
    own = model(str(path), 1).inputs()[0]
    for shape in ([*own["shape"], 1], [2 * n for n in own["shape"]]):
        with pytest.raises(Refused, match=f"does not fit input {own['name']}") as caught:
            model(str(path), 1, {own["name"]: shape})
        assert caught.value.kind == "bad_request"
    with pytest.raises(Refused, match="the model has no input 'nope'; its inputs are "):
        model(str(path), 1, {"nope": [1]})
    same = model(str(path), 1, {own["name"]: own["shape"]})
    assert same.inputs()[0]["shape"] == own["shape"]


def test_on_a_device_it_runs_sample_after_sample(name: str, path: Path, device: Device) -> None:
    told = run(device, path, name, [])
    shape, dtype = told.inputs_info[0].shape, told.inputs_info[0].dtype
    rng = np.random.default_rng(0)
    samples = (4 * rng.random((3, *shape))).astype(dtype)
    together = run(device, path, name, [samples])
    alone = [run(device, path, name, [samples[i : i + 1]], threads=1) for i in range(3)]
    assert together.outputs[0].shape == (3, *told.outputs_info[0].shape)
    assert together.outputs[0].data == b"".join(one.outputs[0].data for one in alone)


def test_on_a_device_inputs_of_another_shape_are_refused(
    name: str, path: Path, device: Device
) -> None:
    told = run(device, path, name, []).inputs_info[0]
    wanted = (
        f"input {told.name} is {told.dtype} of shape (samples, {', '.join(map(str, told.shape))})"
    )
    good = np.zeros((2, *told.shape), told.dtype)
    alike = np.dtype(f"{'i' if good.dtype.kind == 'u' else 'u'}{good.dtype.itemsize}")
    for wrong in (good[:, :, :-1], good.view(alike), good[:0], good.reshape(-1)[:-1]):
        value = TensorValue(wrong.dtype.name, wrong.shape, wrong.tobytes())
        failure = refusal(device.infer(path, [value], runtime=name))
        assert wanted in failure.reason
        assert failure.kind == "bad_request"
    value = TensorValue(told.dtype, good.shape, good.tobytes())
    failure = refusal(device.infer(path, [value, value], runtime=name))
    assert "the model takes 1 inputs, got 2" in failure.reason


def test_an_unknown_runtime_names_the_known() -> None:
    with pytest.raises(
        Refused, match=f"no runtime 'caffe' known; have {', '.join(runtimes.names())}"
    ):
        runtimes.module("caffe")
