"""Libraries in environments of their own: real ones, and what happens where they fail."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.errors import ConfigError, VerificationError
from models.lower import lower
from models.model import random_model
from models.number_format import DYNAMIC8, STATIC8, STATIC16X8
from models.spec import ArchSpec
from pipeline.cli.main import main
from pipeline.formats import create
from pipeline.formats.api import ReadOptions
from pipeline.formats.placing import place_file
from pipeline.formats.subjects import FileSubject, find_runnable
from pipeline.formats.third_party import convert, environment, quantize
from pipeline.formats.third_party.environment import Library, install, run_program, run_script
from tests.tiny_models import onnx_conv, tflite_conv

if TYPE_CHECKING:
    from pathlib import Path

    from models.number_format import NumberFormat

OPTIONS = ReadOptions()
# Looked up before tests move the cache: an environment is made once for all of them.
CACHED = quantize.AI_EDGE_QUANTIZER.folder.parent.parent.parent


def subject(path: Path) -> FileSubject:
    found = find_runnable(str(path), OPTIONS)
    assert found is not None
    return found


def inputs_of(file: FileSubject, count: int = 24) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        end.name: rng.random((count, *(end.shape or ())), np.float32) for end in file.ends.inputs
    }


@pytest.fixture
def _cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHED))


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("signature", [False, True])
@pytest.mark.parametrize("number_format", [STATIC8, DYNAMIC8])
def test_a_tflite_file_is_quantised_with_and_without_a_signature(
    tmp_path: Path, number_format: NumberFormat, *, signature: bool
) -> None:
    try:
        install(quantize.AI_EDGE_QUANTIZER, lambda _: None)
    except ConfigError as error:
        pytest.skip(str(error))
    path = tflite_conv(tmp_path / "net.tflite")
    if signature:
        model = random_model(
            lower(ArchSpec.parse("32x32x1:same:conv_k3_s2_o8:mb_k3_s1_m16_o8_skip:fc10")),
            np.random.default_rng(0),
        )
        path.write_bytes(create("tflite").write(model))
    file = subject(path)
    target = tmp_path / "made" / "net-small.tflite"
    found = quantize.quantize_file(
        file,
        inputs_of(file),
        target,
        number_format,
        OPTIONS,
        pytest.fail,  # type: ignore[arg-type]
    )
    assert found.outputs[0].sqnr_db is not None
    assert found.outputs[0].sqnr_db > 20
    assert subject(target).numbers == "integers"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


VOLUME = """
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    return nn.Conv3d(3, 4, 3)
"""


@pytest.mark.slow  # installs 2.4 GB
@pytest.mark.usefixtures("_cache")
def test_a_module_that_no_graph_says_is_converted_by_litert_torch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        install(convert.LITERT_TORCH, lambda _: None)
    except ConfigError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "volume.py").write_text(VOLUME)
    asked = ["export", "volume.py:make", "--input-shape", "1x3x6x8x10", "-o", "made"]
    assert main(asked) == 2
    said = capsys.readouterr().err
    assert "volume.py:make has ops that are not known here: " in said
    assert "with --library it is converted by litert-torch (2400 MB, installed once)" in said
    assert main([*asked, "--library"]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == "made/make-float32.tflite"
    assert "compared with its source on 1 generated samples" in shown.err
    assert subject(tmp_path / "made" / "make-float32.tflite").numbers == "floats"


def test_an_onnx_file_without_onnx2tf_says_how_to_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = onnx_conv(tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match=r"onnx2tf, which is not on the PATH: install it"):
        convert.convert_by_library(str(path), tmp_path / "net.tflite", OPTIONS, pytest.fail)
    assert not (tmp_path / "net.tflite").exists()


@pytest.mark.parametrize("number_format", [STATIC8, DYNAMIC8])
def test_an_onnx_file_is_quantised_by_onnxruntime(
    tmp_path: Path, number_format: NumberFormat
) -> None:
    file = subject(onnx_conv(tmp_path / "net.onnx"))
    target = tmp_path / "net-small.onnx"
    found = quantize.quantize_file(
        file,
        inputs_of(file),
        target,
        number_format,
        OPTIONS,
        pytest.fail,  # type: ignore[arg-type]
    )
    assert found.outputs[0].sqnr_db is not None
    assert found.outputs[0].sqnr_db > 20
    assert subject(target).numbers == "integers"


_SCALAR = """<ir_version: 8, opset_import: ["" : 17]>
net (float[1,8] x, int64 rate) => (float[1,4] y)
{
  scale = Cast <to = 1> (rate)
  scaled = Div (x, scale)
  y = MatMul (scaled, weights)
}"""
_BRANCHES = """<ir_version: 8, opset_import: ["" : 17]>
net (float[1,8] x, int64 rate) => (float[1,4] y)
{
  one = Constant <value = int64 {1}> ()
  slow = Equal (rate, one)
  z = If (slow) <
    then_branch = then () => (float[1,4] a) { a = MatMul (x, weights) },
    else_branch = else () => (float[1,4] b) { b = MatMul (x, weights) }>
  y = Relu (z)
}"""


def onnx_text(path: Path, text: str) -> FileSubject:
    import onnx

    model = onnx.parser.parse_model(text)
    weights = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    onnx.save(model, path)
    return subject(path)


def test_a_scalar_input_calibrates(tmp_path: Path) -> None:
    file = onnx_text(tmp_path / "net.onnx", _SCALAR)
    target = tmp_path / "net-small.onnx"
    quantize.quantize_file(file, inputs_of_rate(), target, STATIC8, OPTIONS, pytest.fail)
    assert subject(target).numbers == "integers"


def test_weights_that_nothing_reads_are_not_quantised_by_leaving_them_out(tmp_path: Path) -> None:
    import onnx

    onnx_text(tmp_path / "net.onnx", _BRANCHES)
    model = onnx.load(tmp_path / "net.onnx")
    unread = np.ones((8, 4), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(unread, "unread"))
    onnx.save(model, tmp_path / "net.onnx")
    file = subject(tmp_path / "net.onnx")
    target = tmp_path / "net-small.onnx"
    with pytest.raises(ConfigError, match=r"it left every weight as it was"):
        quantize.quantize_file(file, inputs_of_rate(), target, STATIC8, OPTIONS, pytest.fail)


def test_activations_that_are_quantised_make_no_weight_small(tmp_path: Path) -> None:
    before = """doubled = Add (x, x)
  z = If (slow)"""
    text = _BRANCHES.replace("z = If (slow)", before).replace("MatMul (x,", "MatMul (doubled,")
    file = onnx_text(tmp_path / "net.onnx", text)
    target = tmp_path / "net-small.onnx"
    with pytest.raises(ConfigError, match=r"it left every weight as it was"):
        quantize.quantize_file(file, inputs_of_rate(), target, STATIC8, OPTIONS, pytest.fail)


@pytest.mark.parametrize("number_format", [STATIC8, DYNAMIC8])
def test_a_library_that_leaves_every_weight_is_no_success(
    tmp_path: Path, number_format: NumberFormat
) -> None:
    file = onnx_text(tmp_path / "net.onnx", _BRANCHES)
    target = tmp_path / "net-small.onnx"
    with pytest.raises(ConfigError, match=r"net.onnx to \w+: it left every weight as it was"):
        quantize.quantize_file(file, inputs_of_rate(), target, number_format, OPTIONS, pytest.fail)
    assert not target.exists()


def inputs_of_rate() -> dict[str, np.ndarray]:
    values = np.random.default_rng(0).random((24, 1, 8), np.float32)
    return {"x": values, "rate": np.ones(24, np.int64)}


def test_a_number_format_without_a_library_is_refused(tmp_path: Path) -> None:
    file = subject(onnx_conv(tmp_path / "net.onnx"))
    with pytest.raises(ConfigError, match=r"no library quantises net.onnx to static16x8; have"):
        quantize.quantize_file(
            file, inputs_of(file), tmp_path / "net2.onnx", STATIC16X8, OPTIONS, pytest.fail
        )


def test_a_file_that_computes_something_else_is_never_there(tmp_path: Path) -> None:
    file = subject(onnx_conv(tmp_path / "net.onnx"))
    inputs = inputs_of(file, 40)
    for values in inputs.values():  # one sample beyond all others takes all codes
        values[39] *= 1e6
    target = tmp_path / "net-small.onnx"
    with pytest.raises(VerificationError, match=r"net-small.onnx does not compute what net.onnx"):
        quantize.quantize_file(file, inputs, target, STATIC8, OPTIONS, pytest.fail)
    assert not target.exists()


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('import json; print(json.dumps({"error": "no such op"})); raise SystemExit(1)', "no such"),
        ("import os; os.kill(os.getpid(), 11)", "died with SIGSEGV"),
        ("x = bytearray(1 << 34)", "MemoryError"),
        ("import time; time.sleep(60)", r"did not end within 2 s"),
        ("raise SystemExit(7)", "ended with code 7"),
    ],
)
def test_a_library_that_fails_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = script(tmp_path / "fails.py", text)
    with pytest.raises(ConfigError, match=f"it cannot: .*{sentence}"):
        run_script(None, path, [], what="it cannot", timeout_s=2.0, memory_bytes=4 << 30)


def test_children_of_a_library_end_with_it(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    child = f"import time\nwhile True: open({str(beat)!r}, 'a').write('x'); time.sleep(0.05)"
    path = script(
        tmp_path / "parent.py",
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])",
    )
    with pytest.raises(ConfigError, match="did not end within 3 s"):
        run_script(None, path, [], what="it cannot", timeout_s=3.0)
    size = beat.stat().st_size
    assert size > 0
    time.sleep(0.5)
    assert beat.stat().st_size == size


def test_a_program_of_the_user_has_limits(tmp_path: Path) -> None:
    text = "import resource as r; print(r.getrlimit(r.RLIMIT_AS)[0], r.getrlimit(r.RLIMIT_CORE)[0])"
    argv = [sys.executable, "-c", text]
    done = run_program(argv, what="it cannot", folder=tmp_path, memory_bytes=4 << 30)
    assert done.stdout.split() == [str(4 << 30).encode(), b"0"]


def test_a_file_that_fails_leaves_what_stood_there(tmp_path: Path) -> None:
    target = tmp_path / "net.tflite"
    target.write_bytes(b"old")

    def fail() -> None:
        with place_file(target) as beside:
            beside.write_bytes(b"new")
            raise VerificationError("it is wrong")

    with pytest.raises(VerificationError):
        fail()
    assert target.read_bytes() == b"old"
    with pytest.raises(ConfigError, match=r"cannot write .*net.tflite: "), place_file(target):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == [target]
    with place_file(target) as beside:
        beside.write_bytes(b"new")
    assert target.read_bytes() == b"new"


def test_what_cannot_be_installed_says_why_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    missing = Library("nothing", ((str(tmp_path / "no_such_wheel.whl"),),), 1)
    told: list[str] = []
    for _ in range(2):
        with pytest.raises(ConfigError, match="nothing cannot be installed into"):
            install(missing, told.append)
    assert not missing.is_installed
    assert len(told) == 2
    assert "about 1 MB, once" in told[0]


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    empty = Library("empty", (), 12)
    told: list[str] = []
    install(empty, told.append)
    install(empty, told.append)
    assert len(told) == 1
    where = tmp_path / "where.json"
    path = script(tmp_path / "ok.py", "import sys, json; open(sys.argv[1], 'w').write(sys.prefix)")
    run_script(empty, path, [str(where)], what="it cannot")
    assert where.read_text() == str(empty.folder)
    assert json.loads((empty.folder / environment._DONE).read_text()) == []
