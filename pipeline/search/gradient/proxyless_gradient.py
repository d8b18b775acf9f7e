"""ProxylessNAS: gradient search over binarised paths, landing on a latency target.

Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware" (2019),
and the authors' search code. One network holds every candidate of every cell
(`models.supernet.paths`). After a warm-up of the weights, weight steps on the training split and
architecture steps on the validation split take turns; each runs one path. Three ways to move the
probabilities:

    full_v2     the gradient of every candidate, recomputed one at a time
    two         of two candidates drawn; the others keep their probabilities
    reinforce   networks drawn are rewarded by accuracy and latency, no gradient through gates

How this differs from the paper and its code. The target holds: the weight of the latency term
follows the distance from it (`_architecture`), the latency model is corrected by networks measured
on the way, and the result is the most likely network *in the band below the target* as measured,
not the most likely one wherever it lands (`_aim`, `_derive`). The sizes are for small data on a
CPU; the paper's, for ImageNet: 40 epochs of warm-up and 120 of search, batches of 256, one
architecture step in five and none in the first epoch, its rate 1e-3. That rate moves logits by
about 1e-3 a step, so it needs thousands of steps; here there are hundreds. Images are not
augmented, gradients are clipped as in all our trainings, and batch normalisation is that of
`models.build`.

Every random draw is from the seed and the epoch's number, so that a search resumed from a
checkpoint ends as one that was never interrupted.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from device_agents.api import Failure
from device_agents.errors import ConfigError
from models.supernet.paths import PathNet
from pipeline.search.api import Estimate
from pipeline.search.gradient._aim import Aim
from pipeline.search.gradient._architecture import Architecture
from pipeline.search.gradient._weights import PathWeights, batches, half_cosine
from pipeline.search.gradient.api import Epoch, GradientOutcome
from pipeline.search.gradient.cells import LatencyModel, cells_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.spec import ArchSpec
    from pipeline.data.api import Data, Split
    from pipeline.search.api import SearchSpace
    from pipeline.search.gradient.api import Measure, Predict
    from pipeline.train.checkpoints import Checkpoints, State

CHECKED_AT = (0.4, 0.7, 0.9)
"""Shares of the search after which the network that would be taken is measured."""


@dataclass(frozen=True, slots=True)
class ProxylessGradientOptions:
    """Options of `ProxylessGradient`.

    Attributes:
        mode: full_v2 | two | reinforce.
        loss: mul-log | add-linear; of the two gradient modes.
        warmup_epochs: of the weights alone, with equal probabilities.
        epochs: of weights and probabilities.
        batch_size: images of a weight step and of an architecture step.
        warmup_learning_rate: falls to 0 by a half cosine, as in the search.
        learning_rate: of the weights in the search.
        weight_decay: of the weights; none on BN and biases.
        label_smoothing: of the weight steps.
        arch_learning_rate: of the probabilities' logits (Adam).
        arch_every: weight steps for one architecture step.
    """

    mode: Literal["full_v2", "two", "reinforce"] = "full_v2"
    loss: Literal["mul-log", "add-linear"] = "mul-log"
    warmup_epochs: int = 10
    epochs: int = 30
    batch_size: int = 64
    warmup_learning_rate: float = 0.05
    learning_rate: float = 0.025
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1
    arch_learning_rate: float = 0.03
    arch_every: int = 2

    def __post_init__(self) -> None:
        for name, low in (
            ("warmup_epochs", 0),
            ("epochs", 1),
            ("batch_size", 2),
            ("arch_every", 1),
        ):
            if getattr(self, name) < low:
                raise ConfigError(f"gradient search, {name}: {getattr(self, name)} is below {low}")
        for name in ("warmup_learning_rate", "learning_rate", "arch_learning_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"gradient search, {name}: {getattr(self, name)} is not above 0")
        for name in ("weight_decay", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"gradient search, {name}: {getattr(self, name)} is not from 0 to below 1"
                )


class ProxylessGradient:
    """The search; see the module."""

    Options = ProxylessGradientOptions

    def __init__(
        self,
        space: SearchSpace[ArchSpec],
        seed: int,
        options: ProxylessGradientOptions = ProxylessGradientOptions(),
    ) -> None:
        self.cells, self.seed, self.options = cells_of(space), seed, options

    @property
    def epochs(self) -> int:
        """Epochs in all, warm-up included."""
        return self.options.warmup_epochs + self.options.epochs

    def cover_space(self) -> list[ArchSpec]:
        """Return networks that together hold every block of the space."""
        return self.cells.cover_space()

    def run(
        self,
        data: Data,
        predict: Predict,
        target_ms: float,
        *,
        measure: Measure | None = None,
        count: int = 1,
        checkpoints: Checkpoints | None = None,
        on_epoch: Callable[[int], None] = lambda _epoch: None,
    ) -> GradientOutcome:
        """Search; see `pipeline.search.gradient.api.GradientSearch`.

        Raises:
            TargetError: no network of the space meets the target; names the fastest one known.
            ConfigError: the training diverged.
        """
        model = LatencyModel.tabulate(self.cells, predict)
        search = _Search(self, data, Aim(target_ms, self.cells, model, measure))
        search.aim.check()
        if checkpoints is not None and (state := checkpoints.load()) is not None:
            search.restore(state)
        while search.epoch < search.last:
            search.one_epoch()
            on_epoch(search.epoch)
            if checkpoints is not None:
                checkpoints.save(search.state())
        found = search.aim.land(search.architecture.log_probabilities, count)
        return GradientOutcome(found, tuple(search.history))


class _Search:
    """The mutable state of one search."""

    def __init__(self, plan: ProxylessGradient, data: Data, aim: Aim) -> None:
        self.options, self.seed, self.aim = plan.options, plan.seed, aim
        self.train = _tensors(data.dataset.train)
        self.refuse_too_few_steps()
        self.validation = _tensors(data.dataset.validation)
        cells = plan.cells
        generator = torch.Generator().manual_seed(self.seed)
        net = PathNet(
            cells.input, cells.candidates, cells.dense, cells.padding, generator=generator
        )
        self.weights = PathWeights(
            net, data.task, self.options.weight_decay, self.options.label_smoothing
        )
        self.architecture = Architecture.start(
            self.options.mode,
            self.options.loss,
            task=data.task,
            model=aim.model,
            rate=self.options.arch_learning_rate,
            rng=self.rng(0),
        )
        self.history: list[Epoch] = []
        self.epoch = 0
        self.last = plan.epochs
        share = {round(share * self.options.epochs) for share in CHECKED_AT}
        self.checked = {self.options.warmup_epochs + epoch for epoch in share if epoch > 0}

    def rng(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch])

    def one_epoch(self) -> None:
        """Train the weights for an epoch and, after the warm-up, the probabilities in between."""
        options, rng = self.options, self.rng(self.epoch + 1)
        searching = self.epoch >= options.warmup_epochs
        first = options.warmup_epochs if searching else 0
        rate, length = options.warmup_learning_rate, options.warmup_epochs
        if searching:
            rate, length = options.learning_rate, options.epochs
        images, labels = self.train
        held_out = cycle(list(batches(len(self.validation[1]), options.batch_size, rng)))
        rows = list(batches(len(labels), options.batch_size, rng))
        losses = []
        for step, chosen in enumerate(rows):
            done = (self.epoch - first + step / len(rows)) / length
            self.weights.net.select(self.architecture.sample(rng))
            self.refuse_nan(
                self.weights.step(images[chosen], labels[chosen], half_cosine(rate, done))
            )
            if searching and step % options.arch_every == options.arch_every - 1:
                losses.append(self.architecture_step(next(held_out), rng))
                self.refuse_nan(losses[-1])
        self.epoch += 1
        if searching:
            if self.epoch in self.checked:
                self.aim.look(self.aim.derive_networks(self.architecture.log_probabilities)[0])
                self.aim.check()
            self.history.append(self.summary(losses))

    def architecture_step(self, rows: torch.Tensor, rng: np.random.Generator) -> float:
        images, labels = self.validation
        return self.architecture.step(
            self.weights.net, images[rows], labels[rows], self.aim.goal_ms, rng
        )

    def refuse_nan(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise ConfigError(
                f"the gradient search diverged in epoch {self.epoch + 1} of {self.last} (loss "
                f"{loss}); lower its learning_rate, now {self.options.learning_rate}, or "
                f"warmup_learning_rate, now {self.options.warmup_learning_rate}"
            )

    def refuse_too_few_steps(self) -> None:
        images, options = len(self.train[1]), self.options
        steps = max(1, images // options.batch_size)
        if steps < options.arch_every:
            raise ConfigError(
                f"gradient search: {images} training images in batches of {options.batch_size} are "
                f"{steps} weight steps in an epoch, and the probabilities would never move with "
                f"arch_every = {options.arch_every}; lower arch_every or batch_size"
            )

    def summary(self, losses: Sequence[float]) -> Epoch:
        architecture, aim = self.architecture, self.aim
        return Epoch(
            epoch=self.epoch - self.options.warmup_epochs,
            loss=float(np.mean(losses)),
            expected_ms=architecture.expected_ms,
            derived_ms=aim.model.of(aim.derive_networks(architecture.log_probabilities)[0]),
            pressure=architecture.pressure,
            entropy_bits=architecture.entropy_bits(),
            correction=aim.correction,
        )

    def state(self) -> State:
        """Return all that the rest of the search depends on, as arrays."""
        architecture, aim = self.architecture, self.aim
        arrays = self.weights.state()
        for cell, alpha in enumerate(architecture.alphas):
            arrays[f"alpha/{cell}"] = alpha
            arrays[f"squares/{cell}"] = architecture.optimizer.squares[cell]
        progress = {
            "steps": architecture.optimizer.steps,
            "pressure": architecture.pressure,
            "baseline": architecture.baseline,
            "history": [asdict(epoch) for epoch in self.history],
            "measured": [
                [list(choices), isinstance(found, Estimate), asdict(found)]
                for choices, found in aim.measured.items()
            ],
        }
        arrays["progress"] = np.array(json.dumps(progress))
        arrays["epoch"] = np.array(self.epoch)
        return arrays

    def restore(self, state: State) -> None:
        """Take up the state that `state` returned."""
        architecture = self.architecture
        self.weights.restore(state)
        for cell in range(len(architecture.alphas)):
            architecture.alphas[cell] = np.array(state[f"alpha/{cell}"], dtype=np.float64)
            architecture.optimizer.squares[cell] = np.array(
                state[f"squares/{cell}"], dtype=np.float64
            )
        progress = json.loads(str(state["progress"]))
        architecture.optimizer.steps = progress["steps"]
        architecture.pressure, architecture.baseline = progress["pressure"], progress["baseline"]
        self.history = [Epoch(**epoch) for epoch in progress["history"]]
        for choices, known, found in progress["measured"]:
            self.aim.measured[tuple(choices)] = Estimate(**found) if known else Failure(**found)
        self.epoch = int(state["epoch"])


def _tensors(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(np.asarray(split.images))
    return (
        images.contiguous(memory_format=torch.channels_last),
        torch.from_numpy(np.asarray(split.labels)),
    )
