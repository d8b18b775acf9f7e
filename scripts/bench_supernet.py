"""Supernets: what a step costs, whether what is extracted is the same, and how good it is.

A step of an elastic sub-network is timed against a step of the same network extracted, turn by turn
in one thread: forward, backward, clipping and optimiser, in seconds of that thread's processor.
The accuracies are those of handwritten digits at 24 and 32 pixels; the predictor is also held to
Once-for-all's published one, as if that were the truth.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional

from device_agents.api import Failure
from models.supernet.elastic import ElasticNet
from pipeline.data import Data, load_dataset
from pipeline.recipe.sections import SupernetSection, TrainSection
from pipeline.search.estimate.predicted import PredictedAccuracy
from pipeline.search.space.ofa_mobilenet_v3 import OfaMobileNetV3Space
from pipeline.search.space.ofa_proxyless import OfaProxylessSpace
from pipeline.train.loop import evaluate, take_step, train, use_threads
from pipeline.train.recalibration import recalibrate
from pipeline.train.sgd import Sgd
from pipeline.train.shrinking import phases
from pipeline.train.supernet import train_supernet
from scripts._gradient_figures import rows
from scripts.figures import Figure, finish, need, parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from models.spec import ArchSpec

STEP_BAR = 1.15
ERROR_BAR = 1e-5
LEAST_SPREAD = 0.01
"""Standard deviation of a logit over images, below which equal outputs would say nothing."""
SMALL = OfaMobileNetV3Space(input=(32, 32, 1), classes=10)
LARGE = OfaMobileNetV3Space(input=(96, 96, 3), classes=100)
DIGITS = replace(SMALL, resolutions=(24, 32), depths=(1, 2, 3), width=0.5, stem=(3, 2, 16))
PUBLISHED = OfaMobileNetV3Space(
    input=(224, 224, 3), classes=1000, resolutions=(160, 176, 192, 208, 224), width=1.2
)
PUBLISHED_SAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work a run does."""

    subnetworks: int
    steps: int
    supernet: SupernetSection
    scratch_epochs: int
    compared: int
    predicted: int


FULL = Sizes(
    6,
    12,
    SupernetSection(
        full_epochs=16,
        kernel_epochs=3,
        depth_epochs=5,
        width_epochs=8,
        batch_size=32,
        elastic_learning_rate=0.05,
    ),
    32,
    4,
    150,
)
QUICK = Sizes(
    1,
    3,
    SupernetSection(
        full_epochs=2, kernel_epochs=1, depth_epochs=1, width_epochs=1, elastic_learning_rate=0.05
    ),
    2,
    1,
    20,
)
TRAIN = TrainSection(label_smoothing=0.1, augment=1.0, batch_size=32)


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    options = parser(__doc__, data="where ofa_acc_predictor.npz lies").parse_args(argv)
    sizes = QUICK if options.quick else FULL
    use_threads(1)
    torch.manual_seed(0)
    figures = step_figures(SMALL, "32 px, batch 64", 64, sizes)
    if not options.quick:
        figures += step_figures(LARGE, "96 px, batch 16", 16, sizes)
    figures += [extraction_figure(40), *digits_figures(sizes), published_predictor(options)]
    return finish(options, [*figures, *rows(options.quick)])


def step_figures(space: OfaMobileNetV3Space, where: str, batch: int, sizes: Sizes) -> list[Figure]:
    """Time steps of the smallest, the full and random sub-networks against the extracted ones."""
    rng = np.random.default_rng(0)
    net = ElasticNet(space.full, generator=torch.Generator().manual_seed(0)).train()
    specs = [smallest(space), space.full, *(space.sample(rng) for _ in range(sizes.subnetworks))]
    ratios = [step_ratio(net, spec, batch, sizes.steps) for spec in specs]
    worst = max(ratios)
    return [
        Figure(
            f"elastic step over static, worst of {len(specs)} ({where})",
            f"{worst:.3f}x",
            bar=f"<= {STEP_BAR}x",
            met=worst <= STEP_BAR,
            value=worst,
        ),
        Figure(
            f"  smallest | full | median of random ({where})",
            f"{ratios[0]:.3f} | {ratios[1]:.3f} | {statistics.median(ratios[2:]):.3f}",
        ),
    ]


def smallest(space: OfaMobileNetV3Space) -> ArchSpec:
    """Return the sub-network of the smallest options."""
    least = replace(
        space,
        kernels=(min(space.kernels),),
        expansions=(min(space.expansions),),
        depths=(min(space.depths),),
        resolutions=(min(height for height, _, _ in space.inputs),),
    )
    return least.full


def step_ratio(net: ElasticNet, spec: ArchSpec, batch: int, steps: int) -> float:
    """Return the median ratio of neighbouring steps, the supernet's over the static network's."""
    static = net.extract(spec).module.train()
    net.select(spec)
    height, width, channels = spec.input
    images = torch.randn(batch, channels, height, width)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, spec.classes, (batch,))
    pair = [(module, Sgd(module.parameters(), 1e-4)) for module in (net, static)]
    found = []
    for turn in range(steps + 2):
        taken = [0.0, 0.0]
        for which in (0, 1) if turn % 2 else (1, 0):
            taken[which] = step_s(*pair[which], images, labels)
        if turn >= 2:  # the first steps also make buffers
            found.append(taken[0] / taken[1])
    return statistics.median(found)


def step_s(module: nn.Module, optimizer: Sgd, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Take one training step; return the processor time of this thread."""
    started = time.thread_time()
    optimizer.zero_grad()
    functional.cross_entropy(module(images), labels).backward()  # type: ignore[no-untyped-call]
    take_step(module, optimizer, 0.01)
    return time.thread_time() - started


def extraction_figure(count: int) -> Figure:
    """Compare the outputs of random sub-networks in and out of their supernets."""
    worst = 0.0
    rng = np.random.default_rng(0)
    mobile = OfaProxylessSpace(input=(32, 32, 3), classes=10, resolutions=(20, 32))
    for space in (replace(SMALL, resolutions=(24, 32)), mobile):
        net = ElasticNet(space.full, generator=torch.Generator().manual_seed(0))
        blur_identities(net)
        with torch.inference_mode():
            for spec in (space.sample(rng) for _ in range(count // 2)):
                height, width, channels = spec.input
                images = torch.randn(16, channels, height, width)
                net.select(spec)
                net.train()(images)  # statistics of its own, or no image would reach the logits
                outputs = net.eval()(images)
                if not outputs.std(0).min() > LEAST_SPREAD:
                    raise SystemExit(f"the logits of {spec} do not depend on the images")
                difference = outputs - net.extract(spec).module(images)
                worst = max(worst, float(difference.abs().max()))
    return Figure(
        f"extracted against supernet, max abs error ({count} sub-networks)",
        f"{worst:.1e}",
        bar=f"<= {ERROR_BAR:.0e}",
        met=worst <= ERROR_BAR,
        value=worst,
    )


def blur_identities(net: ElasticNet) -> None:
    """Move the kernel matrices away from the identity, and the logits' weights away from 0.

    Batch normalisation then takes the statistics of one batch as they are.
    """
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        for matrix in net.matrices.values():
            matrix.add_(0.1 * torch.randn(matrix.shape))
        net.net.dense[-1].weight.normal_(0.0, 0.3)  # type: ignore[operator]


def digits_figures(sizes: Sizes) -> list[Figure]:
    """Train a supernet of handwritten digits; judge its sub-networks and the predictor."""
    data = Data(load_dataset("digits", {}, resolution=32, fractions=(0.6, 0.2, 0.2), seed=0))
    started = time.monotonic()
    net = train_supernet(DIGITS, data, config=sizes.supernet, train=TRAIN, seed=0)
    if isinstance(net, Failure):
        raise SystemExit(net.reason)
    wall_s = time.monotonic() - started
    rng = np.random.default_rng(1)
    specs = [DIGITS.full, smallest(DIGITS), *(DIGITS.sample(rng) for _ in range(sizes.predicted))]
    before, after = zip(*(judged(net, spec, data) for spec in specs), strict=True)
    epochs = sum(phase.epochs for phase in phases(DIGITS, sizes.supernet))
    names = "full | smallest | mean of random"
    return [
        Figure(f"digits: training of the supernet, {epochs} epochs", f"{wall_s:.0f} s"),
        Figure(f"  accuracy without re-calibration, {names}", three(before)),
        Figure(f"  accuracy re-calibrated, {names}", three(after)),
        scratch_figure(specs, after, data, sizes),
        predictor_figure(specs, after),
    ]


def three(values: Sequence[float]) -> str:
    """Write the first, the second and the mean of the others."""
    return f"{values[0]:.1%} | {values[1]:.1%} | {statistics.fmean(values[2:]):.1%}"


def judged(net: ElasticNet, spec: ArchSpec, data: Data) -> tuple[float, float]:
    """Return a sub-network's validation accuracy before and after re-calibration."""
    module, own = net.extract(spec).module, data.at(spec.input)
    before = evaluate(module, own.validation, data.task)
    recalibrate(module, own.train.images[:512], batch_size=256)
    return before, evaluate(module, own.validation, data.task)


def scratch_figure(
    specs: Sequence[ArchSpec], shared: Sequence[float], data: Data, sizes: Sizes
) -> Figure:
    """Train some of the sub-networks by themselves."""
    config = replace(TRAIN, epochs=sizes.scratch_epochs)
    alone = []
    for spec in specs[: sizes.compared]:
        trained = train(spec, data, config, seed=0)
        if isinstance(trained, Failure):
            raise SystemExit(trained.reason)
        alone.append(trained.accuracy)
    return Figure(
        f"  {len(alone)} sub-networks, mean accuracy out of the supernet",
        f"{statistics.fmean(shared[: len(alone)]):.1%}",
        f"{statistics.fmean(alone):.1%} alone, {config.epochs} epochs each",
    )


def predictor_figure(specs: Sequence[ArchSpec], accuracies: Sequence[float]) -> Figure:
    """Fit the accuracy predictor to the sub-networks that were tried."""
    rng = np.random.default_rng(0)
    found = PredictedAccuracy.fit(DIGITS.features, specs, accuracies, rng=rng)
    return Figure(
        f"  predictor from {found.samples}: hold-out RMSE, Spearman",
        f"{found.holdout_rmse:.2%}, {found.holdout_spearman:.3f}",
        f"spread {statistics.pstdev(accuracies):.2%}",
    )


def published_predictor(options: argparse.Namespace) -> Figure:
    """Learn Once-for-all's predictor from few of its answers; ask for others."""
    path = need(options.data / "ofa_acc_predictor.npz", "Once-for-all's accuracy predictor")
    with np.load(path, allow_pickle=False) as file:
        layers = [(file[f"{i}.weight"], file[f"{i}.bias"]) for i in (0, 2, 4, 6)]
    rng = np.random.default_rng(0)
    specs = [PUBLISHED.sample(rng) for _ in range(2 * PUBLISHED_SAMPLES)]
    features = np.stack([PUBLISHED.features(spec) for spec in specs])
    # Its resolutions are 112, 128, ... 224, of which the last five are the space's.
    x = np.insert(features, [120, 120, 120], 0.0, axis=1)
    for index, (weight, bias) in enumerate(layers):
        x = (np.maximum(x, 0.0) if index else x) @ weight.T + bias
    truth = x[:, 0]
    count = 200 if options.quick else PUBLISHED_SAMPLES
    found = PredictedAccuracy.fit(
        PUBLISHED.features, specs[:count], truth[:count].tolist(), rng=rng
    )
    asked = found.estimate(specs[PUBLISHED_SAMPLES:])
    estimates = [estimate for estimate in asked if not isinstance(estimate, Failure)]
    errors = np.array([e.value for e in estimates]) - truth[PUBLISHED_SAMPLES:]
    stderr = np.array([e.stderr for e in estimates])
    rank = spearmanr(errors + truth[PUBLISHED_SAMPLES:], truth[PUBLISHED_SAMPLES:]).statistic
    covered = np.mean(np.abs(errors) < 1.96 * stderr)
    return Figure(
        f"predictor of Once-for-all's, from {count} answers: RMSE, Spearman, 95 % covers",
        f"{np.sqrt(np.mean(errors**2)):.2%}, {rank:.3f}, {covered:.0%}",
        "theirs from 16,000: 0.21%",
    )


if __name__ == "__main__":
    sys.exit(main())
