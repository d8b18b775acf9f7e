"""int8 and int4 of networks without training, beside the quantisers that people install.

Every file, ours and theirs, is calibrated on the same training images and names the same test
images in its own runtime. What is lost is counted image by image, so that it has an interval.
ResNet-8 is MLPerf Tiny's; its channels are spread on purpose to show what equalization wins back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.errors import ConfigError
from models.channels import find_scalable, scale_channels
from models.model import Model
from models.number_format import STATIC8
from pipeline.compress.api import Needs
from pipeline.compress.passes import create
from pipeline.compress.quantize import Wanted, quantize
from pipeline.data.sets.images import Images
from pipeline.formats import create as create_format
from pipeline.formats.api import ReadOptions
from pipeline.formats.source import read_model
from pipeline.formats.subjects import find_runnable
from scripts._compress_bases import CIFAR, find
from scripts._compress_rows import Gain, unmeasured
from scripts.figures import Figure, need
from scripts.other_models import fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from scripts._compress_rows import Asked

    Array = npt.NDArray[Any]

RESNET8 = "resnet8"
NETS = (RESNET8, "mbv2", "mbv3")
RUNTIMES = {"tflite": "LiteRT", "onnx": "onnxruntime"}
LOST_BAR = 0.3
FOUR_BITS_BAR = 1.5
SPREAD_BAR = 3.0
REGAINED_BAR = 0.9
SPREAD = 4.0
"""Channels are up to so many times larger, or smaller."""

_CALIBRATING = 256
_QUICK = 500
_ITERATIONS = 1000
_EVEN_DB = 0.1
"""Decibels by which two files may differ and be as good: their kernels round elsewhere."""


@dataclass
class Net:
    """A network in real numbers, and the pictures that it is tried on.

    Attributes:
        name: in figures.
        model: the network.
        calibrating: (N, H, W, C), as it is fed.
        judging: likewise.
        labels: of the latter.
        folder: for files.
    """

    name: str
    model: Model
    calibrating: Array
    judging: Array
    labels: Array
    folder: Path
    _known: dict[str, Array] = field(default_factory=dict)

    @cached_property
    def needs(self) -> Needs:
        """What passes calibrate on."""
        return Needs(inputs={self.model.graph.inputs[0].name: self.calibrating})

    def write(self, model: Model, format_name: str, name: str) -> Path:
        """Write a model's file."""
        format_ = create_format(format_name)
        path = self.folder / f"{self.name}-{name}{format_.suffix}"
        path.write_bytes(format_.write(model))
        return path

    def answers(self, path: Path) -> Array:
        """Return what a file gives for every image, (N, classes), in its runtime."""
        if path.name not in self._known:
            subject = find_runnable(str(path), ReadOptions())
            if subject is None:
                raise ConfigError(f"nothing runs {path.name}")
            (end,) = subject.ends.inputs
            first = end.shape is not None and end.shape[1] == self.judging.shape[-1]
            images = self.judging.transpose(0, 3, 1, 2) if first else self.judging
            given = np.ascontiguousarray(images[:, None], np.float32)
            (found,) = subject.run({end.name: given}).values()
            self._known[path.name] = found.reshape(len(self.labels), -1)
        return self._known[path.name]

    def right(self, path: Path) -> npt.NDArray[np.bool_]:
        """Return which images a file names rightly, (1, N)."""
        named: npt.NDArray[np.bool_] = self.answers(path).argmax(1) == self.labels
        return named[None]

    def lost(self, float_file: Path, file: Path) -> Gain:
        """Return how many points a file loses, with an interval."""
        return Gain.of(self.right(float_file), self.right(file))

    def sqnr_db(self, float_file: Path, file: Path) -> float:
        """Return the SQNR of a file's outputs, in decibels."""
        real, made = (self.answers(one).astype(np.float64) for one in (float_file, file))
        noise = float(np.square(made - real).sum())
        return float(10 * np.log10(np.square(real).sum() / noise)) if noise else float("inf")


def rows(asked: Asked) -> Iterator[Figure]:
    """Give the figures of post-training quantisation."""
    for name in NETS:
        if asked.nets and name not in asked.nets:
            continue
        net = load_net(name, asked)
        if isinstance(net, str):
            yield unmeasured(f"{name}, int8: points lost", net, f"<= {LOST_BAR}")
            continue
        yield from whole_bits(net, asked)
        if name == RESNET8:
            yield from spread_channels(net)
            yield from four_bits(net)


def load_net(name: str, asked: Asked) -> Net | str:
    """Return a network with its pictures, or why it is not there."""
    fed: dict[str, Any] = {}
    if name == RESNET8:
        model = read_model(str(fetch("resnet8.tflite")), ReadOptions())
        if not isinstance(model, Model):
            raise SystemExit(model.sentence)
        fed = {"mean": (0.0,), "scale": (1.0,)}
    else:
        base = find(name, asked.work)
        if base is None:
            return f"{name} is not trained in {asked.work}"
        model = base.network.model()
    parts = {}
    for part, count in (("train", _CALIBRATING), ("test", _QUICK if asked.quick else None)):
        archive = need(asked.data / CIFAR / f"{part}.zip", "CIFAR-10 as JPEG")
        loaded = Images(str(archive), **fed).load()
        have = len(loaded.labels)
        chosen = np.linspace(0, have - 1, min(count or have, have)).astype(int)
        images = np.asarray(loaded.images[chosen]).transpose(0, 2, 3, 1)
        parts[part] = np.ascontiguousarray(images), np.asarray(loaded.labels[chosen])
    (calibrating, _), (judging, labels) = parts["train"], parts["test"]
    return Net(name, model, calibrating, judging, labels, asked.folder)


def whole_bits(net: Net, asked: Asked) -> Iterator[Figure]:
    """Quantise as `edgewright quantize` does; what is lost in each runtime, SQNR beside peers."""
    made = quantize(net.model, net.needs.inputs, Wanted(STATIC8, _CALIBRATING), None).model
    for format_name, runtime in RUNTIMES.items():
        real, ours = (
            net.write(net.model, format_name, "float"),
            net.write(made, format_name, "int8"),
        )
        lost = net.lost(real, ours)
        yield _lost(f"{net.name}, int8 in {runtime}: points lost", lost, real, net, LOST_BAR)
        decibels = net.sqnr_db(real, ours)
        for peer, make in PEERS[format_name].items():
            what = f"{net.name}, int8 in {runtime}: SQNR, dB, beside {peer}"
            without = "" if asked.peers else "peers were left out"
            if make is _by_converter and net.name != RESNET8:
                without = without or "there is no Keras model of it"
            if without:
                yield unmeasured(what, without, "at least theirs")
                continue
            theirs = make(net, real)
            if isinstance(theirs, str):
                yield Figure(what, f"{decibels:.2f}", theirs, "at least theirs", met=False)
                continue
            other, points = net.sqnr_db(real, theirs), net.lost(real, theirs)
            yield Figure(
                what,
                f"{decibels:.2f}",
                f"{other:.2f}, which loses {points}",
                f"at least theirs less {_EVEN_DB}",
                met=decibels >= other - _EVEN_DB,
                value=decibels,
            )


def spread_channels(net: Net) -> Iterator[Figure]:
    """Spread channels, the function kept; what one scale a layer loses and equalizing regains."""
    channels = find_scalable(net.model.graph)
    most = max(int(along.ids.max(initial=0)) for along in channels.tensors.values())
    factors = SPREAD ** np.random.default_rng(0).uniform(-1, 1, most + 1)
    factors[0] = 1.0
    spread = scale_channels(net.model, channels, factors)
    real = net.write(spread, "tflite", "spread")
    even = create("equalize").apply(spread, Needs())
    options = {"images": _CALIBRATING, "per_tensor": True}
    plain = create("ptq", **options).apply(spread, net.needs)
    equal = create("ptq", **options).apply(even, net.needs)
    right = create("ptq", bias_correction=True, **options).apply(even, net.needs)
    lost = {
        name: net.lost(real, net.write(model, "tflite", name))
        for name, model in (("plain", plain), ("equal", equal), ("right", right))
    }
    what = f"{net.name}, channels spread, one scale a layer: points"
    yield Figure(
        f"{what} lost",
        str(lost["plain"]),
        f"n = {lost['plain'].images}",
        f">= {SPREAD_BAR:g}",
        met=lost["plain"].points >= SPREAD_BAR,
        value=lost["plain"].points,
    )
    regained = 1 - lost["right"].points / lost["plain"].points
    yield Figure(
        f"{what} that equalization and bias correction win back",
        f"{regained:.1%}, {lost['right']} are lost",
        f"equalization alone loses {lost['equal']}",
        f">= {REGAINED_BAR:.0%}",
        met=regained >= REGAINED_BAR,
        value=regained,
    )


def four_bits(net: Net) -> Iterator[Figure]:
    """Quantise weights to 4 bits, rounded to nearest and as was learnt."""
    real = net.write(net.model, "tflite", "float")
    found = {}
    for name, options in (
        ("nearest", {}),
        ("corrected", {"bias_correction": True}),
        (
            "adaround",
            {"rounding": "adaround", "iterations": _ITERATIONS, "bias_correction": True},
        ),
    ):
        step = create("ptq", images=_CALIBRATING, weight_bits=4, **options)
        made = net.write(step.apply(net.model, net.needs), "tflite", f"four-{name}")
        found[name] = net.lost(real, made)
    yield _lost(
        f"{net.name}, weights of 4 bits, AdaRound: points lost",
        found["adaround"],
        real,
        net,
        FOUR_BITS_BAR,
        more=f"; nearest {found['nearest']}, with bias correction {found['corrected']}",
    )


def _lost(what: str, lost: Gain, real: Path, net: Net, bar: float, *, more: str = "") -> Figure:
    accuracy = 100 * float(net.right(real).mean())
    return Figure(
        what,
        str(lost),
        f"float {accuracy:.2f} %, n = {lost.images}{more}",
        f"<= {bar:g}",
        met=lost.points <= bar,
        value=lost.points,
    )


def _by_library(net: Net, real: Path) -> Path | str:
    """Quantise a float file by the library made for its format (`edgewright quantize` knows it)."""
    from pipeline.formats.third_party.quantize import quantize_file

    source = find_runnable(str(real), ReadOptions())
    if source is None:
        return f"nothing runs {real.name}"
    (end,) = source.ends.inputs
    first = end.shape is not None and end.shape[1] == net.calibrating.shape[-1]
    images = net.calibrating.transpose(0, 3, 1, 2) if first else net.calibrating
    target = real.with_name(f"{real.stem}-library{real.suffix}")
    inputs = {end.name: np.ascontiguousarray(images[:, None], np.float32)}
    try:
        quantize_file(source, inputs, target, STATIC8, ReadOptions(), lambda _: None)
    except ConfigError as error:
        return str(error)[:200]
    return target


def _by_converter(net: Net, real: Path) -> Path:
    """Quantise by TFLiteConverter, of the same network as Keras has it."""
    import tensorflow as tf

    module = tf.keras.models.load_model(fetch("resnet8.h5"), compile=False)
    converter = tf.lite.TFLiteConverter.from_keras_model(module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in net.calibrating)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    target = real.with_name(f"{real.stem}-converter.tflite")
    target.write_bytes(converter.convert())
    return target


PEERS: dict[str, dict[str, Callable[[Net, Path], Path | str]]] = {
    "tflite": {"TFLiteConverter": _by_converter, "ai-edge-quantizer": _by_library},
    "onnx": {"onnxruntime quantisation": _by_library},
}
