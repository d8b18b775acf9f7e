"""A recipe with [[compress]]: passes on a user's own model, judged, timed, deployed, reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.model_files import what_is
from models.lower import lower
from models.model import Input, Model, Output, random_model
from models.spec import ArchSpec
from pipeline.formats import create
from pipeline.formats.api import ReadOptions
from pipeline.formats.source import read_model
from pipeline.store import Store
from pipeline.store.result import RunResult
from tests.pipeline.test_own_model import CLASSES, paint, result_of, run
from tests.pipeline.test_run import device_of_its_own, done_by

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.store.compression import Compression

pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parents[2] / "recipes" / "compress-digits.toml"
SPEC = "12x10x3:same:conv_k3_s2_o16:conv_k3_s1_o24:fc3"
CHAIN = """
[[compress]]
pass = "finetune"
epochs = 12
batch_size = 16
learning_rate = 0.02
distillation = 0.0

[[compress]]
pass = "prune"
ratio = 0.5
multiple = 4

[[compress]]
pass = "finetune"
epochs = 2
batch_size = 16
"""
QUANTIZE = """
[[compress]]
pass = "quantize"
format = "static8"
images = 30
max_drop = 50
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with device_of_its_own(tmp_path) as folder:
        yield folder


def write_recipe(place: Path, chain: str, suffix: str) -> Path:
    """Write a network that knows nothing yet as a file, and a recipe that has it learn colours."""
    net = random_model(lower(ArchSpec.parse(SPEC)), np.random.default_rng(0))
    fed = Input("picture", "NHWC", (0.0,), (1 / 255,), "RGB")
    net = Model(net.graph, net.weights, inputs=(fed,), outputs=(Output("colour", CLASSES),))
    source = place / f"net{suffix}"
    if suffix == ".npz":
        net.save(source)
    else:
        source.write_bytes(create(suffix[1:]).write(net))
    path = place / "chain.toml"
    pictures = paint(place / "pictures")
    path.write_text(
        f'name = "chain"\n[data]\nname = "images"\noptions = {{ path = "{pictures}" }}\n'
        f'[model]\nfile = "{source}"\n[device]\nprotocol = "quick"\n{chain}'
    )
    return path


def compression_of(place: Path) -> Compression:
    found = result_of(place).compression
    assert found is not None
    return found


def test_the_passes_of_a_recipe_are_done_judged_timed_and_put_in_use(place: Path) -> None:
    path = write_recipe(place, CHAIN + QUANTIZE, ".tflite")
    said = run(place, path)
    assert said.returncode == 0, said.stderr
    result, found = result_of(place), compression_of(place)
    names = [step.name.partition(":")[0] for step in found.steps]
    assert names == ["as it came", "finetune", "prune", "finetune", "quantize"]
    first, taught, pruned, _, last = found.steps
    assert (found.metric, found.format, found.device) == ("accuracy", "tflite", "board")
    assert taught.score is not None
    assert first.score is not None
    assert taught.score > first.score
    assert pruned.params < 0.6 * taught.params
    assert last.bytes < first.bytes
    assert last.packed_bytes is not None
    assert all(step.latency_ms for step in found.steps)
    assert first.ratio is None
    assert all(step.ratio for step in found.steps[1:])
    assert found.compression_rate(last) == first.bytes / last.bytes
    assert sum(layer.after for layer in found.layers) < sum(one.before for one in found.layers)

    rows = {row.name: row for row in result.files}
    assert set(rows) == {
        "as it came", "tflite static8", "tflite float32", "onnx static8", "onnx float32",
    }  # fmt: skip
    assert not result.failed
    assert result.in_use is rows["tflite static8"]
    assert rows["tflite static8"].bytes == last.bytes, "what was judged is what is written"
    assert what_is(Path(rows["tflite float32"].path)).name == "tflite"

    again = run(place, path)
    assert (again.returncode, done_by(again.stderr)) == (0, {}), again.stderr
    assert compression_of(place) == found
    (folder,) = (place / "store" / "runs").glob("chain-*")
    text = (folder / "report.html").read_text()
    assert text.count('data-figure="figure-compression-') == 2
    assert all(step.name in text for step in found.steps)


def test_a_chain_without_numbers_is_followed_by_those_of_the_recipe(place: Path) -> None:
    """The file has channels first, what is written of it channels last too."""
    prune = '[[compress]]\npass = "prune"\nratio = 0.5\nmultiple = 4\n'
    numbers = "[quantize]\ncalibration_images = 30\n"
    path = write_recipe(place, prune + numbers, ".onnx")
    said = run(place, path, "--until", "train")
    assert said.returncode == 0, said.stderr
    (folder,) = (place / "store" / "runs").glob("chain-*")
    names = {"net-float32.onnx", "net-float32.tflite", "net-static8.onnx", "net-static8.tflite"}
    assert names <= {file.name for file in folder.iterdir()}
    made = read_model(str(folder / "net-float32.tflite"), ReadOptions())
    assert isinstance(made, Model)
    assert [op.out_shape[-1] for op in made.graph.ops if op.kind == "conv"] == [8, 12]


def test_the_shipped_recipe_compresses_the_winner_of_a_search(place: Path) -> None:
    """The real recipe with a smaller budget: smaller pictures, one candidate, fewer epochs."""
    chain = (
        '{pass="prune",ratio=0.25,multiple=8},{pass="sparsify",ratio=0.25},'
        '{pass="finetune",epochs=3,batch_size=32},{pass="quantize",max_drop=50}'
    )
    sets = (
        "data.name=digits", "data.resolution=16", "search.space_options.stages=[[2,32,1]]",
        "search.candidates=1", "search.batch=1", "train.epochs=8", f"compress=[{chain}]",
        "target.baseline=mobilenet-v1", "target.widths=[0.25]",
        "target.accuracy_tolerance=1.0", "target.latency_ratio=9", "export.formats=['tflite']",
    )  # fmt: skip
    said = run(place, RECIPE, *(word for text in sets for word in ("--set", text)))
    assert said.returncode == 0, said.stderr
    with Store.open(place / "store", create=False) as store:
        result = store.result()
    assert isinstance(result, RunResult)
    found = result.compression
    assert found is not None
    assert [step.name.partition(":")[0] for step in found.steps] == [
        *("as it came", "prune", "sparsify", "finetune", "quantize"),
    ]
    row = result.artifacts[-1]
    last = found.steps[-1]
    assert (row.network, row.scheme, row.bytes) == ("compressed winner", "static8", last.bytes)
    assert row.sha256 == result.deployed["sha256"]
    assert row.accuracy_device == pytest.approx(row.accuracy_host, abs=0.02)
    assert last.bytes < found.steps[0].bytes / 2
    assert RunResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert 'data-figure="figure-compression-size"' in said_report(place)


def said_report(place: Path) -> str:
    (folder,) = (place / "store" / "runs").glob("compress-digits-*")
    return (folder / "report.html").read_text()
