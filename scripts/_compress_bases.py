"""Makes the CIFAR-10 networks that compression is tried on; one that is killed goes on.

    vgg    3x3 convolutions and wide dense layers, more weights than it needs (Deep Compression)
    mbv2   inverted residuals, as MobileNetV2 has them
    mbv3   the same with squeeze-and-excite and hard-swish, as MobileNetV3 has them

At most 4 million MACs each at 32x32. After every epoch the state is written to the work folder; a
network that is finished lies there as NAME-EPOCHS.npz. Weights are not kept with the code: this
makes them again, to the bit on one processor.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from device_agents.api import Failure
from models.cost import cost
from models.network import Network
from models.spec import ArchSpec
from pipeline.data.api import Data, Dataset, Split
from pipeline.data.proportions import wilson
from pipeline.data.sets.images import Images
from pipeline.recipe.sections import TrainSection
from pipeline.train.loop import evaluate, train, use_threads
from scripts._compress_rows import unmeasured
from scripts.figures import ROOT, Figure, need
from scripts.lab import images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.train.checkpoints import State
    from scripts._compress_rows import Asked

CIFAR = "cifar10_jpeg"
WORK = images.FOLDER.parent / "bases"
MOST_MACS = 4_000_000
EPOCHS = 20
BATCH = 128
VALIDATION = 2_000
"""Of the training images: what is chosen, such as layers that stay in float, is judged on them."""

BASES = {
    "vgg": "32x32x3:same:conv_k3_s2_o16_relu:conv_k3_s2_o32_relu:conv_k3_s1_o32_relu"
    ":conv_k3_s2_o64_relu:conv_k3_s1_o128_relu:fc1024_relu:fc1024_relu:fc10",
    "mbv2": "32x32x3:same:conv_k3_s2_o16:mb_k3_s1_o16:mb_k3_s1_m64_o24:mb_k3_s2_m96_o32"
    ":mb_k3_s1_m128_o32_skip:mb_k3_s2_m128_o64:mb_k3_s1_m256_o64_skip:conv_k1_s1_o128:fc10",
    "mbv3": "32x32x3:same:conv_k3_s2_o16_hardswish:mb_k3_s1_o16_relu_se8-relu-hardsigmoid"
    ":mb_k3_s1_m64_o24_relu:mb_k3_s2_m88_o32_hardswish_se24-relu-hardsigmoid"
    ":mb_k3_s1_m128_o32_hardswish_se32-relu-hardsigmoid_skip"
    ":mb_k3_s2_m128_o64_hardswish_se32-relu-hardsigmoid"
    ":mb_k3_s1_m256_o64_hardswish_se64-relu-hardsigmoid_skip:conv_k1_s1_o128_hardswish:fc10",
}
"""Name -> the network, in its one-line form."""


def training(epochs: int) -> TrainSection:
    """Return how a base is trained."""
    return TrainSection(
        epochs=epochs,
        batch_size=BATCH,
        learning_rate=0.1,
        weight_decay=5e-4,
        label_smoothing=0.1,
        augment=0.5,
    )


@dataclass(frozen=True, slots=True)
class Base:
    """A network that was trained.

    Attributes:
        path: of its file.
        network: its weights.
        epochs: how long it was trained.
    """

    path: Path
    network: Network
    epochs: int


def load_cifar(data: Path) -> Data:
    """Return CIFAR-10: the test images as they are, 2,000 of the training images for validation."""
    parts = {}
    for part in ("train", "test"):
        archive = need(data / CIFAR / f"{part}.zip", "CIFAR-10 as JPEG")
        parts[part] = Images(str(archive)).load()
    loaded = parts["train"]
    every = Split(loaded.images, loaded.labels)
    rows = np.random.default_rng(0).permutation(len(every))
    return Data(
        Dataset(
            "cifar10",
            len(loaded.classes),
            every.take(np.sort(rows[VALIDATION:])),
            every.take(np.sort(rows[:VALIDATION])),
            Split(parts["test"].images, parts["test"].labels),
            loaded.classes,
            loaded.feed,
        )
    )


@dataclass(frozen=True, slots=True)
class FileCheckpoints:
    """The last state of a training in a file: `pipeline.train.checkpoints.Checkpoints`."""

    path: Path

    def load(self) -> State | None:
        """Return the last state, if there is one."""
        if not self.path.is_file():
            return None
        with np.load(self.path, allow_pickle=False) as arrays:
            return dict(arrays)

    def save(self, state: State) -> None:
        """Keep this state; a reader never sees half of it."""
        content = io.BytesIO()
        np.savez(content, **state)  # type: ignore[arg-type]
        half = self.path.with_suffix(".half")
        half.write_bytes(content.getvalue())
        half.replace(self.path)


def make(name: str, epochs: int, *, data: Data, work: Path) -> Base:
    """Return a base that is trained now, from its last epoch on, or was before.

    Raises:
        SystemExit: the training diverged.
    """
    file = work / f"{name}-{epochs}.npz"
    if file.is_file():
        return Base(file, Network.load(file), epochs)
    work.mkdir(parents=True, exist_ok=True)
    state = FileCheckpoints(work / f"{name}-{epochs}.state.npz")
    started = time.monotonic()

    def tell(epoch: int) -> None:
        spent = time.monotonic() - started
        print(f"{name}: epoch {epoch} of {epochs}, {spent:.0f} s", file=sys.stderr, flush=True)

    found = train(
        ArchSpec.parse(BASES[name]),
        data,
        training(epochs),
        seed=0,
        checkpoints=state,
        on_epoch=tell,
    )
    if isinstance(found, Failure):
        raise SystemExit(f"{name}: {found.reason}")
    found.network.save(file)
    state.path.unlink(missing_ok=True)
    return Base(file, found.network, epochs)


def find(name: str, work: Path) -> Base | None:
    """Return the base of a name that was trained longest; None where there is none."""
    pattern = re.compile(rf"{name}-([0-9]+)\.npz")
    files = work.iterdir() if work.is_dir() else ()
    found = [int(match[1]) for file in files if (match := pattern.fullmatch(file.name))]
    if not found:
        return None
    file = work / f"{name}-{max(found)}.npz"
    return Base(file, Network.load(file), max(found))


def rows(asked: Asked) -> Iterator[Figure]:
    """Tell of each network what it costs and how accurate it is."""
    data: Data | None = None
    for name, line in BASES.items():
        if asked.nets and name not in asked.nets:
            continue
        spent, base = cost(ArchSpec.parse(line)), find(name, asked.work)
        macs = spent.macs + spent.se_macs
        yield Figure(
            f"{name}: million MACs",
            f"{macs / 1e6:.2f}",
            f"{spent.params} parameters",
            f"<= {MOST_MACS / 1e6:g}",
            met=macs <= MOST_MACS,
            value=macs / 1e6,
        )
        what = f"{name}: accuracy, float"
        if base is None:
            yield unmeasured(what, f"{name} is not trained in {asked.work}", "")
            continue
        data = data or load_cifar(asked.data)
        right = evaluate(base.network.module, data.dataset.test, data.task)
        n = len(data.dataset.test)
        low, high = wilson(right, n) or (math.nan, math.nan)
        yield Figure(
            what,
            f"{100 * right:.2f} % ({100 * low:.2f} to {100 * high:.2f})",
            f"{n} test images, {base.epochs} epochs",
            value=100 * right,
        )


def main(argv: list[str] | None = None) -> int:
    """Train the bases that are not there yet, and tell their accuracy."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", metavar="DIR"
    )
    options.add_argument("--work", type=Path, default=WORK, metavar="DIR")
    options.add_argument("--net", choices=BASES, action="append", help="this one only")
    options.add_argument("--epochs", type=int, default=EPOCHS)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args(argv)
    use_threads(given.threads)
    data = load_cifar(given.data)
    for name in given.net or BASES:
        base = make(name, given.epochs, data=data, work=given.work)
        right = evaluate(base.network.module, data.dataset.test, data.task)
        print(f"{name}: {100 * right:.2f} % of {len(data.dataset.test)} test images", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
