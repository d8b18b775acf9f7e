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
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from device_agents.api import Failure
from models.build import build
from models.network import Network
from pipeline.train.augment import affine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.spec import ArchSpec
    from pipeline.data.api import Dataset, Split
    from pipeline.recipe import TrainSection

State = dict[str, npt.NDArray[np.generic]]

MOMENTUM = 0.9
WARMUP_SHARE = 0.2
GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm: without it a deep, narrow MobileNetV2 diverges at the rate
that suits small networks (docs/log.md), and a baseline that did not train is no baseline."""

EVALUATION_BATCH = 256


def use_threads(count: int) -> None:
    """Let torch use `count` CPU threads; more than there are idle cores is far slower than one."""
    torch.set_num_threads(max(1, count))


class Checkpoints(Protocol):
    """Where a long training keeps its state."""

    def load(self) -> State | None:
        """Return the last saved state, if there is one."""

    def save(self, state: State) -> None:
        """Keep this state instead of the one before."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network, its accuracy (0..1) on the validation split and what it took."""

    network: Network
    accuracy: float
    wall_s: float


def train(
    spec: ArchSpec,
    dataset: Dataset,
    config: TrainSection,
    *,
    seed: int,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[int], None] = lambda _epoch: None,
    clock: Callable[[], float] = time.monotonic,
) -> Trained | Failure:
    """Train a network from scratch on `dataset.train`.

    Args:
        spec: what to train; its input size must be the data set's.
        dataset: see `pipeline.data.api`.
        config: epochs, batch size, learning rate and so on.
        seed: of initial weights, order and augmentation.
        checkpoints: asked once at the start, given the state after every epoch.
        on_epoch: told the number of epochs done.
        clock: seconds, for `Trained.wall_s`.

    Returns:
        The trained network, or a Failure when the loss is no longer a number.
    """
    started = clock()
    run = _Run.start(spec, dataset, config, seed)
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
    run.module.eval()
    network = Network(spec, run.module, (f"train:{config.epochs}",))
    return Trained(network, accuracy(network.module, dataset.validation), clock() - started)


def logits(module: nn.Module, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the logits (N, classes) of images (N, C, H, W), in evaluation mode."""
    module.eval()
    with torch.inference_mode():
        batches = torch.split(torch.from_numpy(images), EVALUATION_BATCH)
        parts = [module(b.contiguous(memory_format=torch.channels_last)) for b in batches]
    result: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return result


def accuracy(module: nn.Module, split: Split) -> float:
    """Return the fraction of images whose largest logit is the label."""
    return float((logits(module, split.images).argmax(1) == split.labels).mean())


@dataclass(slots=True)
class _Run:
    """The mutable state of one training."""

    module: nn.Module
    optimizer: torch.optim.SGD
    generator: torch.Generator
    images: torch.Tensor
    labels: torch.Tensor
    config: TrainSection
    epoch: int = 0

    @classmethod
    def start(cls, spec: ArchSpec, dataset: Dataset, config: TrainSection, seed: int) -> _Run:
        generator = torch.Generator().manual_seed(seed)
        module = build(spec, generator=generator)
        # Decay pulls on what multiplies; biases and BN have nothing to gain from it.
        decayed = [p for p in module.parameters() if p.ndim > 1]
        others = [p for p in module.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=MOMENTUM, nesterov=True, fused=True
        )
        images = torch.from_numpy(dataset.train.images)
        labels = torch.from_numpy(dataset.train.labels)
        return cls(module, optimizer, generator, images, labels, config)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self.images) // self.config.batch_size)

    def learning_rate(self, step: int) -> float:
        """Linear from 0 over the first fifth, then a half cosine to 0."""
        at = (step + 1) / (self.config.epochs * self.steps_per_epoch)
        if at < WARMUP_SHARE:
            return self.config.learning_rate * at / WARMUP_SHARE
        done = (at - WARMUP_SHARE) / (1 - WARMUP_SHARE)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def one_epoch(self) -> float:
        """Train one epoch; return the mean loss."""
        self.module.train()
        order = torch.randperm(len(self.images), generator=self.generator)
        total = torch.zeros(())
        for index, rows in enumerate(torch.split(order, self.config.batch_size)):
            if index == self.steps_per_epoch:
                break  # the short last batch would give BN poor statistics
            rate = self.learning_rate(self.epoch * self.steps_per_epoch + index)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            total += self.step(self.images[rows], self.labels[rows])
        self.epoch += 1
        return float(total) / self.steps_per_epoch

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.config.augment:
            images = affine(images, self.generator, strength=self.config.augment)
        outputs = self.module(images.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(
            outputs, labels, label_smoothing=self.config.label_smoothing
        )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.module.parameters(), GRADIENT_NORM)
        self.optimizer.step()
        return loss.detach()

    def state(self) -> State:
        """Return all that the rest of the training depends on, as arrays."""
        arrays: State = {f"model/{k}": v.numpy() for k, v in self.module.state_dict().items()}
        for index, parameter in enumerate(self.parameters()):
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                arrays[f"momentum/{index}"] = momentum.numpy()
        arrays["generator"] = self.generator.get_state().numpy()
        arrays["epoch"] = np.array(self.epoch)
        return arrays

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take up the state that `state` returned."""
        tensors = {k: torch.from_numpy(np.array(v)) for k, v in state.items()}
        prefix = "model/"
        self.module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
        for index, parameter in enumerate(self.parameters()):
            if f"momentum/{index}" in tensors:
                buffer = tensors[f"momentum/{index}"].clone(memory_format=torch.preserve_format)
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        self.generator.set_state(tensors["generator"])
        self.epoch = int(tensors["epoch"])

    def parameters(self) -> list[torch.Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]
