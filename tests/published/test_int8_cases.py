"""Public cases of int8 files and networks that went wrong unseen, with their right values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agents.errors import VerificationError
from models.execute import execute
from models.lower import lower
from models.model import Model, random_model
from models.network import Network
from models.number_format import STATIC8
from models.spec import ArchSpec
from pipeline.compress.passes.ptq import calibrate, spread
from pipeline.data import load_dataset
from pipeline.formats import create
from pipeline.formats.figures import compare
from pipeline.formats.files import run_content
from pipeline.formats.limits import check
from pipeline.formats.verify import compute_integers, write_verified

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
SATURATION = CASES / "01-onnx-int8-avx2-saturation"
DENSE = CASES / "02-dense-per-channel-old-runtime" / "plain_fc1000-static8.tflite"
NOT_FINITE = CASES / "04-not-finite-weights"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")


def digits(network: Network) -> Any:
    dataset = load_dataset("digits", {}, resolution=32, fractions=(0.6, 0.2, 0.2), seed=0)
    images = spread(dataset.train.images, 256)
    return calibrate(network.model(), images), dataset.validation


def at_device_settings(model: Model, images: Any, expected: Any) -> Any:
    exporter = create("onnx")
    content, _ = write_verified(exporter, "net", model, images, expected)
    outputs = run_content(exporter, content, images, as_deployed=True)
    integers = compute_integers(exporter, content, model, images)
    found = compare(expected, outputs, None, integers)
    check(found, STATIC8, "net")
    return found


def test_saturating_kernels_spoil_no_file_of_a_random_network() -> None:
    graph = lower(ArchSpec.parse((SATURATION / "spec.txt").read_text().strip()))
    height, width, channels = graph.image_shape
    rng = np.random.default_rng(7)
    images = rng.standard_normal((6, channels, height, width), np.float32)
    model = random_model(graph, rng)
    expected = execute(model, images).numpy()
    found = at_device_settings(calibrate(model, images), images, expected)
    assert found.sqnr_db == pytest.approx(41.9, abs=2)


def test_saturating_kernels_spoil_no_file_of_a_trained_network() -> None:
    network = Network.load(SATURATION / "trained.npz")
    model, split = digits(network)
    images = split.images[::3]
    found = at_device_settings(model, images, execute(model, images).numpy())
    assert found.sqnr_db >= 31
    assert found.argmax_agreement >= 0.99


def test_the_new_writer_has_no_dense_layer_with_several_scales() -> None:
    """The case's file, by the writer before, has one: it gave zeros on TFLite 2.7 to 2.9."""
    from ai_edge_litert import schema_py_generated as schema

    def dense_scales(content: bytes) -> list[int]:
        graph = schema.Model.GetRootAs(content).Subgraphs(0)
        tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
        return [
            tensor.Quantization().ScaleLength()
            for tensor in tensors
            if tensor.Name().startswith(b"dense") and tensor.Name().endswith(b".weight")
        ]

    graph = lower(ArchSpec.parse("32x32x3:same:conv_k3_s2_o16_relu6:fc1000"))
    model = random_model(graph, np.random.default_rng(0))
    images = np.random.default_rng(1).standard_normal((8, 3, 32, 32), np.float32)
    content = create("tflite").write(calibrate(model, images))
    assert dense_scales(DENSE.read_bytes())[0] > 1
    assert dense_scales(content) == [1]


@pytest.mark.parametrize(("name", "layer"), [("nan", "dense.0"), ("negvar", "blocks.0.conv")])
def test_networks_that_cannot_be_computed_are_refused(name: str, layer: str) -> None:
    with pytest.raises(VerificationError, match=f"layer '{layer}' cannot be computed"):
        Network.load(NOT_FINITE / f"{name}.npz").model()


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_variances_of_zero_are_exported(format_: str) -> None:
    network = Network.load(NOT_FINITE / "zerovar.npz")
    quantized, split = digits(network)
    images = split.images[:64]
    expected = execute(quantized, images).numpy()
    for model in (network.model(), quantized):
        write_verified(create(format_), "net", model, images, expected)
