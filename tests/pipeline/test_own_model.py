"""A recipe with a [model]: a user's own model, read, quantised, verified, measured, deployed."""

from __future__ import annotations

import html
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from device_agents.errors import ConfigError
from models.graph import GraphBuilder
from models.model import Input, Model, Output, random_model
from models.ops import Conv, Dense, Mean
from pipeline.formats import create
from pipeline.recipe.recipe import Recipe, RecipeError
from pipeline.store import Store
from pipeline.store.model_result import ModelResult
from tests.other_models import need
from tests.pipeline.test_run import device_of_its_own, done_by

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

CLASSES = ("blue", "green", "red")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with device_of_its_own(tmp_path) as folder:
        yield folder


def tell_colours() -> Model:
    """Return a network that names the colour of a picture, fed with pixels / 255."""
    builder = GraphBuilder()
    x = builder.input("picture", (1, 12, 10, 3))
    x = builder.op("conv", "conv", [x], Conv(kernel=(3, 3), padding=(1, 1, 1, 1), out=3))
    x = builder.op("mean", "pool", [x], Mean(keepdims=False))
    builder.op("dense", "classify", [x], Dense(units=3))
    model = random_model(builder.graph(), np.random.default_rng(0))
    weights = {name: tuple(np.zeros_like(a) for a in own) for name, own in model.weights.items()}
    weights["conv"][0][np.arange(3), 1, 1, np.arange(3)] = 1
    weights["classify"][0][:] = np.eye(3)[::-1]  # blue, green, red of red, green, blue
    fed = Input("picture", "NHWC", (0.0,), (1 / 255,), "RGB")
    return Model(model.graph, weights, inputs=(fed,), outputs=(Output("colour"),))


def paint(folder: Path, each: int = 20) -> Path:
    """Write pictures that are mostly blue, green or red."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(CLASSES):
        for number in range(each):
            pixels = rng.integers(0, 120, (12, 10, 3), np.uint8)
            pixels[..., 2 - place] += 90
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return folder


def recipe(place: Path, model: Path | str, more: str) -> Path:
    path = place / "own.toml"
    path.write_text(
        f'name = "own"\n{more}\n[model]\nfile = "{model}"\n'
        '[device]\nprotocol = "quick"\n[quantize]\ncalibration_images = 30\n'
    )
    return path


def with_pictures(place: Path, model: Path, options: str = "") -> Path:
    pictures = paint(place / "pictures")
    data = f'[data]\nname = "images"\noptions = {{ path = "{pictures}"{options} }}'
    return recipe(place, model, data)


def run(place: Path, path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(place, path, *more), capture_output=True, text=True, timeout=600, check=False
    )


def command(place: Path, path: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "pipeline.cli.main", "run", str(path),
        "--store", str(place / "store"), "--device", "board", "--verbose", *more,
    ]  # fmt: skip


def result_of(place: Path) -> ModelResult:
    with Store.open(place / "store", create=False) as store:
        found = store.result()
    assert isinstance(found, ModelResult)
    return found


def test_a_mistyped_path_leaves_no_run_behind(place: Path) -> None:
    said = run(place, with_pictures(place, place / "colour.npz"))
    assert (said.returncode, said.stdout) == (2, "")
    assert "colour.npz': there is no such file; model.file is a path" in said.stderr
    with Store.open(place / "store") as store:
        assert store.runs() == []


def test_a_model_is_quantised_verified_measured_deployed_and_reported(place: Path) -> None:
    source = place / "colours.npz"
    tell_colours().save(source)
    path = with_pictures(place, source)
    said = run(place, path)
    assert said.returncode == 0, said.stderr
    found = result_of(place)
    assert [row.name for row in found.files] == [
        "tflite static8", "tflite float32", "onnx static8", "onnx float32",
    ]  # fmt: skip
    for row in found.files:
        assert (row.score_host, row.score_device) == ("100.00%", "100.00%")
        assert row.latency_ms is not None
        assert row.sqnr_db is not None
        assert row.sqnr_db > (20 if row.scheme == "static8" else 80)
    assert found.deployed["file"] == "tflite static8"
    assert Path(found.deployed["path"]).read_bytes() == Path(found.files[0].path).read_bytes()
    assert found.files[0].ratio is not None
    assert found.files[0].beside == "tflite float32"
    assert found.metric == "accuracy"
    assert "colours.npz: the tflite static8 file is in use" in said.stdout
    page = (place / "store" / "runs" / found.run_id / "report.html").read_text()
    for shown in ("colours.npz", "1 conv", "tflite static8", "100.00%", found.deployed["version"]):
        assert shown in page
    assert "report: " in said.stdout

    again = run(place, path)
    assert again.returncode == 0
    assert not done_by(again.stderr)
    told = run_command(place, "runs")
    assert "colours.npz: the tflite static8 file is in use" in " ".join(told.split())
    run_command(place, "report", found.run_id, "-o", str(place / "page.html"))
    assert found.sentence in (place / "page.html").read_text()


def run_command(place: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", *words, "--store", str(place / "store")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "300"},
    )
    return done.stdout


def test_a_users_own_file_is_measured_beside_what_is_made_of_it(place: Path) -> None:
    source = place / "colours.tflite"
    source.write_bytes(create("tflite").write(tell_colours()))
    fed = ", mean = [0.0], scale = [0.00392156862745098]"
    said = run(place, with_pictures(place, source, fed))
    assert said.returncode == 0, said.stderr
    found = result_of(place)
    first, *others = found.files
    assert first.name == "as it came"
    assert Path(first.path).read_bytes() == source.read_bytes()
    assert first.score_device == "100.00%"
    beside = {row.name: row.beside for row in others}
    assert beside["tflite static8"] == "as it came"
    assert beside["onnx static8"] == "onnx float32"


def test_layers_stay_in_float32_until_a_model_loses_no_more_than_the_recipe_allows(
    place: Path,
) -> None:
    """One weight that dwarfs the others, of a channel that is hardly there, spoils int8."""
    network = tell_colours()
    weight, bias = network.weights["classify"]
    conv, shift = (array.copy() for array in network.weights["conv"])
    conv[:, 0, 0, 0] = 300
    weights = {**network.weights, "conv": (conv, shift), "classify": (weight, bias)}
    source = place / "spoilt.npz"
    Model(network.graph, weights, outputs=network.outputs).save(source)
    rng = np.random.default_rng(0)
    pictures = rng.random((60, 12, 10, 3), np.float32)
    pictures[..., 0] *= 1e-5
    np.savez(place / "data.npz", picture=pictures)
    path = recipe(place, source, "")
    more = 'max_drop = 1\nfloat_layers = ["pool"]\n[export]\nformats = ["tflite"]\n'
    path.write_text(path.read_text() + more)
    said = run(place, path, "--set", f"model.data={place / 'data.npz'}")
    assert said.returncode == 0, said.stderr
    found = result_of(place)
    row = found.files[0]
    assert row.name == "tflite static8"
    assert row.drop_points is not None
    assert row.drop_points <= 1
    assert "conv" in row.left_in_float32
    assert "left in float32 for it: conv" in row.drop_words
    assert row.drop_words in said.stderr + said.stdout
    page = (place / "store" / "runs" / found.run_id / "report.html").read_text()
    assert row.drop_words in html.unescape(page)
    assert found.recipe["quantize"]["float_layers"] == ["pool"]
    again = run(place, path, "--set", f"model.data={place / 'data.npz'}")
    assert again.returncode == 0, again.stderr
    assert not done_by(again.stderr)


def test_arrays_of_any_inputs_are_compared_where_there_are_no_labels(place: Path) -> None:
    builder = GraphBuilder()
    sound = builder.input("sound", (1, 16))
    speed = builder.input("speed", (1, 16))
    builder.op("dense", "mix", [builder.op("add", "sum", [sound, speed])], Dense(units=4))
    source = place / "mix.npz"
    random_model(builder.graph(), np.random.default_rng(0)).save(source)
    rng = np.random.default_rng(1)
    np.savez(
        place / "data.npz",
        sound=rng.standard_normal((50, 16)).astype(np.float32),
        speed=rng.standard_normal((50, 16)).astype(np.float32),
    )
    path = recipe(place, source, "")
    path.write_text(path.read_text() + '[export]\nformats = ["tflite"]\n')
    said = run(place, path, "--set", f"model.data={place / 'data.npz'}")
    assert said.returncode == 0, said.stderr
    found = result_of(place)
    assert found.metric == "agreement"
    scores = {row.name: float(str(row.score_device).rstrip("%")) for row in found.files}
    assert scores["tflite float32"] == 100.0
    assert 99.0 < scores["tflite static8"] < 100.0


@pytest.mark.parametrize(
    ("name", "arrays", "shapes"),
    [
        ("silero-openvino.onnx", {"input": (30, 576), "state": (30, 2, 1, 128)}, ""),
        (
            "silero.onnx",
            {"input": (30, 512), "state": (30, 2, 1, 128), "sr": ()},
            "input = [1, 512], state = [2, 1, 128]",
        ),
        ("alexa.tflite", {"serving_default_input_audio:0": (30, 3, 40)}, ""),
    ],
)
def test_what_no_graph_can_say_is_measured_and_put_in_use_as_it_came(
    place: Path, name: str, arrays: dict[str, tuple[int, ...]], shapes: str
) -> None:
    source = need(name)
    rng = np.random.default_rng(0)
    drawn = {key: rng.standard_normal(shape) if shape else 16000 for key, shape in arrays.items()}
    np.savez(place / "data.npz", **drawn)
    path = recipe(place, source, "")
    text = path.read_text().replace("calibration_images = 30", 'scheme = "float32"')
    more = f'data = "{place / "data.npz"}"\nshapes = {{ {shapes} }}\n[device]'
    path.write_text(text.replace("[device]", more))
    said = run(place, path)
    found = result_of(place)
    assert [row.name for row in found.files] == ["as it came"]
    # silero.onnx refuses any sampling rate but its own, so it is timed on what it is given.
    assert said.returncode == 0, said.stderr
    assert found.files[0].latency_ms is not None
    assert found.files[0].score_device == "100.00%"
    assert found.deployed["file"] == "as it came"
    assert "has ops that are not known here" in found.unsupported
    assert found.unsupported[:60] in (
        place / "store" / "runs" / found.run_id / "report.html"
    ).read_text().replace("&#39;", "'")


def test_a_run_that_is_killed_goes_on_where_it_was(place: Path) -> None:
    source = place / "colours.npz"
    tell_colours().save(source)
    path = with_pictures(place, source)
    rng = random.Random(3)
    seen: list[str] = []
    for _ in range(3):
        child = subprocess.Popen(command(place, path), stderr=subprocess.PIPE, text=True)
        assert child.stderr is not None
        wanted = rng.randint(1, 4)
        for line in child.stderr:
            seen += [line] if line.startswith("did ") else []
            wanted -= line.startswith("did ")
            if not wanted:
                break
        child.send_signal(signal.SIGKILL)
        with suppress(OSError):
            child.stderr.close()
        child.wait()
        time.sleep(0.1)
    said = run(place, path)
    assert said.returncode == 0, said.stderr
    seen += [line for line in said.stderr.splitlines(keepends=True) if line.startswith("did ")]
    assert len(seen) == len(set(seen))
    assert result_of(place).deployed["file"] == "tflite static8"


def test_what_fails_is_named_and_the_rest_is_put_in_use(place: Path) -> None:
    """Scores need as many classes as the network has; the files themselves are good."""
    source = place / "colours.npz"
    tell_colours().save(source)
    paint(place / "pictures" / "a" / "b")
    rng = np.random.default_rng(0)
    np.savez(place / "data.npz", picture=rng.random((40, 12, 10, 3)), labels=rng.random((40, 2)))
    path = recipe(place, source, "")
    said = run(place, path, "--set", f"model.data={place / 'data.npz'}")
    assert said.returncode == 5
    assert "needs 2 numbers for each sample" in said.stderr
    found = result_of(place)
    assert found.metric == "MAE"
    assert found.deployed["file"] == "tflite static8"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "needs either [data], for pictures, or model.data"),
        ('[data]\nname = "digits"\n[target]\nbaseline = "mobilenet-v1"', "[model] and [target]"),
    ],
)
def test_a_recipe_says_what_a_model_needs(place: Path, more: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(recipe(place, "x.onnx", more))
    assert said in str(caught.value)


def test_the_fastest_number_format_is_put_in_use_and_the_page_says_by_how_much(
    place: Path,
) -> None:
    source = place / "colours.npz"
    tell_colours().save(source)
    more = ("--set", "quantize.scheme=fastest", "--set", 'export.formats=["tflite"]')
    said = run(place, with_pictures(place, source), *more)
    assert said.returncode == 0, said.stderr
    found = result_of(place)
    assert [row.name for row in found.files] == [
        "tflite static8", "tflite float32", "tflite float16", "tflite dynamic8",
    ]  # fmt: skip
    surely = {
        row.name: row.ratio
        for row in found.files
        if row.ratio is not None and row.ratio_ci95 is not None and row.ratio_ci95[1] < 1
    }
    best = min(surely, key=lambda name: surely[name]) if surely else "tflite float32"
    assert found.deployed["file"] == best
    told = "the fastest file is" if surely else "no file shows to be faster than"
    (words,) = [words for words in found.cautions if f"{told} {best}" in words]
    assert f"tflite static8 {found.files[0].ratio:.2f} of its latency" in words
    page = (place / "store" / "runs" / found.run_id / "report.html").read_text()
    assert words in html.unescape(page)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('max_drop = 1\nscheme = "float32"', "max_drop goes with static8, and scheme"),
        ("max_drop = -1", "max_drop"),
        ('float_layers = ["head"]', "quantize.float_layers is for a model of your own"),
        ("max_drops = 1", "did you mean 'max_drop'?"),
    ],
)
def test_a_recipe_says_what_goes_with_what_is_asked_of_layers(
    place: Path, text: str, said: str
) -> None:
    path = place / "search.toml"
    path.write_text(f'name = "a"\n[data]\nname = "digits"\n[quantize]\n{text}\n')
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    assert said in str(caught.value)


def test_a_model_that_is_not_there_is_named(place: Path) -> None:
    said = run(place, with_pictures(place, place / "none.onnx"))
    assert said.returncode == 2
    assert "none.onnx" in said.stderr
    assert len(said.stderr.strip().splitlines()[-1]) < 400


def test_recipes_of_before_keep_their_digests() -> None:
    digits = Recipe.load(Path(__file__).parents[2] / "recipes" / "digits.toml")
    assert "model" not in digits.to_json()
    assert digits.to_json()["quantize"].keys() == {"scheme", "calibration_images"}
    assert json.loads(json.dumps(digits.to_json())) == digits.to_json()
    assert Recipe.from_json(digits.to_json()) == digits


def test_a_command_that_needs_data_says_so(place: Path) -> None:
    path = recipe(place, "x.onnx", "")
    path.write_text(path.read_text().replace("[model]\n", f'[model]\ndata = "{place}"\n'))
    with pytest.raises(ConfigError, match=r"has no \[data\], which `edgewright tune` needs"):
        Recipe.load(path).need_data("tune")
