"""Networks pruned to a share of their measured latency, beside uniform pruning to the same.

Ours is `edgewright compress … prune --device … --target-ms`, as a user runs it. The peer is
torch-pruning: of a fine grid of ratios the largest network whose file, by the same writer, is as
fast as was asked. Then both are trained alike, with several seeds, and their files name the test
images. Pruned and trained networks are kept in the work folder, so that a run that is killed goes
on, and another measures none of it anew.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.compress.api import Needs
from pipeline.compress.passes.finetune import Finetune
from pipeline.data.samples import ends_of, samples
from pipeline.data.tasks.classification import Classification
from pipeline.formats.files import describe_file, run_inputs
from pipeline.formats.samples import sample_ends
from pipeline.train.fit import FitOptions
from pipeline.train.lessons import Lessons
from scripts._compress_bases import BATCH, CIFAR, FileCheckpoints
from scripts._compress_cuts import RESNET8, Cut, Sizes, load_net, read, write
from scripts._compress_rows import Gain, unmeasured
from scripts._compress_uniform import PACKAGE, prune_peer
from scripts._import_latency import Ratio, compare_latencies
from scripts._import_runs import DEVICE, add_device, run
from scripts.figures import Figure, need
from scripts.other_models import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from pipeline.data.samples import End, Samples
    from scripts._compress_rows import Asked

MULTIPLE = 8
"""Widths are multiples of it: that of the device's profile."""

USED_BAR = 0.95
LEARNT = 0.2
"""Accuracy of ten classes below which nothing was learnt, and a difference says nothing."""

GAIN_BAR_POINTS = -0.3
LEARNING_RATE = 0.05
PIXELS = "pixels"
TIMEOUT_S = 3600.0


FULL = Sizes(("vgg", "mbv2", RESNET8), (0.5, 0.7, 0.35), "thorough", 60, 5, 3, None, None)
QUICK = Sizes((RESNET8,), (0.5,), "quick", 20, 1, 1, 10_000, 2_000)


def rows(asked: Asked) -> Iterator[Figure]:
    """Prune every network to every share of its latency."""
    sizes = QUICK if asked.quick else FULL
    sizes = replace(sizes, seeds=min(sizes.seeds, asked.seeds or sizes.seeds))
    work = (asked.folder if asked.quick else asked.work) / "pruned"
    for name in asked.nets or sizes.nets:
        net = load_net(name, asked)
        for share in sizes.shares:
            what = f"{name} at {share:.0%} of its latency"
            if isinstance(net, str):
                yield unmeasured(what, net, "target met")
                continue
            place = work / f"{name}-{net.model.digest()[:8]}-{100 * share:g}"
            place.mkdir(parents=True, exist_ok=True)
            yield from prune_and_train(what, Cut(net, share, place, sizes), asked)


def prune_and_train(what: str, cut: Cut, asked: Asked) -> Iterator[Figure]:
    """Give the figures of one network at one share."""
    told = prune_ours(cut, asked.folder)
    if isinstance(told, str):
        yield Figure(what, "-", told, "target met", met=False)
        return
    yield from latency_figures(what, told)
    bar = f"lower end >= {GAIN_BAR_POINTS:g} points"
    gained = f"{what}: accuracy less the peer's"
    if not asked.peers:
        yield unmeasured(gained, f"{PACKAGE} was left out", bar)
        return
    try:
        peer = prune_peer(cut)
    except Unavailable as error:
        yield Figure(gained, "-", str(error), bar, met=False)
        return
    if isinstance(peer, str):
        yield Figure(gained, "-", peer, bar, met=False)
        return
    ours = compare_latencies(cut.place / "ours.tflite", cut.whole, rounds=cut.sizes.rounds)
    yield Figure(
        f"{what}: timed in turns with the whole",
        ratio_words(ours),
        f"{peer.words}: {ratio_words(peer.ratio)}",
        value=ours.ratio,
    )
    yield gain_figure(gained, bar, cut, asked)


def latency_figures(what: str, told: dict[str, Any]) -> Iterator[Figure]:
    """Tell whether a target was met, and how much of it is used."""
    target, measured = told["target_ms"], told["measured"]
    ms, (low, high) = measured["latency_ms"], measured["ci95_ms"]
    whole = told["whole"]
    verdicts = {measured["verdict"], whole["verdict"]} - {"valid"}
    yield Figure(
        f"{what}: ms",
        f"{ms:.4f} ({low:.4f} to {high:.4f})",
        f"whole {whole['latency_ms']:.4f}{''.join(f', {one}' for one in sorted(verdicts))}",
        f"<= {target:.4f}",
        met=ms <= target,
        value=ms,
    )
    yield Figure(
        f"{what}: used",
        f"{ms / target:.1%}",
        f"{len(told['rounds'])} rounds, {told['measurements']} measurements",
        f">= {USED_BAR:.0%}",
        met=ms / target >= USED_BAR,
        value=ms / target,
    )


def ratio_words(ratio: Ratio) -> str:
    """Return a ratio with its interval."""
    return f"x{ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


def prune_ours(cut: Cut, folder: Path) -> dict[str, Any] | str:
    """Prune on this computer; see `prune_to_share`."""
    return prune_to_share(cut, "--device", DEVICE, config=add_device(folder))


def prune_to_share(
    cut: Cut, *options: str, config: Path, timeout_s: float = TIMEOUT_S
) -> dict[str, Any] | str:
    """Prune to the share of the latency; return what the command told of it, or why it failed."""
    told, target = cut.place / "ours.json", cut.place / "ours.tflite"
    if not told.is_file():
        argv: list[str | Path] = ["compress", cut.whole, f"prune:multiple={MULTIPLE}", *options]
        argv += ["--target-ms", f"{100 * cut.share:g}%", "--protocol", cut.sizes.protocol]
        argv += ["--store", cut.place / "store", "-o", target, "--json"]
        done = run(*argv, config=config, timeout_s=timeout_s)
        if done.code:
            return f"exit code {done.code}: {done.said[:300]}"
        told.write_text(json.dumps(done.json["latency"]), encoding="utf-8")
    found: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    return found


def gain_figure(what: str, bar: str, cut: Cut, asked: Asked) -> Figure:
    """Train both alike, and compare what their files name rightly."""
    rights: dict[str, list[npt.NDArray[np.bool_]]] = {"ours": [], "peer": []}
    for seed in range(cut.sizes.seeds):
        for who, found in rights.items():
            file = train(cut, who, seed, asked.data)
            found.append(name_images(file, cut, asked.data))
    ours, peers = (np.stack(found) for found in rights.values())
    gain = Gain.of(ours, peers)
    trained = f"{cut.sizes.epochs} epochs of {cut.sizes.train_images or 'all'} images"
    accuracies = f"{100 * ours.mean():.2f} and {100 * peers.mean():.2f} %"
    if min(ours.mean(), peers.mean()) < LEARNT:
        return unmeasured(what, f"training came to nothing: {accuracies}", bar)
    return Figure(
        what,
        str(gain),
        f"{accuracies}, {gain.images} test images, {gain.seeds} seeds, {trained}",
        bar,
        met=gain.low >= GAIN_BAR_POINTS,
        value=gain.points,
    )


def train(cut: Cut, who: str, seed: int, data: Path) -> Path:
    """Return the file of a pruned network that is trained now, or was before."""
    sizes = cut.sizes
    name = f"{who}-seed{seed}-{sizes.epochs}"
    file = cut.place / f"{name}.tflite"
    if file.is_file():
        return file
    model = read(cut.place / f"{who}.tflite")
    archive = need(data / CIFAR / "train.zip", "CIFAR-10 as JPEG")
    (end,) = ends_of(model)
    given = pictures(
        archive, replace(end, name=PIXELS, also="", values=cut.net.values), sizes.train_images
    )
    state = FileCheckpoints(cut.place / f"{name}.state.npz")
    lessons = Lessons(
        {end.name: given.inputs[PIXELS]},
        given.labels,
        Classification(),
        seed=seed,
        checkpoints=lambda _name: state,
        tell=lambda words: print(f"{name}: {words}", file=sys.stderr, flush=True),
    )
    options = FitOptions(
        epochs=sizes.epochs,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        label_smoothing=0.1,
        distillation=0.0,
        augment=0.5,
    )
    write(Finetune(options).apply(model, Needs(lessons=lessons)), file)
    state.path.unlink(missing_ok=True)
    return file


def name_images(file: Path, cut: Cut, data: Path) -> npt.NDArray[np.bool_]:
    """Return which test images a file names rightly in its runtime."""
    archive = need(data / CIFAR / "test.zip", "CIFAR-10 as JPEG")
    (end,) = sample_ends(describe_file(file))
    given = pictures(
        archive, replace(end, name=PIXELS, also="", values=cut.net.values), cut.sizes.test_images
    )
    outputs = next(iter(run_inputs(file, {end.name: given.inputs[PIXELS][:, None]}).values()))
    right: npt.NDArray[np.bool_] = outputs.reshape(len(given), -1).argmax(1) == given.labels
    return right


@cache
def pictures(archive: Path, end: End, most: int | None) -> Samples:
    """Read pictures for networks of one input shape; they are decoded once in a run."""
    return samples(archive, (end,), most=most)
