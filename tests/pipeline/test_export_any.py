"""`edgewright export` of other people's models: written again, and compared with what they were."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.errors import VerificationError
from models.fold import random_weights
from models.graph import GraphBuilder
from models.model import Model
from models.ops import BatchNorm, Conv, Dense, Mean
from pipeline.formats import convert, create
from pipeline.formats.generated_inputs import generate_inputs
from pipeline.formats.subjects import ModelSubject
from scripts.tflite_maker import TFLiteFile
from tests.cli_calls import said

if TYPE_CHECKING:
    from pipeline.formats.ends import Array


def normalised() -> Model:
    """A map that is not square, normalisation, two inputs and two outputs."""
    builder = GraphBuilder()
    image, state = builder.input("image", (1, 9, 13, 3)), builder.input("state", (1, 6))
    conv = Conv(out=6, kernel=(3, 3), stride=(1, 2), padding=(1, 1, 1, 1))
    features = builder.op("conv", "features", [image], conv)
    parameters = [builder.constant(f"bn.{name}", (6,)) for name in ("s", "b", "m", "v")]
    norm = builder.op("batchnorm", "norm", [features, *parameters], BatchNorm(), act="relu")
    pooled = builder.op("mean", "pooled", [norm], Mean(keepdims=False))
    new = builder.op("add", "new", [pooled, state])
    scores = builder.op("dense", "scores", [new], Dense(4))
    graph = builder.graph(norm, scores)
    weights = dict(random_weights(graph, np.random.default_rng(0)))
    weights["bn.v"] = (np.abs(weights["bn.v"][0]) + 0.5,)
    return Model(graph, weights)


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("suffix", ["tflite"])
def test_a_file_is_written_again_and_compared_with_itself(
    suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = normalised()
    Path(f"net.{suffix}").write_bytes(create(suffix).write(model))
    out, err = said(capsys, 0, "export", f"net.{suffix}", "--format", "tflite", "-o", "made")
    assert out.strip() == str(Path("made/net-float32.tflite"))
    assert "compared with its source on 16 generated samples: SQNR" in err
    both = f"net.{suffix}", out.strip()
    assert "features" not in said(capsys, 0, "verify", *both)[1]


def test_a_tflite_file_with_unknown_ops_is_refused_without_advice_that_leads_nowhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = TFLiteFile()
    source, made = file.tensor("x", (1, 4)), file.tensor("y", (1, 4))
    file.op("CUSTOM Erfc", [source], [made])
    Path("net.tflite").write_bytes(file.content([source], [made]))
    args = "export", "net.tflite", "--format", "tflite", "-o", "made"
    _, err = said(capsys, 2, *args)
    assert "CUSTOM Erfc at 'y (op 0)'; it cannot be written in another format" in err
    assert "--library" not in err
    assert not Path("made").exists()


def test_samples_calibrate_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.tflite").write_bytes(create("tflite").write(normalised()))
    rng = np.random.default_rng(0)
    image, state = rng.random((40, 9, 13, 3), np.float32), rng.random((40, 6), np.float32)
    np.savez("samples.npz", image=image, state=state)
    _, err = said(capsys, 2, "export", "net.tflite", "--scheme", "int8", "-o", "made")
    assert "static8 needs samples to calibrate on; give --data" in err
    out, err = said(
        capsys, 0, "export", "net.tflite", "--scheme", "int8", "-o", "made", "--data", "samples.npz"
    )
    assert out.strip() == str(Path("made/net-static8.tflite"))
    assert "on 32 samples of --data" in err
    # Written again, codes stay the same codes.
    out, _ = said(capsys, 0, "export", out.strip(), "-o", "again")
    assert Path(out.strip()).read_bytes() == Path("made/net-static8.tflite").read_bytes()


def test_codes_are_written_as_the_real_numbers_that_they_stand_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = normalised()
    Path("net.tflite").write_bytes(create("tflite").write(model))
    out, _ = said(capsys, 0, "export", "net.tflite", "--scheme", "dynamic8", "-o", "made")
    small = out.strip()
    out, err = said(capsys, 0, "export", small, "--format", "onnx", "-o", "made")
    assert out.strip() == str(Path("made/net-float32.onnx"))
    assert f"onnx files do not hold dynamic8, which {small} is in; its weights are written" in err
    _, err = said(
        capsys, 2, "export", small, "--format", "onnx", "--scheme", "dynamic8", "-o", "made"
    )
    assert "onnx files hold float32, static8, not dynamic8; choose one with --scheme" in err


class Wrong:
    """A writer with a fault: the weights of one layer have another sign."""

    def __init__(self) -> None:
        self.format = create("tflite")

    def __getattr__(self, name: str) -> object:
        return getattr(self.format, name)

    def write(self, model: Model) -> bytes:
        weights = dict(model.weights)
        weight, bias = weights["scores"]
        weights["scores"] = (-weight, bias)
        return self.format.write(
            Model(model.graph, weights, model.quantization, model.inputs, model.outputs)
        )


def test_a_file_that_computes_something_else_is_never_there(tmp_path: Path) -> None:
    model = normalised()
    source = ModelSubject("net", model)
    inputs: dict[str, Array] = generate_inputs(source.ends)
    target = tmp_path / "made" / "net.tflite"
    sentence = (
        r"net.tflite does not compute what net computes: the output 'scores' differs by .*; the "
        r"first tensor that differs from the graph is 'scores' \(dense\)"
    )
    with pytest.raises(VerificationError, match=sentence):
        convert.write_checked(Wrong(), model, target, source, inputs)  # type: ignore[arg-type]
    assert list(target.parent.iterdir()) == []
