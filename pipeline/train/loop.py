"""The training loop, for a few proxy epochs and for training in full alike.

SGD with Nesterov momentum, clipped gradients, linear warm-up and cosine decay, label smoothing,
random affine augmentation. The learning rate is a function of the step alone and every random draw
comes from one generator, so that a training resumed from a checkpoint ends with the same weights as
one that was never interrupted.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from device_agents.api import Failure
from models.build import build
from models.network import Network
from pipeline.train.augment import affine
from pipeline.train.devices import choose_device, mixed_precision
from pipeline.train.sgd import Sgd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.spec import ArchSpec
    from pipeline.data.api import Data, Held, Images, Split
    from pipeline.data.task import Task
    from pipeline.recipe.sections import TrainSection
    from pipeline.train.checkpoints import Checkpoints, State

WARMUP_SHARE = 0.2
GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm: without it a deep, narrow MobileNetV2 diverges at the rate
that suits small networks (docs/log.md), and a baseline that did not train is no baseline."""

EVALUATION_BATCH = 256


def use_threads(count: int) -> None:
    """Let torch use `count` CPU threads; more than there are idle cores is far slower than one."""
    torch.set_num_threads(max(1, count))


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network, its score (accuracy: 0..1) on the validation split and what it took."""

    network: Network
    accuracy: float
    wall_s: float


def train(
    spec: ArchSpec,
    data: Data,
    config: TrainSection,
    *,
    seed: int,
    start: Network | None = None,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[int], None] = lambda _epoch: None,
    clock: Callable[[], float] = time.monotonic,
) -> Trained | Failure:
    """Train a network on the training split, from scratch or from given weights.

    Args:
        spec: what to train, at its own input size.
        data: what on, and what counts as good.
        config: epochs, batch size, learning rate and so on.
        seed: of initial weights, order and augmentation.
        start: a network of this spec whose weights to go on from.
        checkpoints: asked once at the start, given the state after every epoch.
        on_epoch: told the number of epochs done.
        clock: seconds, for `Trained.wall_s`.

    Returns:
        The trained network, on the processor, or a Failure when the loss or the outputs are no
        longer numbers.

    Raises:
        ConfigError: the device of `config` is not on this machine.
    """
    started = clock()
    run = _Run.start(spec, data, config, seed)
    if start is not None:
        run.module.load_state_dict(start.module.state_dict())
    if checkpoints is not None and (state := checkpoints.load()) is not None:
        run.restore(state)
    while run.epoch < config.epochs:
        loss = run.one_epoch()
        if not math.isfinite(loss):
            return Failure(
                f"training diverged in epoch {run.epoch} (loss {loss}); "
                f"lower the learning rate, now {config.learning_rate}",
                str(spec),
            )
        on_epoch(run.epoch)
        if checkpoints is not None and run.epoch < config.epochs:
            checkpoints.save(run.state())
    run.module.cpu()
    reached = evaluate(run.module, data.at(spec.input).validation, data.task)
    if math.isnan(reached):
        return Failure(
            "training ended with a network whose outputs are not numbers; "
            f"lower the learning rate, now {config.learning_rate}",
            str(spec),
        )
    history = () if start is None else start.history
    network = Network(spec, run.module.eval(), (*history, f"train:{config.epochs}"))
    return Trained(network, reached, clock() - started)


def predict(module: nn.Module, images: Images | Held) -> npt.NDArray[np.float32]:
    """Return the outputs (N, classes) of images (N, C, H, W), in evaluation mode."""
    module.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = torch.from_numpy(images[start : start + EVALUATION_BATCH])
            parts.append(module(batch.contiguous(memory_format=torch.channels_last)))
    result: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return result


def evaluate(module: nn.Module, split: Split, task: Task) -> float:
    """Return the task's score (accuracy: 0..1) on a split; NaN if an output is no number."""
    outputs = predict(module, split.images)
    if not np.isfinite(outputs).all():
        return math.nan
    return task.score(outputs, np.asarray(split.labels))


def pick(split: Split, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return some of the images, and their labels."""
    chosen = rows.numpy()
    return torch.from_numpy(split.images[chosen]), torch.from_numpy(split.labels[chosen])


def schedule(share: float) -> float:
    """Return the learning rate, as a part of the highest, when `share` (0..1) of the steps is done.

    Linear from 0 over the first fifth, then a half cosine to 0.
    """
    if share < WARMUP_SHARE:
        return share / WARMUP_SHARE
    done = (share - WARMUP_SHARE) / (1 - WARMUP_SHARE)
    return 0.5 * (1 + math.cos(math.pi * done))


def whole_batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Return rows in batches of `size`; all in one where there are fewer.

    A short last batch is left out: it would give batch normalisation poor statistics.
    """
    return list(torch.split(order, size))[: max(1, len(order) // size)]


def take_step(module: nn.Module, optimizer: Sgd, learning_rate: float) -> None:
    """Clip the gradients of a module and let its optimiser take one step."""
    nn.utils.clip_grad_norm_(module.parameters(), GRADIENT_NORM)
    optimizer.step(learning_rate)


def weights_state(module: nn.Module, optimizer: Sgd) -> State:
    """Return weights and momentum as arrays, for `restore_weights`."""
    arrays: State = {f"model/{k}": v.cpu().numpy() for k, v in module.state_dict().items()}
    for index, momentum in enumerate(optimizer.momentum.values()):
        arrays[f"momentum/{index}"] = momentum.cpu().numpy()
    return arrays


def restore_weights(
    state: Mapping[str, npt.NDArray[np.generic]], module: nn.Module, optimizer: Sgd
) -> None:
    """Take up the weights and the momentum that `weights_state` returned."""
    tensors = {k: torch.from_numpy(np.array(v)) for k, v in state.items()}
    prefix = "model/"
    module.load_state_dict(
        {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    )
    for index, momentum in enumerate(optimizer.momentum.values()):
        momentum.copy_(tensors[f"momentum/{index}"])


@dataclass(slots=True)
class _Run:
    """The mutable state of one training."""

    module: nn.Module
    optimizer: Sgd
    generator: torch.Generator
    split: Split
    task: Task
    config: TrainSection
    device: torch.device
    epoch: int = 0

    @classmethod
    def start(cls, spec: ArchSpec, data: Data, config: TrainSection, seed: int) -> _Run:
        device = choose_device(config.device)
        generator = torch.Generator().manual_seed(seed)
        module = build(spec, generator=generator).to(device)
        optimizer = Sgd(module.parameters(), config.weight_decay)
        split = data.at(spec.input).train
        return cls(module, optimizer, generator, split, data.task, config, device)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self.split) // self.config.batch_size)

    def learning_rate(self, step: int) -> float:
        return self.config.learning_rate * schedule(
            (step + 1) / (self.config.epochs * self.steps_per_epoch)
        )

    def one_epoch(self) -> float:
        """Train one epoch; return the mean loss."""
        self.module.train()
        order = torch.randperm(len(self.split), generator=self.generator)
        total = torch.zeros((), device=self.device)
        for index, rows in enumerate(whole_batches(order, self.config.batch_size)):
            rate = self.learning_rate(self.epoch * self.steps_per_epoch + index)
            total += self.step(*pick(self.split, rows), rate)
        self.epoch += 1
        return float(total) / self.steps_per_epoch

    def step(self, images: torch.Tensor, labels: torch.Tensor, rate: float) -> torch.Tensor:
        images, labels = images.to(self.device), labels.to(self.device)
        if self.config.augment:
            images = affine(images, self.generator, strength=self.config.augment)
        with mixed_precision(self.device):
            outputs = self.module(images.contiguous(memory_format=torch.channels_last))
        outputs = outputs.float()
        loss = self.task.loss(outputs, labels, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        take_step(self.module, self.optimizer, rate)
        return loss.detach()

    def state(self) -> State:
        """Return all that the rest of the training depends on, as arrays."""
        arrays = weights_state(self.module, self.optimizer)
        arrays["generator"] = self.generator.get_state().numpy()
        arrays["epoch"] = np.array(self.epoch)
        return arrays

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take up the state that `state` returned."""
        restore_weights(state, self.module, self.optimizer)
        self.generator.set_state(torch.from_numpy(np.array(state["generator"])))
        self.epoch = int(state["epoch"])
