"""What a file answers on a device: a real file in a real runtime, asked once a run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from device_agents.api import Failure
from device_agents.errors import DeviceError
from device_agents.runner import Device
from models.number_format import FLOAT32
from pipeline.cli.display import Display
from pipeline.data import Data, Dataset, Split
from pipeline.formats.figures import Verification
from pipeline.formats.files import run_file
from pipeline.formats.written_file import WrittenFile
from pipeline.measure.bench import DeviceBench
from pipeline.measure.outputs import DEVICE_CLASSES, infer_answers, infer_outputs
from pipeline.store import Store
from pipeline.store.memo import Memo
from profiles.schema import DeviceProfile
from tests.tiny_models import CLASSES, onnx_conv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RNG = np.random.default_rng(0)
# Each of a colour of its own, so that not all are of one class.
IMAGES = _RNG.normal(3 * _RNG.standard_normal((12, 3, 1, 1)), 1, (12, 3, 16, 16)).astype(np.float32)
UNKNOWN = np.full_like(IMAGES[:1], np.nan)
CUT = '[[fault]]\nkind = "cut"\nat_call = 6\nphase = "before"\ndown_s = 1e6\n'


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """Open this computer as a device."""
    directory = str(tmp_path_factory.mktemp("board") / "device")
    with Device.open(DeviceProfile("here", transport="local", directory=directory)) as device:
        yield device


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


def bench(device: Device, store: Store, run_id: str = "tiny-1", digest: str = "d") -> DeviceBench:
    profile = DeviceProfile(device.name, transport="local", threads=1)
    return DeviceBench(
        device=device, digest=digest, profile=profile, memo=Memo(store), run_id=run_id,
        events=Display(),
    )  # fmt: skip


def file_of(path: Path) -> WrittenFile:
    content = path.read_bytes()
    figures = Verification(len(IMAGES), 0.0, np.inf, np.inf, 1.0)
    sha256 = hashlib.sha256(content).hexdigest()
    return WrittenFile("winner", "onnx", FLOAT32, (16, 16, 3), path, sha256, len(content), figures)


def changed(path: Path, constants: dict[str, Any], op: str = "") -> Path:
    """Change constants of a file's graph, or the kind of its first op."""
    model = onnx.load(str(path))
    for item in model.graph.initializer:
        if item.name in constants:
            array = numpy_helper.to_array(item).copy()
            array[...] = constants[item.name]
            item.CopyFrom(numpy_helper.from_array(array, item.name))
    if op:
        model.graph.node[0].op_type = op
    path.write_bytes(model.SerializeToString())
    return path


def data(labels: np.ndarray[Any, Any], images: np.ndarray[Any, Any] = IMAGES) -> Data:
    split = Split(images, labels.astype(np.int64))
    return Data(Dataset("noise", CLASSES, split, split, split))


@pytest.fixture
def file(tmp_path: Path) -> WrittenFile:
    return file_of(onnx_conv(tmp_path / "net.onnx"))


def told(asked: DeviceBench) -> list[dict[str, Any]]:
    """Return what was recorded of each time that a device was to answer."""
    return [dict(step.result) for step in asked.memo.steps if step.kind == DEVICE_CLASSES.name]


def test_the_outputs_are_those_of_the_file(here: Device, file: WrittenFile) -> None:
    found = infer_outputs(here, file.path, IMAGES, runtime="onnx", threads=1)
    assert found.shape == (len(IMAGES), CLASSES)
    np.testing.assert_allclose(found, run_file(file.path, IMAGES), rtol=1e-5, atol=1e-6)


def test_accuracy_is_the_share_of_right_answers(
    here: Device, store: Store, file: WrittenFile
) -> None:
    classes = run_file(file.path, IMAGES).argmax(1)
    assert len(set(classes)) > 1
    labels = classes.copy()
    labels[:3] = (labels[:3] + 1) % CLASSES
    asked = bench(here, store)
    assert infer_answers(asked, file, data(labels)).tolist() == classes.tolist()
    assert told(asked) == [{"accuracy": 0.75}]


def test_an_output_that_is_no_number_is_no_answer(
    here: Device, store: Store, file: WrittenFile
) -> None:
    images = np.concatenate([IMAGES[:3], UNKNOWN])
    labels = run_file(file.path, images).argmax(1)  # which takes NaN for the largest
    asked = bench(here, store)
    found = infer_answers(asked, file, data(labels, images))
    assert found.tolist() == [*labels[:3], -1]
    assert told(asked) == [{"accuracy": 0.75}]
    broken = file_of(changed(file.path, {"bd": [np.nan, 0, 0, 0, 0]}))
    assert infer_answers(asked, broken, data(labels, images)).tolist() == [-1] * 4
    assert told(asked)[1] == {"accuracy": 0.0}


def test_it_is_asked_once_for_each_run_device_file_and_data(
    here: Device, store: Store, file: WrittenFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edgewright")
    labels = np.arange(len(IMAGES)) % CLASSES
    other = file_of(onnx_conv(tmp_path / "other.onnx", seed=1))
    asked = [
        (bench(here, store), file, labels),
        (bench(here, store, "tiny-2"), file, labels),
        (bench(here, store, digest="e"), file, labels),
        (bench(here, store), other, labels),
        (bench(here, store), file, labels[::-1]),
    ]
    for expected in ([1, 2, 3, 4, 5], [5] * 5):
        done = []
        for device, what, truth in asked:
            found = infer_answers(device, what, data(truth))
            assert found.tolist() == run_file(what.path, IMAGES).argmax(1).tolist()
            done.append(sum("did device-classes" in line for line in caplog.messages))
        assert done == expected


def test_a_model_at_fault_is_a_failure_that_is_remembered(
    here: Device, store: Store, file: WrittenFile
) -> None:
    unknown = file_of(changed(file.path, {}, op="Convolve"))
    asked = bench(here, store)
    found = [infer_answers(asked, unknown, data(np.zeros(len(IMAGES)))) for _ in range(2)]
    assert isinstance(found[0], Failure)
    assert "the onnx runtime refuses the model" in found[0].reason
    assert found[0] == found[1]
    assert told(asked) == [{"failure": found[0].reason}] * 2
    assert asked.memo.steps[0] == asked.memo.steps[1], "asked again"


def test_a_device_without_the_runtime_is_a_failure_too(store: Store, file: WrittenFile) -> None:
    with Device.open(DeviceProfile("simulated", transport="fake", runtime="null")) as device:
        found = infer_answers(bench(device, store), file, data(np.zeros(len(IMAGES))))
    assert isinstance(found, Failure)
    assert "onnx" in found.reason


def test_a_device_at_fault_is_an_error_and_nothing_is_remembered(
    tmp_path: Path, here: Device, store: Store, file: WrittenFile
) -> None:
    (tmp_path / "cut.toml").write_text(CUT)
    profile = DeviceProfile(
        "simulated", transport="fake", runtime="null", address=str(tmp_path / "cut.toml")
    )
    labels = np.zeros(len(IMAGES))
    with Device.open(profile) as device:
        asked = bench(device, store)
        words = r"device 'simulated' cannot run net\.onnx: .*the same command goes on from there"
        with pytest.raises(DeviceError, match=words):
            infer_answers(asked, file, data(labels))
    assert told(asked) == []
    assert not isinstance(infer_answers(bench(here, store), file, data(labels)), Failure)
