"""Native TFLite writer against TensorFlow's TFLiteConverter, side by side in one process.

Per network and number format: how long a measurable file takes, whether the two files hold the
same ops, run equally fast and compute the same. TensorFlow is imported and warmed up before
anything is timed. The converter gets what the writer gets, a graph with batch normalisation
already folded, which is its fastest case; in int8 it calibrates on images because it cannot be
given scales, and the figure with a single image is printed beside it.

SQNR of int8 says nothing on untrained networks (a constant dominates their logits), so that part
trains the same architectures for a few epochs on handwritten digits at 32 x 32 first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from device_agents.errors import ConfigError
from models import zoo
from models.lower import lower
from models.model import random_model
from models.scales import random_quantization
from pipeline.compress.passes.ptq import calibrate
from pipeline.formats import create
from pipeline.formats.figures import compare
from pipeline.formats.files import run_content
from pipeline.formats.tflite.write import write_tflite
from scripts.figures import describe, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from models.model import Model

NETS = ("mobilenet-v2", "mobilenet-v3-large", "mnasnet-a1")
BARS = {"float32": 150.0, "static8": 300.0}
LATENCY_BAR = 1.02
MAX_ERROR_BAR = 1e-4
SQNR_LOSS_BAR_DB = 0.5
SIZE = 224
WRITES = 10
"""Native files per conversion."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work a run does."""

    nets: tuple[str, ...]
    conversions: int
    calibration: int
    rounds: int
    epochs: int


FULL = Sizes(NETS, conversions=3, calibration=100, rounds=40, epochs=8)
QUICK = Sizes(NETS[:1], conversions=1, calibration=20, rounds=20, epochs=2)
DIGITS = 256
"""Calibration images of the trained networks: with 100, rare activations are missed."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside the converter's; `bar` in words, `met` None for information."""

    network: str
    scheme: str
    figure: str
    ours: str
    converter: str
    result: str
    bar: str = ""
    met: bool | None = None


def main(argv: list[str] | None = None) -> int:
    """Run, print the table; returns 1 with --check if a figure misses its bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure misses its bar")
    parser.add_argument("--quick", action="store_true", help="one network, fewer repetitions")
    options = parser.parse_args(argv)
    sizes = QUICK if options.quick else FULL
    rows: list[Row] = []
    for name in sizes.nets:
        rows += untrained(name, sizes)
    for name in sizes.nets:
        rows += trained(name, sizes)
    conditions = {**describe(), "sizes": asdict(sizes)}
    show(rows, conditions)
    write_json(options.json, {"conditions": conditions, "rows": [asdict(row) for row in rows]})
    missed = [row for row in rows if row.met is False]
    return 1 if options.check and missed else 0


def untrained(name: str, sizes: Sizes) -> list[Row]:
    """Speed of writing, ops, latency and float outputs at 224 x 224 with random weights."""
    from pipeline.formats.tflite import oracle

    graph = lower(zoo.get(name).with_input(SIZE, SIZE, 3))
    rng = np.random.default_rng(0)
    model = random_model(graph, rng)
    images = rng.standard_normal((sizes.calibration, 3, SIZE, SIZE), np.float32)
    quantized = model.with_quantization(random_quantization(graph), done="assumed scales")
    oracle.convert(model)
    write_tflite(quantized)
    rows: list[Row] = []
    for written in (model, quantized):
        scheme = str(written.number_format)
        calibration = images if written.number_format.is_static else None
        ours: list[float] = []
        theirs: list[float] = []
        native = converted = b""
        for _ in range(sizes.conversions):
            seconds, converted = timed(partial(oracle.convert, model, calibration))
            theirs.append(seconds)
            for _ in range(WRITES):
                seconds, native = timed(partial(write_tflite, written))
                ours.append(seconds)
        how = "" if calibration is None else f", {len(images)} calibration images"
        rows.append(speed_row(name, scheme, how, ours, theirs))
        if calibration is not None:
            seconds, _ = timed(partial(oracle.convert, model, images[:1]))
            rows.append(speed_row(name, scheme, ", 1 image (not judged)", ours, [seconds]))
        rows.append(ops_row(name, scheme, native, converted))
        rows.append(latency_row(name, scheme, native, converted, sizes.rounds))
        if scheme == "float32":
            rows.append(error_row(name, native, converted, images[:5]))
    return rows


def trained(name: str, sizes: Sizes) -> list[Row]:
    """SQNR against torch of both int8 files, calibrated on the same images."""
    from pipeline.formats.tflite import oracle

    model, images, calibration = train_on_digits(name, sizes)
    from models.execute import execute

    reference = execute(model, images).numpy()
    native = write_tflite(calibrate(model, calibration))
    converted = oracle.convert(model, calibration)
    ours = compare(reference, run(native, images))
    try:
        theirs = compare(reference, run(converted, images))
    except ConfigError as error:
        print(f"{name}: {error}", file=sys.stderr)
        figure, sqnr = f"SQNR vs torch, {len(images)} digits", f"{ours.sqnr_db:.1f} dB"
        return [Row(name, "static8", figure, sqnr, "none", "LiteRT refuses it", "runs", met=True)]
    difference = ours.sqnr_db - theirs.sqnr_db
    return [
        Row(
            name,
            "static8",
            f"SQNR vs torch, {len(images)} digits",
            f"{ours.sqnr_db:.1f} dB",
            f"{theirs.sqnr_db:.1f} dB",
            f"{difference:+.2f} dB",
            f">= -{SQNR_LOSS_BAR_DB} dB",
            difference >= -SQNR_LOSS_BAR_DB,
        ),
        Row(
            name,
            "static8",
            "same class as torch",
            f"{ours.argmax_agreement:.3f}",
            f"{theirs.argmax_agreement:.3f}",
            "",
        ),
    ]


def train_on_digits(
    name: str, sizes: Sizes
) -> tuple[Model, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the model, test images and calibration images."""
    from device_agents.api import Failure
    from pipeline.data import Data, load_dataset
    from pipeline.recipe.sections import TrainSection
    from pipeline.train.loop import train

    data = load_dataset("digits", {}, resolution=32, fractions=(0.6, 0.2, 0.2), seed=0)
    spec = zoo.get(name).with_input(*data.input).with_classes(data.classes)
    section = TrainSection(epochs=sizes.epochs, batch_size=32, learning_rate=0.05)
    result = train(spec, Data(data), section, seed=0)
    if isinstance(result, Failure):
        raise SystemExit(result.reason)
    return result.network.model(), data.test.arrays()[0], data.train.images[:DIGITS]


def timed(work: Callable[[], bytes]) -> tuple[float, bytes]:
    """Return (seconds, result)."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def speed_row(name: str, scheme: str, how: str, ours: list[float], theirs: list[float]) -> Row:
    """Compare medians of the seconds that the two ways to a file take."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    judged = "not judged" not in how
    return Row(
        name,
        scheme,
        "time to a file" + how,
        f"{mine * 1e3:.1f} ms",
        f"{other * 1e3:.0f} ms",
        f"{other / mine:.0f}x",
        f">= {BARS[scheme]:.0f}x" if judged else "",
        other / mine >= BARS[scheme] if judged else None,
    )


def ops_row(name: str, scheme: str, native: bytes, converted: bytes) -> Row:
    """Compare op histograms and delegate partitions."""
    (ours, mine), (theirs, other) = operators(native), operators(converted)
    return Row(
        name,
        scheme,
        "ops / delegate partitions",
        f"{sum(ours.values())} / {mine}",
        f"{sum(theirs.values())} / {other}",
        "same ops" if ours == theirs else f"{ours - theirs} {theirs - ours}",
        "same ops, no more partitions",
        ours == theirs and mine <= other,
    )


def latency_row(name: str, scheme: str, native: bytes, converted: bytes, rounds: int) -> Row:
    """Time both files in ABBA blocks in one process, one thread; compare paired medians."""
    runs = [loaded(file) for file in (native, converted)]
    samples: tuple[list[float], list[float]] = ([], [])
    for which in [0, 1, 1, 0] * 2:  # warm up
        block(runs[which], 3)
    for _ in range(rounds):
        pair: tuple[list[float], list[float]] = ([], [])
        for which in (0, 1, 1, 0):
            pair[which].extend(block(runs[which], 3))
        for times, found in zip(samples, pair, strict=True):
            times.append(statistics.median(found))
    ratios = [mine / other for mine, other in zip(*samples, strict=True)]
    ratio = statistics.median(ratios)
    ours, theirs = (statistics.median(times) * 1e3 for times in samples)
    return Row(
        name,
        scheme,
        f"latency, {rounds} ABBA rounds",
        f"{ours:.2f} ms",
        f"{theirs:.2f} ms",
        f"x{ratio:.3f}",
        f"<= x{LATENCY_BAR}",
        ratio <= LATENCY_BAR,
    )


def error_row(name: str, native: bytes, converted: bytes, images: npt.NDArray[np.float32]) -> Row:
    """Compare float outputs."""
    ours, theirs = run(native, images), run(converted, images)
    error = float(np.abs(ours - theirs).max())
    return Row(
        name,
        "float32",
        f"max abs difference, {len(images)} images",
        f"|logit| <= {np.abs(ours).max():.2g}",
        f"|logit| <= {np.abs(theirs).max():.2g}",
        f"{error:.1e}",
        f"<= {MAX_ERROR_BAR:g}",
        error <= MAX_ERROR_BAR,
    )


def run(content: bytes, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a file's logits."""
    return run_content(create("tflite"), content, images)


def loaded(content: bytes) -> Any:
    """Return an interpreter with an input set."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    rng = np.random.default_rng(0)
    values = rng.standard_normal(source["shape"]) * (1 if source["dtype"] == np.float32 else 40)
    interpreter.set_tensor(source["index"], values.astype(source["dtype"]))
    return interpreter


def block(interpreter: Any, count: int) -> list[float]:
    """Return the seconds of `count` inferences after one that is not counted."""
    interpreter.invoke()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - start)
    return times


def operators(content: bytes) -> tuple[Counter[str], int]:
    """Return op counts of the file, and delegate partitions after preparation."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    # A private call, and the only one that lists ops; partitions are appended to it.
    ops = Counter(op["op_name"] for op in interpreter._get_ops_details())  # noqa: SLF001
    interpreter.allocate_tensors()
    after = Counter(op["op_name"] for op in interpreter._get_ops_details())  # noqa: SLF001
    return ops, after["DELEGATE"]


def show(rows: list[Row], conditions: dict[str, Any]) -> None:
    """Print the table."""
    heads = ("network", "scheme", "figure", "ours", "converter", "result", "bar", "")
    marks = {True: "ok", False: "MISSED", None: ""}
    lines = [heads]
    for row in rows:
        cells = (row.network, row.scheme, row.figure, row.ours, row.converter, row.result, row.bar)
        lines.append((*cells, marks[row.met]))
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    versions = ", ".join(f"{name} {number}" for name, number in conditions["packages"].items())
    print(f"\n{conditions['machine']}, {conditions['cpus']} CPUs, one thread, {versions}")


if __name__ == "__main__":
    sys.exit(main())
