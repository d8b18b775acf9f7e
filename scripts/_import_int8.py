"""int8 of other people's networks: beside the int8 files that they ship, and what it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts._import_conversion import SIZE, export_module
from scripts._import_latency import Ratio, compare_latencies
from scripts._import_runs import Done, run
from scripts._speech import draw_words
from scripts.other_models import fetch

if TYPE_CHECKING:
    from collections.abc import Sequence

CIFAR = "cifar10_jpeg"
_PIXELS = ("--mean", "0", "--scale", "1")
"""ResNet-8 of MLPerf Tiny takes pixels as they are, 0 to 255."""

_SAMPLES = 256
_SPEECH = "1x49x10x1"
_WIDE, _BLOCKS, _MAP = 512, 11, 14


@dataclass(frozen=True, slots=True)
class Beside:
    """One int8 file of ours beside the shipped one.

    Attributes:
        what: accuracy, a fraction, or SQNR in dB.
        ours: of our file.
        shipped: of theirs.
        source: of the float file, where it has one.
        latency: ours to theirs; None where there is no file of ours.
        fault: why there is no figure; empty where there is one.
    """

    what: str
    ours: float = math.nan
    shipped: float = math.nan
    source: float = math.nan
    latency: Ratio | None = None
    fault: str = ""


def compare_resnet8(data: Path, folder: Path, *, images: int, rounds: int) -> Beside:
    """Quantise ResNet-8 on CIFAR-10's training images; accuracy on its test images."""
    source, shipped = fetch("resnet8.tflite"), fetch("resnet8-int8.tflite")
    train, test = data / CIFAR / "train.zip", data / CIFAR / "test.zip"
    made = _quantize(source, folder / "resnet8", "--data", train, *_PIXELS)
    if isinstance(made, str):
        return Beside("accuracy", fault=made)
    scores = []
    for file in (made, shipped):
        asked = ("--data", test, "--samples", str(images), *_PIXELS, "--json")
        done = run("verify", source, file, *asked)
        if not done.out or not done.json.get("scores"):
            return Beside("accuracy", fault=done.said[:300])
        scores.append(done.json["scores"])
    return Beside(
        "accuracy",
        ours=scores[0]["second"],
        shipped=scores[1]["second"],
        source=scores[0]["first"],
        latency=compare_latencies(made, shipped, rounds=rounds),
    )


def compare_ds_cnn(folder: Path, *, rounds: int) -> Beside:
    """Quantise DS-CNN on sounds like words; SQNR to the float file on others.

    Its own data, spoken words, are not here: what is compared is rounding, not recognition.
    """
    source, shipped = fetch("ds-cnn.tflite"), fetch("ds-cnn-int8.tflite")
    name = run("inspect", source, "--json").json["inputs"][0]["name"]
    files = []
    for seed, part in enumerate(("train", "test")):
        files.append(folder / f"speech-{part}.npz")
        words = draw_words(_SAMPLES, seed=seed)
        np.savez(files[-1], allow_pickle=False, **{name: words})
    shape = ("--input-shape", _SPEECH)
    made = _quantize(source, folder / "ds-cnn", "--data", files[0], *shape)
    if isinstance(made, str):
        return Beside("SQNR, dB", fault=made)
    found = []
    for file in (made, shipped):
        done = run("verify", source, file, "--data", files[1], "--json", *shape)
        if not done.out:
            return Beside("SQNR, dB", fault=done.said[:300])
        found.append(min(output["sqnr_db"] for output in done.json["outputs"]))
    latency = compare_latencies(made, shipped, rounds=rounds)
    return Beside("SQNR, dB", ours=found[0], shipped=found[1], latency=latency)


def quantize_on_images(source: Path, folder: Path) -> Done:
    """Quantise a network of one image on 256 images, into a TFLite file of its name."""
    data, target = _images(folder), folder / f"{source.stem}-int8.tflite"
    return run("quantize", source, "--data", data, "-o", target, "--format", "tflite")


def _quantize(source: Path, folder: Path, *options: str | Path) -> Path | str:
    """Return the int8 file of a model, or the sentence that says why there is none."""
    folder.mkdir()
    done = run("quantize", source, "-o", folder, "--format", "tflite", *options)
    return done.said[:300] if done.code else Path(done.out.split("\n")[0])


def _images(folder: Path) -> Path:
    path = folder / "images.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        images = rng.standard_normal((_SAMPLES, 3, SIZE, SIZE), np.float32)
        np.savez(path, allow_pickle=False, input=images)
    return path


def large_onnx(path: Path) -> Path:
    """Write an ONNX file of about 100 MB."""
    import torch

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(_WIDE, _WIDE, 3, padding=1)

        def forward(self, x: Any) -> Any:
            return torch.relu(x + self.conv(x))

    layers: Sequence[Any] = [
        torch.nn.Conv2d(3, _WIDE, 16, stride=SIZE // _MAP),
        *(Block() for _ in range(_BLOCKS)),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(_WIDE, 10),
    ]
    return export_module(torch.nn.Sequential(*layers), path)
