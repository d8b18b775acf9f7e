"""What every file computes in every version of its runtime: SQNR, accuracy, beside exact integers.

Give the interpreters of virtual environments that hold another runtime each; the one that runs this
is always among them. tflite-runtime 2.7 to 2.13 are for Python 3.9, 2.14 is for 3.11, all need
numpy below 2:

    python3.9 -m venv t27 && t27/bin/pip install 'numpy<2' tflite-runtime==2.7.0
    python3.11 -m venv o116 && o116/bin/pip install 'numpy<2' onnxruntime==1.16.3
    python scripts/bench_runtimes.py t27/bin/python o116/bin/python --check

One network is trained on handwritten digits, three have random weights and together every op of
both writers. Files as they were written before are run too, for information: TFLite with a scale
for each output of a dense layer, ONNX with signed weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from models.execute import execute
from models.lower import lower
from models.model import Model, random_model
from models.scales import random_quantization
from models.spec import ArchSpec
from pipeline.compress.passes.ptq import calibrate
from pipeline.formats import create
from pipeline.formats.figures import Integers, Verification, compare
from pipeline.formats.onnx import ONNX
from pipeline.formats.tflite.write import Writer, write_tflite
from pipeline.formats.verify import compute_integers
from scripts.figures import Figure, finish, parser

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from models.fold import Weights
    from models.graph import Graph
    from pipeline.formats.api import Format

TRAINED = (
    "32x32x1:same:conv_k3_s2_o16_relu6:mb_k3_s1_m48_o16_relu6_skip:mb_k5_s2_m64_o24_relu6:"
    "conv_k1_s1_o64_relu6:fc32_relu:fc10"
)
RANDOM = (
    (
        "33x30x3:symmetric:conv_k3_s2_o16_hardswish:mb_k5_s2_m48_o24_silu_se6-relu-hardsigmoid:"
        "mb_k3_s1_m48_o24_poolskip:mb_k3_s1_m48_o24_skip:conv_k1_s1_o32_relu:fc16_hardswish:fc10"
    ),
    (
        "32x28x1:same:conv_k3_s1_o16:ds_k3_s2_o16_relu:mb_k3_s2_m48_o24_se6-silu-sigmoid:"
        "conv_k1_s1_o32_linear:fc16_relu6:fc7"
    ),
    "32x32x3:symmetric:conv_k3_s2_o8_linear:conv_k7_s2_o8_silu:conv_k1_s2_o8:fc3",
)
EPOCHS = 16
SQNR_BAR_DB = 60.0
"""Of a float32 file."""

TIMEOUT_S = 600.0
_RUNNER = Path(__file__).with_name("_run_files.py")


@dataclass(frozen=True, slots=True)
class Net:
    """A network with what it is calibrated and compared on."""

    name: str
    model: Model
    calibration: npt.NDArray[np.float32]
    images: npt.NDArray[np.float32]
    labels: npt.NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A written file, and what it is to be held against; `bar` is False for information."""

    name: str
    net: Net
    format: Format
    content: bytes
    logits: npt.NDArray[np.float32]
    integers: Integers | None
    bar: bool = True


def main(argv: list[str] | None = None) -> int:
    """Run, print the table; returns 1 with --check if a file misses its bar."""
    flags = parser(__doc__)
    flags.add_argument("pythons", nargs="*", type=Path, metavar="PYTHON")
    flags.add_argument(
        "--network", type=Path, metavar="FILE.npz", help="of digits at 32x32; else one is trained"
    )
    options = flags.parse_args(argv)
    nets = [*random_nets(), trained(options.network, 1 if options.quick else EPOCHS)]
    files = [file for net in nets for file in written(net)]
    figures, outcomes = [], []
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        source = Path(folder) / "files"
        source.mkdir()
        for file in files:
            path = source / f"{file.name}{file.format.suffix}"
            path.write_bytes(file.content)
            packed = file.format.describe(file.content).pack(file.net.images)
            np.save(f"{path}.in.npy", packed)
        for number, python in enumerate([Path(sys.executable), *options.pythons]):
            target = Path(folder) / str(number)
            target.mkdir()
            runtimes = run(python, source, target)
            for file in files:
                if file.format.suffix in runtimes:
                    found = outcome(file, target)
                    figure, row = judged(file, runtimes[file.format.suffix], found)
                    figures.append(figure)
                    outcomes.append(row)
    return finish(options, figures, outcomes=outcomes, writer=fingerprint())


def run(python: Path, source: Path, target: Path) -> dict[str, str]:
    """Run every file in an interpreter; return its runtimes by the suffix of their files."""
    for _ in range(len(list(source.iterdir()))):
        done = subprocess.run(
            [str(python), str(_RUNNER), str(source), str(target)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=False,
        )
        if not done.returncode:
            names: dict[str, str] = json.loads(done.stdout)
            return names
        # A file crashed the runtime, which is on record now; the next process goes on behind it.
        if not done.stdout:
            break
    raise SystemExit(f"{python} cannot run {_RUNNER.name}: it ended with {done.returncode}")


def outcome(file: File, folder: Path) -> Verification | str:
    """Return how a file's outputs compare, or what the runtime said."""
    path = folder / f"{file.name}{file.format.suffix}.npy"
    if not path.is_file():
        return path.with_suffix(".error").read_text()
    logits = file.format.describe(file.content).unpack(np.load(path))
    return compare(file.logits, logits, file.net.labels, file.integers)


def judged(
    file: File, runtime: str, found: Verification | str
) -> tuple[Figure, dict[str, str | float | bool | None]]:
    """Return a line of the table, and the same as plain values."""
    what = f"{file.name}, {runtime}"
    bar = "within 2 dB of exact integers" if file.integers else f"{SQNR_BAR_DB:g} dB"
    row: dict[str, Any] = {"file": file.name, "runtime": runtime, "bar": file.bar}
    if isinstance(found, str):
        row |= {"right": False, "error": found}
        return Figure(
            what, found, bar=bar if file.bar else "", met=False if file.bar else None
        ), row
    beside = found.integers
    right = beside.agrees if beside else found.sqnr_db >= SQNR_BAR_DB
    accuracy = "" if found.accuracy is None else f", {found.accuracy:.2%} right"
    ours = f"{found.sqnr_db:.1f} dB, agreement {found.argmax_agreement:.1%}{accuracy}"
    exact = f"{beside.sqnr_db:.1f} dB" if beside else ""
    row |= {
        "right": right,
        "sqnr_db": round(found.sqnr_db, 2),
        "agreement": round(found.argmax_agreement, 4),
        "accuracy": None if found.accuracy is None else round(found.accuracy, 4),
        "exact_sqnr_db": None if beside is None else round(beside.sqnr_db, 2),
        "farthest_steps": None if beside is None else round(beside.farthest_steps, 2),
    }
    met = right if file.bar else None
    return Figure(what, ours, exact, bar if file.bar else "", met, found.sqnr_db), row


def written(net: Net) -> Iterator[File]:
    """Yield the files of a network: both formats and number formats, and the int8 ones before."""
    logits = execute(net.model, net.images).numpy()
    quantized = calibrate(net.model, net.calibration)
    tflite, onnx, signed = create("tflite"), create("onnx"), ONNX("int8")
    before = Writer(quantized).write(float_io=False)
    for name, format_, model, content in (
        ("tflite float32", tflite, net.model, None),
        ("onnx float32", onnx, net.model, None),
        ("tflite static8", tflite, quantized, None),
        ("onnx static8", onnx, quantized, None),
        ("tflite static8, dense per output", tflite, quantized, before),
        ("onnx static8, signed weights", signed, quantized, None),
    ):
        data = content or format_.write(model)
        integers = compute_integers(format_, data, net.model, net.images)
        bar = "," not in name
        yield File(f"{net.name} {name}", net, format_, data, logits, integers, bar)


def random_nets() -> Iterator[Net]:
    """Yield networks with random weights that together hold every op."""
    for number, line in enumerate(RANDOM, 1):
        graph = lower(ArchSpec.parse(line))
        height, width, channels = graph.image_shape
        rng = np.random.default_rng(number)
        images = rng.standard_normal((32, channels, height, width), np.float32)
        yield Net(f"random {number}", random_model(graph, rng), images, images)


def trained(path: Path | None, epochs: int) -> Net:
    """Return a network of handwritten digits, from a file or trained here, with test images."""
    from device_agents.api import Failure
    from models.network import Network
    from pipeline.data import Data, load_dataset
    from pipeline.recipe.sections import TrainSection
    from pipeline.train.loop import train

    data = load_dataset("digits", {}, resolution=32, fractions=(0.6, 0.2, 0.2), seed=0)
    if path is not None:
        network = Network.load(path)
    else:
        section = TrainSection(epochs=epochs, batch_size=32, learning_rate=0.05)
        result = train(ArchSpec.parse(TRAINED), Data(data), section, seed=0)
        if isinstance(result, Failure):
            raise SystemExit(result.reason)
        network = result.network
    calibration, test = data.train.arrays(256)[0], data.test.arrays()
    return Net("trained", network.model(), calibration, *test)


def fingerprint() -> dict[str, str]:
    """Return hashes of files that depend on the writers alone: other ones, another writer."""
    found = {}
    for number, line in enumerate(RANDOM, 1):
        graph = lower(ArchSpec.parse(line))
        model = Model(graph, plain_weights(graph), random_quantization(graph))
        content = write_tflite(model)
        found[f"tflite {number}"] = hashlib.sha256(content).hexdigest()
        content = create("onnx").write(model)
        found[f"onnx {number}"] = codes_digest(content)
    return found


def codes_digest(content: bytes) -> str:
    """Return a hash of an ONNX file's constants: the rest may differ between versions of onnx."""
    import onnx

    constants = onnx.load_model_from_string(content).graph.initializer
    parts = sorted(item.SerializeToString(deterministic=True) for item in constants)
    return hashlib.sha256(b"".join(parts)).hexdigest()


def plain_weights(graph: Graph) -> Weights:
    """Return weights by integer arithmetic, so that no generator's stream matters."""
    weights = {}
    for op in graph.ops:
        if op.has_weights:
            shape, units = op.weight_shape, op.out_shape[-1]
            weight = ((np.arange(np.prod(shape)) * 7) % 17 - 8).astype(np.float32) / np.float32(16)
            bias = np.arange(units).astype(np.float32) / np.float32(8)
            weights[op.name] = (weight.reshape(shape), bias)
    return weights


if __name__ == "__main__":
    sys.exit(main())
