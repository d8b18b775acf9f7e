"""onnxruntime's saturating kernels (x86 without VNNI), modelled so that any machine tests them.

The real ones run too, on x86-64: in an emulator that shows them a processor without VNNI, whatever
this computer has. The model is what vpmaddubsw does: two products of an unsigned and a signed code
are added in int16 and saturate, the pairs along the inputs of an output, and only then in int32.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import pytest
import torch

from device_agents.api import Failure
from device_agents.errors import VerificationError
from device_agents.golden import Golden
from models import integer
from models.build import build
from models.execute import execute
from models.graph import Op
from models.integer import integer_logits
from models.lower import lower
from models.model import Model, random_model
from models.network import Network
from models.number_format import FLOAT32, STATIC8
from models.spec import ArchSpec
from pipeline.cli.main import main
from pipeline.compress.passes.ptq import calibrate
from pipeline.formats.figures import Integers, compare
from pipeline.formats.files import run_content
from pipeline.formats.limits import check
from pipeline.formats.onnx import ONNX
from pipeline.formats.onnx import signed_weights as kernels
from pipeline.formats.verify import compute_integers, write_verified
from pipeline.measure.bench import DeviceBench
from pipeline.measure.form import Form
from pipeline.measure.kernels import choose_format
from pipeline.store import Store
from pipeline.store.memo import Memo
from profiles.schema import DeviceProfile

if TYPE_CHECKING:
    from models.codes import LayerCodes, QParams
    from models.graph import Op

LINES = (
    "12x12x3:same:conv_k3_s1_o16_relu:conv_k3_s2_o24_relu:conv_k1_s1_o32_relu:fc6",
    "16x9x1:symmetric:conv_k5_s2_o24:mb_k3_s1_m48_o24_se6-relu-hardsigmoid_skip:fc16_relu:fc4",
    "20x20x3:same:conv_k3_s2_o16_hardswish:ds_k3_s1_o32_relu:fc3",
)


def case(line: str) -> tuple[Model, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    graph = lower(ArchSpec.parse(line))
    height, width, channels = graph.image_shape
    rng = np.random.default_rng(3)
    images = rng.standard_normal((12, channels, height, width), np.float32)
    # Weights of one sign, as those of a trained layer often are for a while, overflow soonest.
    weights = {name: (w + np.float32(w.std()), b) for name, (w, b) in
               random_model(graph, rng).weights.items()}  # fmt: skip
    model = Model(graph, weights)
    return calibrate(model, images), images, execute(model, images).numpy()


def saturating(op: Op, codes: Any, layer: LayerCodes, params: QParams) -> np.ndarray[Any, Any]:
    """Do what `integer._layer` does, with sums of pairs that saturate; depthwise is exact."""
    if op.kind == "depthwise":
        return EXACT(op, codes, layer, params)
    unsigned = codes.astype(np.int64) + 128
    zero = params.zero_point + 128
    if op.kind == "conv":
        windows = [values for _, _, values in op.attributes.over(unsigned - zero, 0)]
        unsigned = np.concatenate(windows, axis=-1) + zero
    weight = layer.weight.reshape(len(layer.weight), -1).astype(np.int64)
    if weight.shape[1] % 2:
        unsigned, weight = (np.concatenate([a, np.zeros_like(a[..., :1])], -1)
                            for a in (unsigned, weight))  # fmt: skip
    products = unsigned[..., None, :] * weight
    pairs = products[..., 0::2] + products[..., 1::2]
    sums = pairs.clip(-(2**15), 2**15 - 1).sum(-1) - zero * weight.sum(1)
    return (sums + layer.bias) * (layer.scales.astype(np.float64) * params.scale)


EXACT = integer._layer


@pytest.mark.parametrize("line", LINES)
def test_saturation_does_not_pass_for_quantisation(
    monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    model, images, expected = case(line)
    assert model.quantization is not None
    step = model.quantization[model.graph.output.name].scale
    integers = Integers(integer_logits(model, images), step)
    check(compare(expected, integers.logits, None, integers), STATIC8, "net")
    monkeypatch.setattr(integer, "_layer", saturating)
    saturated = integer_logits(model, images)
    with pytest.raises(VerificationError, match="kernels are at fault, not the quantisation"):
        check(compare(expected, saturated, None, integers), STATIC8, "net")


@pytest.mark.parametrize("line", LINES)
def test_files_are_right_with_the_settings_of_a_device(line: str) -> None:
    model, images, expected = case(line)
    content, _ = write_verified(ONNX(), "net", model, images, expected)
    file = onnx.load_from_string(content).graph
    assert not kernels.has_signed_weights(file)
    found = compare(
        expected,
        run_content(ONNX(), content, images, as_deployed=True),
        None,
        compute_integers(ONNX(), content, model, images),
    )
    check(found, STATIC8, "net")


@pytest.mark.parametrize("line", LINES)
def test_signed_weights_are_right_where_kernels_are_exact(line: str) -> None:
    model, images, expected = case(line)
    # Verified without the kernels of this computer, if they saturate.
    content, _ = write_verified(ONNX("int8"), "net", model, images, expected)
    assert kernels.has_signed_weights(onnx.load_from_string(content).graph)
    found = compare(
        expected,
        run_content(ONNX("int8"), content, images, as_deployed=True),
        None,
        compute_integers(ONNX("int8"), content, model, images),
    )
    assert found.integers is not None
    assert found.integers.agrees == kernels.exact_here()


RUN = """
import sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
name = session.get_inputs()[0].name
outputs = [session.run(None, {name: image[None]})[0] for image in numpy.load(sys.argv[2])]
numpy.save(sys.argv[3], numpy.concatenate(outputs))
"""


def without_vnni(folder: Path, content: bytes, images: Any) -> Any:
    """Return the logits that onnxruntime computes on a processor with AVX2 and without VNNI."""
    emulator = shutil.which("qemu-x86_64-static")
    if emulator is None or platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("needs an x86-64 computer and the package qemu-user-static")
    io = ONNX().describe(content)
    files = [folder / name for name in ("net.onnx", "in.npy", "out.npy")]
    files[0].write_bytes(content)
    np.save(files[1], io.pack(images))
    argv = [emulator, "-cpu", "Haswell", sys.executable, "-c", RUN, *map(str, files)]
    subprocess.run(argv, check=True, capture_output=True, timeout=100)
    return io.unpack(np.load(files[2]))


@pytest.mark.parametrize("line", LINES)
def test_files_are_right_without_vnni(tmp_path: Path, line: str) -> None:
    model, images, expected = case(line)
    for exporter in (ONNX(), ONNX("int8")):
        content = exporter.write(model)
        found = compare(
            expected,
            without_vnni(tmp_path, content, images),
            None,
            compute_integers(exporter, content, model, images),
        )
        assert found.integers is not None
        assert found.integers.agrees == (exporter.int8_form == "uint8 * uint8")


def test_this_computers_kernels_are_known() -> None:
    if platform.machine() in ("x86_64", "AMD64"):
        flags = Path("/proc/cpuinfo").read_text()
        assert kernels.exact_here() == ("vnni" in flags)
    else:
        assert kernels.exact_here()


@dataclass
class Board:
    """A device that gave the golden model this verdict, on the threads of its profile."""

    verdict: Golden | Failure | None
    asked: int = 0

    def golden(self, *, runtime: str, threads: int) -> Golden | Failure | None:
        assert (runtime, threads) == ("onnx", 3)
        self.asked += 1
        return self.verdict


def board(verdict: Golden | Failure | None, place: Path) -> DeviceBench:
    device: Any = Board(verdict)
    profile, events = DeviceProfile("board", "local", threads=3), cast("Any", None)
    return DeviceBench(
        device=device,
        digest="board",
        profile=profile,
        memo=Memo(Store.open(place)),
        run_id="run-1",
        events=events,
    )


def test_a_device_gets_the_form_that_its_kernels_compute_right(tmp_path: Path) -> None:
    for number, (verdict, weight_type) in enumerate(
        (
            (Golden("onnx", "onnxruntime 1.32"), "int8"),
            (Golden("onnx", "onnxruntime 1.32", saturates=True), "uint8"),
            (Golden("onnx", "onnxruntime 1.32", wrong=("int8 Conv",)), "uint8"),
            (Golden("onnx", "", failure="killed"), "uint8"),
            (Failure("no onnxruntime there", kind="runtime_missing"), "uint8"),
            (None, "uint8"),
        )
    ):
        bench = board(verdict, tmp_path / str(number))
        with bench.memo.store:
            for _ in range(2):
                format_ = choose_format(bench, Form("onnx", STATIC8))
                assert format_.int8_form == f"uint8 * {weight_type}"
            assert bench.device.asked == 1
            for form in (Form("onnx", FLOAT32), Form("tflite", STATIC8)):
                assert choose_format(bench, form).name == form.runtime
            assert bench.device.asked == 1


def test_the_command_says_that_this_computer_saturates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = ArchSpec.parse("32x32x1:same:conv_k3_s2_o16_relu:conv_k3_s2_o32_relu:fc10")
    module = build(spec, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            if name.endswith("conv.weight"):
                tensor.add_(tensor.std())
    network = tmp_path / "net.npz"
    Network(spec, module.eval()).save(network)
    data = ["--data", str(Path(__file__).parents[1] / "recipes" / "tiny.toml")]
    to = ["export", str(network), "-o", str(tmp_path), "--format", "onnx", "--scheme", "static8"]
    against = ["verify", str(tmp_path / "net-static8.onnx"), "--network", str(network), *data]
    assert main([*to, *data]) == 0
    assert main(against) == 0
    assert "its own integer arithmetic has" in capsys.readouterr().out
    assert main([*to, *data, "--signed-weights"]) == 0
    code = main(against)
    if kernels.exact_here():
        assert code == 0
    else:
        assert code == 5
        assert "export again, without --signed-weights" in capsys.readouterr().err
