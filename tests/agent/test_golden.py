"""A device that computes wrongly is refused: the golden model, and the file itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from device_agents import golden
from device_agents.api import Inference, TensorInfo, TensorValue
from device_agents.care import doctor, setup
from device_agents.errors import DeviceError, RuntimeMissing, VerificationError
from device_agents.golden import Golden
from device_agents.runner import Device
from pipeline.formats.numbers import numbers_of
from pipeline.measure.agreement import Incomparable, compare_outputs
from pipeline.measure.output_check import check_outputs
from scripts import make_golden
from tests import lab, wrong_runtimes
from tests.wheelhouse import stub_litert
from tests.wrong_runtimes import int8_dense

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiles.schema import DeviceProfile

DENSE = "int8 FULLY_CONNECTED with a scale per output"


def examined(device: Device, **how: Any) -> Golden:
    found = device.golden(**how)
    assert isinstance(found, Golden), found
    return found


def checked(device: Device, path: Path, runtime: str) -> Any:
    how: dict[str, Any] = {"runtime": runtime}
    return check_outputs(
        device, path, device.runs(path, **how), examined=device.golden(**how), **how
    )


def test_the_files_are_what_the_script_writes() -> None:
    for name, content in make_golden.files().items():
        assert (make_golden.FOLDER / name).read_bytes() == content, name


@pytest.mark.parametrize("runtime", ["tflite", "onnx"])
def test_this_computers_runtimes_compute_it_right(device: Device, runtime: str) -> None:
    found = examined(device, runtime=runtime)
    assert found.right, found.sentence
    assert found.wrong == ()
    assert examined(device, runtime=runtime) is found
    assert device.golden(runtime="null") is None


@pytest.mark.parametrize("runtime", ["tflite", "onnx"])
def test_each_op_is_told_by_its_output(device: Device, runtime: str) -> None:
    told = json.loads((make_golden.FOLDER / "golden.json").read_text())[runtime]["outputs"]
    found = device.infer(make_golden.FOLDER / f"golden.{runtime}", [], runtime=runtime)
    assert isinstance(found, Inference), found
    right = [golden._expected(item) for item in told]
    infos = found.outputs_info
    assert golden.judge(runtime, "p 1", dataclasses.replace(found, outputs=tuple(right))).right
    for place, item in enumerate(told):
        value = right[place]
        zeros = [*right]
        zeros[place] = TensorValue(value.dtype, value.shape, bytes(len(value.data)))
        spoilt = Inference(tuple(zeros), (), infos, 0)
        verdict = golden.judge(runtime, "p 1", spoilt)
        if item.get("saturation"):
            assert (verdict.wrong, verdict.saturates) == ((), True)
        else:
            assert verdict.wrong == (item["op"],)
            assert item["op"] in verdict.sentence


def test_a_device_that_computes_zeros_is_told_by_the_doctor(
    local: Callable[..., DeviceProfile], tmp_path: Path
) -> None:
    profile = local(python=wrong_runtimes.zeroing_litert(tmp_path))
    diagnosis = doctor.examine(profile)
    found = {check.name: check for check in diagnosis.checks}
    assert not diagnosis.healthy
    assert found["runtime"].status == "ok"
    assert found["outputs"].status == "fail"
    assert found["outputs"].found.endswith(f"computes {DENSE} wrongly")
    assert "`edgewright device setup here` put a newer runtime there" in found["outputs"].advice


def test_setup_puts_another_runtime_in_place_of_a_wrong_one(
    local: Callable[..., DeviceProfile], tmp_path: Path
) -> None:
    stub_litert(tmp_path / "wheels")
    profile = local(python=wrong_runtimes.zeroing_litert(tmp_path))
    said: list[str] = []

    def install() -> setup.Installed:
        return setup.install(
            profile,
            ["tflite"],
            with_python=lambda python: dataclasses.replace(profile, python=python),
            wheels=tmp_path / "wheels",
            say=said.append,
        )

    done = install()
    assert said[0].endswith(f"computes {DENSE} wrongly; putting another one there")
    with Device.open(dataclasses.replace(profile, python=done.python)) as device:
        assert examined(device).package == "ai_edge_litert 9.8.7"
        assert examined(device).right
    # Were the new one wrong too, it would be taken away again.
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(golden, "judge", lambda runtime, package, _: Golden(runtime, package, ("X",)))
        with pytest.raises(RuntimeMissing, match=r"9\.8\.7 computes X wrongly; removed again were"):
            install()
    assert list(Path(profile.directory, "runtime").iterdir()) == []


def test_the_file_itself_decides(local: Callable[..., DeviceProfile], tmp_path: Path) -> None:
    good = int8_dense(tmp_path / "one.tflite", scale_per_output=False)
    bad = int8_dense(tmp_path / "many.tflite", scale_per_output=True)
    with Device.open(local(python=wrong_runtimes.zeroing_litert(tmp_path))) as device:
        assert not device.is_this_computer
        found = checked(device, good, "tflite")
        assert "equal this computer's" in found.words
        assert f"computes {DENSE} wrongly, which this file does not suffer from" in found.words
        with pytest.raises(VerificationError, match=r"many\.tflite does not compute on") as caught:
            checked(device, bad, "tflite")
    sentence = str(caught.value)
    assert "-inf dB, at least 10 dB are needed" in sentence or "0.0 dB, at least" in sentence
    assert f"computes {DENSE} wrongly; let `edgewright device setup here`" in sentence
    assert "\n" not in sentence
    with Device.open(local()) as device:
        assert "equal this computer's" in checked(device, bad, "tflite").words


def test_a_wrong_device_is_refused_when_the_file_cannot_be_compared(
    local: Callable[..., DeviceProfile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = int8_dense(tmp_path / "one.tflite", scale_per_output=False)
    monkeypatch.setattr("pipeline.measure.agreement._LARGEST_BYTES", 10)
    with (
        Device.open(local(python=wrong_runtimes.zeroing_litert(tmp_path))) as device,
        pytest.raises(DeviceError, match=r"computes wrongly and one\.tflite could not be"),
    ):
        checked(device, path, "tflite")
    with Device.open(local()) as device:
        found = checked(device, path, "tflite")
    assert found.sqnr_db is None
    assert found.words.startswith("not compared: its inputs and outputs are 0 MB; ai_edge_litert")


def test_nothing_is_held_against_a_runtime_here_that_is_wrong_itself(
    local: Callable[..., DeviceProfile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = int8_dense(tmp_path / "many.tflite", scale_per_output=True)
    right = str(lab.wrapped_python(tmp_path / "right", ":"))
    wrong = wrong_runtimes.zeroing_litert(tmp_path)
    # As if this very Python had such a runtime: on the device and here.
    monkeypatch.setattr("device_agents.transports.local.sys.executable", wrong)
    monkeypatch.setattr("device_agents.runner.sys.executable", wrong)
    with Device.open(local()) as device:
        assert device.is_this_computer
        with pytest.raises(DeviceError, match=r"could not be checked \(on this computer ai_edge"):
            checked(device, path, "tflite")
    with Device.open(local(python=right)) as device:
        assert not device.is_this_computer
        found = checked(device, path, "tflite")
    assert found.sqnr_db is None
    assert found.words.startswith("not compared: on this computer ai_edge_litert")


@pytest.mark.parametrize(("error", "refused"), [(0.02, False), (3.0, True)])
def test_kernels_that_saturate_are_named_for_the_file(
    local: Callable[..., DeviceProfile], tmp_path: Path, error: float, *, refused: bool
) -> None:
    model = onnx.load(make_golden.FOLDER / "golden.onnx")
    del model.graph.output[1:]
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    python = wrong_runtimes.saturating_onnxruntime(tmp_path, error)
    # As the golden model tells it on such a processor, which this one may not be.
    told = Golden("onnx", "onnxruntime 9.9", saturates=True)
    with Device.open(local(python=python, runtime="onnx")) as device:
        run = device.runs(path, runtime="onnx")
        if refused:
            with pytest.raises(VerificationError, match=r"net\.onnx does not compute") as caught:
                check_outputs(device, path, run, runtime="onnx", examined=told)
            words = str(caught.value)
        else:
            words = check_outputs(device, path, run, runtime="onnx", examined=told).words
            assert words.startswith("agree with this computer's (onnxruntime")
    assert "int8 kernels of onnxruntime 9.9 saturate on this file there (exact without" in words
    assert "has no VNNI, and is not broken" in words


def test_agreement_by_kind_of_output() -> None:
    def outputs(dtype: str, values: list[float], scale: float | None) -> Inference:
        import numpy as np

        array = np.array([values], dtype)
        info = TensorInfo("y", dtype, array.shape[1:], scale, None if scale is None else 0)
        return Inference((TensorValue(dtype, array.shape, array.tobytes()),), (), (info,), 0)

    one = outputs("float32", [1.0, 2.0], None)
    assert compare_outputs(one, one, 40.0) == (float("inf"), True)
    assert compare_outputs(one, outputs("float32", [1.0, 2.0001], None), 40.0)[1]
    assert not compare_outputs(one, outputs("float32", [1.0, float("nan")], None), 40.0)[1]
    assert not compare_outputs(one, outputs("float32", [0.0, 0.0], None), 40.0)[1]
    assert not compare_outputs(one, outputs("float32", [1.0, 2.0, 3.0], None), 40.0)[1]
    # One code apart where the output is small is rounding, whatever the ratio.
    small = outputs("int8", [1, 0, -1, 0], 0.5)
    assert compare_outputs(small, outputs("int8", [0, 1, -1, 0], 0.5), 10.0)[1]
    assert not compare_outputs(
        outputs("int8", [60, -50, 9, 0], 0.5), outputs("int8", [0, 0, 0, 0], 0.5), 10.0
    )[1]


@pytest.mark.parametrize(("dtype", "data"), [("bytes", b"abc"), ("complex64", bytes(8))])
def test_texts_and_complex_numbers_are_not_compared(dtype: str, data: bytes) -> None:
    info = TensorInfo("words", dtype, (1,), None, None)
    found = Inference((TensorValue(dtype, (1, 1), data),), (), (info,), 0)
    with pytest.raises(Incomparable, match=f"output 'words' is of the type {dtype}"):
        compare_outputs(found, found, 40.0)


def test_the_number_format_is_read_from_the_file(models: Path, tmp_path: Path) -> None:
    # By what it holds, whatever its name.
    renamed = tmp_path / "small.ONNX"
    renamed.write_bytes((models / "small.onnx").read_bytes())
    assert numbers_of(renamed) == "floats"
    assert numbers_of(models / "small.tflite") == "floats"
    assert numbers_of(models / "small.onnx") == "floats"
    assert numbers_of(int8_dense(tmp_path / "one.tflite", scale_per_output=False)) == "integers"
    assert numbers_of(make_golden.FOLDER / "golden.onnx") == "integers"


@pytest.mark.parametrize("format_", ["onnx", "tflite"])
def test_a_device_may_sum_in_half_precision(
    device: Device, models: Path, tmp_path: Path, format_: str
) -> None:
    """Of files in half precision some ARM kernels make sums in it, too; that is no fault."""
    whole, half = models / f"small.{format_}", tmp_path / f"half.{format_}"
    {"onnx": _halved_onnx, "tflite": _halved_tflite}[format_](whole, half)
    assert numbers_of(half) == "halves"
    for path, right in ((half, True), (whole, False)):
        true = device.runs(path, runtime=format_)

        def rounded(inputs: Any, *, plain: bool = False, true: Any = true) -> Inference:
            """Disturb what the device's own kernels give, to 32 dB."""
            found: Inference = true(inputs, plain=plain)
            if plain or not inputs:
                return found
            (value,) = found.outputs
            array = np.frombuffer(value.data, np.float32)
            noise = np.random.default_rng(0).choice((-1.0, 1.0), array.shape)
            data = (array * (1 + 0.025 * noise)).astype(np.float32).tobytes()
            return dataclasses.replace(found, outputs=(dataclasses.replace(value, data=data),))

        how: dict[str, Any] = {"runtime": format_, "examined": device.golden(runtime=format_)}
        if right:
            assert "32.0 dB" in check_outputs(device, path, rounded, **how).words
        else:
            with pytest.raises(VerificationError, match=r"agree to 32\.0 dB, at least 40 dB"):
                check_outputs(device, path, rounded, **how)


def _halved_onnx(source: Path, target: Path) -> None:
    """Write a model with its float weights in half precision, each cast back where it is used."""
    model = onnx.load(source)
    casts = []
    for item in model.graph.initializer:
        values = onnx.numpy_helper.to_array(item)
        if values.dtype == np.float32:
            name = item.name
            item.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [item.name], [name], to=1))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)


def _halved_tflite(source: Path, target: Path) -> None:
    """Do the same by DEQUANTIZE, as TFLite's own converter does."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(source.read_bytes())
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 1
    model.operatorCodes.append(code)
    casts = []
    for place, tensor in enumerate(list(graph.tensors)):
        data = model.buffers[tensor.buffer].data
        if data is None or not len(data) or tensor.type != schema.TensorType.FLOAT32:
            continue
        stored, op = schema.TensorT(), schema.OperatorT()
        stored.name, stored.shape, stored.buffer = f"half {place}", tensor.shape, tensor.buffer
        stored.type = schema.TensorType.FLOAT16
        values = np.asarray(data, np.uint8).view(np.float32).astype(np.float16)
        model.buffers[tensor.buffer].data = values.view(np.uint8)
        tensor.buffer = 0
        op.opcodeIndex = len(model.operatorCodes) - 1
        op.inputs, op.outputs = [len(graph.tensors)], [place]
        graph.tensors.append(stored)
        casts.append(op)
    graph.operators = [*casts, *graph.operators]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(bytes(builder.Output()))
