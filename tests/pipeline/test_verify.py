"""Verification: arrays in and out of files, figures, limits, sentences."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_agents.errors import ConfigError, VerificationError
from models.codes import QParams
from models.execute import execute
from models.lower import lower
from models.model import Model, random_model
from models.number_format import FLOAT32, STATIC8
from models.quantization import Quantization
from models.spec import ArchSpec
from pipeline.compress.passes.ptq import calibrate
from pipeline.formats import FORMATS as FORMAT_FOLDER
from pipeline.formats import create
from pipeline.formats.api import ExportError
from pipeline.formats.ends import FileEnds, TensorFormat
from pipeline.formats.figures import Integers, Verification, compare
from pipeline.formats.files import describe_file, run_content, run_file
from pipeline.formats.limits import check
from pipeline.formats.verify import compute_integers, write_verified
from tests.corruptions import damaged

if TYPE_CHECKING:
    from pathlib import Path


LINE = "16x12x3:same:conv_k3_s2_o8:mb_k3_s1_m16_o8_skip:fc5"
FORMATS = ("tflite", "onnx")


def case() -> tuple[Model, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    model = random_model(lower(ArchSpec.parse(LINE)), rng)
    images = rng.standard_normal((20, 3, 16, 12), np.float32)
    return model, images, execute(model, images).numpy()


def changed(model: Model, layer: str, gain: float) -> Model:
    """The model with the weights of a layer multiplied."""
    weight, bias = model.weights[layer]
    return replace(model, weights={**model.weights, layer: (weight * np.float32(gain), bias)})


def write(path: Path, model: Model) -> None:
    path.write_bytes(create(path.suffix[1:]).write(model))


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("scheme", ["float32", "static8"])
def test_good_files_pass(format_: str, scheme: str) -> None:
    model, images, expected = case()
    if scheme == "static8":
        model = calibrate(model, images)
    assert str(model.number_format) == scheme
    # Every second image is told to be of another class than the file says.
    labels = run_content(create(format_), create(format_).write(model), images).argmax(1)
    labels[::2] += 1
    content, found = write_verified(create(format_), "net", model, images, expected, labels)
    assert content == create(format_).write(model)
    assert found.images == 20
    assert found.accuracy == 0.5
    assert found.sqnr_db > (100 if scheme == "float32" else 20)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_file_of_other_weights_fails_with_the_figures(tmp_path: Path, format_: str) -> None:
    model, images, expected = case()
    path = tmp_path / f"net{create(format_).suffix}"
    write(path, random_model(model.graph, np.random.default_rng(1)))
    with pytest.raises(VerificationError) as error:
        check(compare(expected, run_file(path, images)), FLOAT32, "net")
    assert error.value.exit_code == 5
    found = compare(expected, run_file(path, images))
    for figure in (
        f"{found.typical_sqnr_db:.1f} dB",
        f"{found.argmax_agreement:.1%}",
        "on 20 images",
    ):
        assert figure in str(error.value)


def test_a_small_change_of_weights_is_noticed_in_float32(tmp_path: Path) -> None:
    model, images, expected = case()
    path = tmp_path / "net.tflite"
    write(path, changed(model, "blocks.1.expand", 1.01))
    with pytest.raises(VerificationError, match=r"the median SQNR is [1-5]\d\.\d dB \(at least 60"):
        check(compare(expected, run_file(path, images)), FLOAT32, "net")


def test_not_a_number_never_passes(tmp_path: Path) -> None:
    model, images, expected = case()
    path = tmp_path / "net.tflite"
    write(path, changed(model, "dense.0", np.nan))
    with pytest.raises(VerificationError, match="the median SQNR is -inf dB"):
        check(compare(expected, run_file(path, images)), FLOAT32, "net")


def test_figures_of_known_arrays() -> None:
    reference = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    logits = np.array([[1.0, 0.0], [0.5, 2.0]], np.float32)
    found = compare(reference, logits, np.array([0, 0]))
    assert found.max_abs_error == 0.5
    assert found.sqnr_db == pytest.approx(10 * math.log10(5 / 0.25))
    assert found.typical_sqnr_db == math.inf  # between equal and 12 dB
    assert (found.argmax_agreement, found.accuracy) == (1.0, 0.5)
    # Right is what the file says, whatever the network says.
    turned = compare(reference, logits[::-1].copy(), np.array([1, 0]))
    assert (turned.argmax_agreement, turned.accuracy) == (0.0, 1.0)
    assert compare(reference, reference).sqnr_db == math.inf
    with pytest.raises(ConfigError, match=r"\(1, 2\) cannot be compared with \(2, 2\)"):
        compare(reference, logits[:1])


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("quantized", [False, True])
def test_the_file_says_how_it_takes_images(
    tmp_path: Path,
    format_: str,
    quantized: bool,  # noqa: FBT001
) -> None:
    model, images, _ = case()
    if quantized:
        model = calibrate(model, images)
    path = tmp_path / f"net{create(format_).suffix}"
    write(path, model)
    io = describe_file(path)
    integer = quantized and format_ == "tflite"
    assert io.layout == ("NHWC" if format_ == "tflite" else "NCHW")
    assert io.input.shape == ((1, 16, 12, 3) if format_ == "tflite" else (1, 3, 16, 12))
    assert (io.input.dtype, io.output.dtype) == (("int8",) * 2 if integer else ("float32",) * 2)
    packed = io.pack(images)
    assert packed.shape == (20, *io.input.shape[1:])
    assert packed.flags.c_contiguous
    if integer:
        assert model.quantization is not None
        assert io.input.scale == pytest.approx(model.quantization["input"].scale)
        assert io.output.zero_point == model.quantization["dense.0"].zero_point
    # What a device sends back: raw bytes, samples first.
    given = {io.input.name: packed[:, None]}
    raw = create(format_).run(path.read_bytes(), given)[io.output.name]
    np.testing.assert_array_equal(io.unpack(raw.tobytes()), io.unpack(raw))
    np.testing.assert_array_equal(io.unpack(raw), run_file(path, images))


def test_packing_saturates_and_unpacking_inverts() -> None:
    params = QParams.of_range(-1, 1)
    ends = [TensorFormat(n, "int8", s, params.scale, params.zero_point)
            for n, s in (("x", (1, 1, 2, 1)), ("y", (1, 2)))]  # fmt: skip
    io = FileEnds("NHWC", (ends[0],), (ends[1],))
    images = np.array([[[[-9.0, 0.5]]]], np.float32)  # (1, C=1, H=1, W=2)
    packed = io.pack(images)
    assert packed.tolist() == [[[[-128], [int(params.quantize(np.float32(0.5)))]]]]
    np.testing.assert_allclose(io.unpack(packed), [[-1.0, 0.5]], atol=params.scale)
    with pytest.raises(ConfigError, match=r"images of shape \(1, 2, 1, 1\) do not fit"):
        io.pack(images.reshape(1, 2, 1, 1))


def test_one_image_beyond_calibration_does_not_fail_a_good_file() -> None:
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((50, 5)).astype(np.float32)
    logits = reference + rng.standard_normal((50, 5)).astype(np.float32) * np.float32(0.01)
    reference[7] *= 100  # saturated in the file
    found = compare(reference, logits)
    assert found.sqnr_db < 1
    check(found, STATIC8, "net")
    logits[:26] = 0
    with pytest.raises(VerificationError, match=r"the median SQNR is -?0\.0 dB \(at least 10\)"):
        check(compare(reference, logits), STATIC8, "net")


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
def test_a_file_that_overflows_fails_in_a_sentence(value: float) -> None:
    reference = np.eye(5, dtype=np.float32)
    logits = np.full((5, 5), value, np.float32)
    with pytest.raises(VerificationError, match="does not compute what the network computes"):
        check(compare(reference, logits), FLOAT32, "net")


def test_bad_questions_are_answered_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no known suffix; known: ") as caught:
        describe_file(tmp_path / "net.pb")
    known = str(caught.value).rpartition("known: ")[2].split(", ")
    assert known == [create(name).suffix for name in FORMAT_FOLDER.names()]
    with pytest.raises(ConfigError, match=r"no model file"):
        describe_file(tmp_path / "net.tflite")
    (tmp_path / "net.tflite").write_bytes(b"not a model")
    with pytest.raises(
        ConfigError, match="is no model file: it is a text that begins 'not a model'"
    ):
        describe_file(tmp_path / "net.tflite")
    with pytest.raises(ConfigError, match="no export format 'coreml' known; have"):
        create("coreml")


@pytest.mark.parametrize("format_", FORMATS)
def test_the_number_format_is_read_back_from_the_file(format_: str) -> None:
    plain, images, _ = case()
    model, exporter = calibrate(plain, images), create(format_)
    found = exporter.read_quantization(exporter.write(model), model.graph)
    assert found is not None
    assert model.quantization is not None
    assert found.tensors == model.quantization.tensors
    assert found.dense_per_output == (format_ == "onnx")
    assert exporter.read_quantization(exporter.write(plain), model.graph) is None
    other = lower(ArchSpec.parse("16x12x3:same:conv_k3_s2_o8:conv_k3_s1_o8:fc5"))
    assert exporter.read_quantization(exporter.write(model), other) is None


@pytest.mark.parametrize("format_", FORMATS)
def test_damaged_scales_end_in_a_sentence_or_in_no_comparison(format_: str) -> None:
    model, images, _ = case()
    model, exporter = calibrate(model, images), create(format_)
    content = exporter.write(model)
    ends: Counter[str] = Counter()
    for seed in range(150):
        broken = damaged(content, np.random.default_rng(seed))
        try:
            found = compute_integers(exporter, broken, model, images[:1])
            ends["none" if found is None else "compared"] += 1
        except VerificationError:
            ends["refused"] += 1
    assert ends["none"] > 20
    assert ends["compared"] > 20


class Careless:
    """A format with a fault, everything else as in the real one."""

    def __init__(self, format_: str, fault: str) -> None:
        self.real, self.fault = create(format_), fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def write(self, model: Model) -> bytes:
        assert model.quantization is not None
        tensors, weights = dict(model.quantization.tensors), dict(model.weights)
        if self.fault == "scale":
            tensors["blocks.0.conv"] = QParams(tensors["blocks.0.conv"].scale * 1.01, -128)
        elif self.fault == "weight":
            # Two channels of its first layer upside down.
            weight, bias = weights["blocks.0.conv"]
            part = np.concatenate([weight[:2, ::-1], weight[2:]])
            weights["blocks.0.conv"] = (part, bias)
        quantization = replace(model.quantization, tensors=tensors)
        content: bytes = self.real.write(replace(model, weights=weights, quantization=quantization))
        return content


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("scale", "does not hold the scales .*: the writer or onnx-simplifier changed them"),
        ("weight", "does not compute what its codes mean: .* are at fault, not the quantisation"),
    ],
)
def test_a_writers_fault_is_told_from_the_quantisations(
    format_: str, fault: str, sentence: str
) -> None:
    model, images, expected = case()
    model, careless = calibrate(model, images), Careless(format_, fault)
    with pytest.raises(VerificationError, match=sentence):
        write_verified(careless, "net", model, images, expected)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_bad_quantisation_is_named_as_the_fault(format_: str) -> None:
    model, images, expected = case()
    calibrated = calibrate(model, images).quantization
    assert calibrated is not None
    tensors = {
        name: QParams(params.scale / (60 if name == "blocks.0.conv" else 1), params.zero_point)
        for name, params in calibrated.tensors.items()
    }
    bad = model.with_quantization(Quantization(tensors), done="badly")
    with pytest.raises(VerificationError, match="the file is right and int8 costs"):
        write_verified(create(format_), "net", bad, images, expected)


def test_figures_beside_integers_of_known_arrays() -> None:
    reference = np.full((4, 2), 100, np.float32)
    exact = reference + np.float32(2)  # a noise of two steps of 1.0
    found = compare(reference, exact + np.float32(0.5), None, Integers(exact, 1.0)).integers
    assert found is not None
    assert found.sqnr_db == found.typical_sqnr_db == pytest.approx(20 * math.log10(50))
    assert found.excess_steps == pytest.approx(2.5 - 2 * 10**0.1)
    assert (found.strayed, found.farthest_steps) == (0, pytest.approx(0.5))
    assert found.agrees
    # 2 dB and a step more are the limit for all images, and for one image what rounding explains.
    worse = compare(reference, exact + np.float32(1.6), None, Integers(exact, 1.0)).integers
    assert worse is not None
    assert not worse.agrees
    one = exact.copy()
    one[3] -= 9
    strayed = compare(reference, one, None, Integers(exact, 1.0)).integers
    assert strayed is not None
    assert (strayed.strayed, strayed.agrees) == (1, False)
    nan = compare(reference, exact * np.float32(np.nan), None, Integers(exact, 1.0)).integers
    assert nan is not None
    assert not nan.agrees


def test_figures_survive_json() -> None:
    model, images, expected = case()
    _, found = write_verified(create("tflite"), "net", calibrate(model, images), images, expected)
    assert Verification.from_json(json.loads(json.dumps(asdict(found)))) == found


def test_a_refused_network_is_no_file() -> None:
    model, images, expected = case()
    with pytest.raises(ExportError, match=r"op 'blocks\.0\.conv' has no weights"):
        write_verified(create("tflite"), "net", replace(model, weights={}), images, expected)
