"""What every file format promises; a new folder in pipeline/formats is tested without a word."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings

import pipeline.formats
from device_agents.errors import ConfigError
from models.execute import execute, execute_all
from models.graph import INPUT, Graph, GraphBuilder
from models.lower import lower
from models.model import Model, random_model
from models.number_format import FLOAT32, NumberFormat
from models.ops import KINDS, Conv, Dense, Mean
from models.spec import ArchSpec
from pipeline.compress.api import Needs
from pipeline.compress.chain import apply_passes, plan_quantization, to_model
from pipeline.formats import FORMATS, create
from pipeline.formats.api import ExportError
from pipeline.formats.figures import compare
from pipeline.formats.files import (
    describe_file,
    find_format,
    run_content,
    run_file,
    run_inputs,
)
from pipeline.formats.limits import LIMITS, check
from pipeline.formats.verify import compute_integers
from tests.spec_strategies import REPLAY, specs

if TYPE_CHECKING:
    from pipeline.formats.api import Format

LINE = "16x12x3:same:conv_k3_s2_o8:mb_k3_s1_m16_o8_se4-relu-hardsigmoid_skip:fc5"
FILES = ("write.py", "run.py", "describe.py")


@pytest.fixture(params=FORMATS.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def case(
    spec: ArchSpec, number_format: NumberFormat = FLOAT32
) -> tuple[Model, np.ndarray[Any, Any]]:
    """A random network in a number format, with the images that it was calibrated on."""
    height, width, channels = spec.input
    rng = np.random.default_rng(7)
    images = rng.standard_normal((6, channels, height, width), np.float32)
    passes = plan_quantization(number_format, images=len(images))
    model = to_model(apply_passes(random_model(lower(spec), rng), passes, Needs(images)))
    return model, images


def one_case(number_format: NumberFormat = FLOAT32) -> tuple[Model, np.ndarray[Any, Any]]:
    return case(ArchSpec.parse(LINE), number_format)


def test_a_format_is_named_like_its_folder_which_says_what_does_what(name: str) -> None:
    found = create(name)
    assert found.name == name
    assert found.layout in ("NHWC", "NCHW")
    assert FORMATS.summary(name).endswith(".")
    folder = Path(pipeline.formats.__path__[0], name)
    assert {path.name for path in folder.iterdir()} >= set(FILES)


def test_a_suffix_tells_the_format() -> None:
    suffixes = [create(name).suffix for name in FORMATS.names()]
    assert len(set(suffixes)) == len(suffixes)
    for name, suffix in zip(FORMATS.names(), suffixes, strict=True):
        assert suffix.startswith(".")
        assert find_format(Path(f"net{suffix}")).name == name
    with pytest.raises(ConfigError, match=r"known: \.\w+, \.\w+"):
        find_format(Path("net.pb"))


def test_it_writes_float32_and_only_what_has_limits(name: str) -> None:
    formats = create(name).number_formats
    assert formats[0] == FLOAT32
    assert set(formats) <= set(LIMITS)


def test_asking_for_a_format_loads_no_runtime(name: str) -> None:
    code = (
        "import sys\n"
        "from pipeline.formats import create\n"
        f"create({name!r}).number_formats\n"
        "heavy = {'torch', 'tensorflow', 'onnx', 'onnxruntime', 'ai_edge_litert'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)\n"
    )
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


def assert_right(found: Format, spec: ArchSpec, number_format: NumberFormat) -> None:
    """A file computes what the model does: to rounding in floats, to its own codes in integers."""
    model, images = case(spec, number_format)
    content = found.write(model)
    ends = found.describe(content)
    height, width, channels = spec.input
    nhwc = (1, height, width, channels)
    assert ends.input.shape == (nhwc if found.layout == "NHWC" else (1, channels, height, width))
    expected = execute(model, images).numpy()
    outputs = run_content(found, content, images)
    assert outputs.shape == expected.shape
    integers = compute_integers(found, content, model, images)
    if number_format.is_static:
        assert integers is not None
        codes = compare(expected, outputs, None, integers).integers
        assert codes is not None
        assert codes.agrees
    else:
        assert integers is None
        beside = compare(expected, outputs)
        if number_format.weights == "int8":
            # Among outputs this near each other the class is left to chance.
            assert beside.typical_sqnr_db >= LIMITS[number_format].typical_sqnr_db
        else:
            check(beside, number_format, found.name)


@settings(REPLAY, max_examples=15)
@given(specs())
def test_what_is_written_describes_itself_and_computes_what_the_model_does(spec: ArchSpec) -> None:
    for name in FORMATS.names():
        for number_format in create(name).number_formats:
            assert_right(create(name), spec, number_format)


def test_the_same_model_gives_the_same_bytes(name: str) -> None:
    for number_format in create(name).number_formats:
        files = {create(name).write(one_case(number_format)[0]) for _ in range(2)}
        assert len(files) == 1
        # What was done to get there is not in the file.
        other = replace(one_case(number_format)[0], history=("made in another way",))
        assert files == {create(name).write(other)}


def test_a_model_is_not_changed_by_writing_it(name: str) -> None:
    for number_format in create(name).number_formats:
        model, _ = one_case(number_format)
        before = model.digest()
        create(name).write(model)
        assert model.digest() == before


def test_a_file_tells_its_number_format(name: str) -> None:
    found = create(name)
    for number_format in found.number_formats:
        content = found.write(one_case(number_format)[0])
        assert found.read_number_format(content) == number_format
    with pytest.raises(ConfigError):
        found.read_number_format(b"hello")


def test_a_file_tells_with_what_numbers_it_computes(name: str) -> None:
    found = create(name)
    for number_format in found.number_formats:
        content = found.write(one_case(number_format)[0])
        computes = {"int8": "integers", "float16": "halves"}.get(number_format.weights, "floats")
        assert found.read_numbers(content) == computes


def test_scales_are_read_back_as_they_were_written(name: str) -> None:
    found = create(name)
    for number_format in found.number_formats:
        model, _ = one_case(number_format)
        read = found.read_quantization(found.write(model), model.graph)
        if model.quantization is None or not model.quantization.tensors:
            assert read is None
        else:
            assert read is not None
            assert read.tensors == model.quantization.tensors


def test_a_file_by_its_path_is_the_same_as_by_its_bytes(name: str, tmp_path: Path) -> None:
    found, (model, images) = create(name), one_case()
    content = found.write(model)
    path = tmp_path / f"net{found.suffix}"
    path.write_bytes(content)
    assert describe_file(path) == found.describe(content)
    np.testing.assert_array_equal(run_file(path, images), run_content(found, content, images))
    for broken in (b"", content[: len(content) // 2], b"hello"):
        path.write_bytes(broken)
        with pytest.raises(ConfigError, match=re.escape(str(path))):
            describe_file(path)
    path.unlink()
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        describe_file(path)


def test_files_of_several_inputs_and_outputs_run_by_their_names(name: str, tmp_path: Path) -> None:
    builder = GraphBuilder()
    image, state = builder.input("image", (1, 9, 7, 3)), builder.input("state", (1, 6))
    features = builder.op("conv", "features", [image], Conv(out=6))
    pooled = builder.op("mean", "pooled", [features], Mean(keepdims=False))
    new = builder.op("add", "new", [pooled, state])
    model = random_model(
        builder.graph(new, builder.op("dense", "scores", [new], Dense(4))),
        np.random.default_rng(3),
    )
    rng, found = np.random.default_rng(4), create(name)
    inputs = {
        tensor.name: rng.standard_normal((3, *tensor.shape[1:]), np.float32)
        for tensor in model.graph.inputs
    }
    path = tmp_path / f"net{found.suffix}"
    path.write_bytes(found.write(model))
    ends = describe_file(path)
    assert [item.name for item in (*ends.inputs, *ends.outputs)] == [
        *("image", "state", "new", "scores"),
    ]
    given = {key: value[:, None] for key, value in inputs.items()}
    if found.layout == "NCHW":
        given["image"] = given["image"].transpose(0, 1, 4, 2, 3)
    for apart in (False, True):
        outputs = run_inputs(path, given, apart=apart)
        for key, value in execute_all(model, inputs).items():
            assert outputs[key].shape == (3, 1, *value.shape[1:])
            np.testing.assert_allclose(outputs[key][:, 0], value, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match=r"net\.\w+: the file needs the input 'state' too"):
        run_inputs(path, {"image": given["image"]})


def test_an_op_that_it_cannot_write_is_refused_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "gate", KINDS["add"])  # type: ignore[arg-type]
    builder = GraphBuilder()
    builder.input(INPUT, (1, 8, 8, 4))
    builder.op("gate", "unheard-of", [INPUT, INPUT])
    graph: Graph = builder.graph()
    with pytest.raises(ExportError, match=r"op 'unheard-of' is a 'gate'.*known: .*conv"):
        create(name).write(Model(graph, {}))


def test_an_activation_that_it_cannot_write_is_refused_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = KINDS["act"]
    more = replace(row, activations=(*row.activations, "swoosh"))
    monkeypatch.setitem(KINDS, "act", more)  # type: ignore[arg-type]
    builder = GraphBuilder()
    conv = builder.op("conv", "conv", [builder.input(INPUT, (1, 8, 8, 4))], Conv(out=4))
    builder.op("act", "gate", [conv], act="swoosh")
    model = random_model(builder.graph(), np.random.default_rng(0))
    with pytest.raises(ExportError, match=r"op 'gate' is the activation 'swoosh'.*known: .*silu"):
        create(name).write(model)


def test_a_number_format_that_it_does_not_write_is_refused(name: str) -> None:
    model, _ = one_case()
    other = NumberFormat("int4", "int8", "codebook", "static")
    unwritten = said_to_be(model, other)
    with pytest.raises(ExportError, match=f"{name} files hold float32.*, not static-int4-int8-"):
        create(name).write(unwritten)


def said_to_be(model: Model, number_format: NumberFormat) -> Model:
    """The model, said to be in a number format that nobody writes."""
    static, _ = one_case(NumberFormat.parse("static8"))
    assert static.quantization is not None
    return model.with_quantization(
        replace(static.quantization, number_format=number_format), done="said so"
    )


def test_what_is_no_file_of_the_format_is_refused_in_a_sentence(name: str) -> None:
    for content in (b"", b"hello", bytes(200)):
        with pytest.raises(ConfigError) as caught:
            create(name).describe(content)
        assert "\n" not in str(caught.value)
        with pytest.raises(ConfigError) as caught:
            create(name).run(content, {"x": np.zeros((1, 1, 4), np.float32)})
        assert "\n" not in str(caught.value)
