"""The weight steps of a path network: SGD on the paths that the probabilities draw."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from pipeline.train.loop import GRADIENT_NORM
from pipeline.train.sgd import Sgd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.supernet.paths import PathNet
    from pipeline.data.task import Task
    from pipeline.train.checkpoints import State


class PathWeights:
    """The weights of a path network and their optimiser (Nesterov, no decay on BN and biases).

    Weights that are not on an active path have no gradient and do not move in that step.
    """

    def __init__(
        self, net: PathNet, task: Task, weight_decay: float, label_smoothing: float
    ) -> None:
        self.net, self.task, self.label_smoothing = net, task, label_smoothing
        self.optimizer = Sgd(net.parameters(), weight_decay)

    def step(self, images: torch.Tensor, labels: torch.Tensor, rate: float) -> float:
        """Train the active paths by one batch; return the loss before it."""
        self.net.train()
        loss = self.task.loss(self.net(images), labels, label_smoothing=self.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.active_parameters(), GRADIENT_NORM)
        self.optimizer.step(rate)
        return float(loss.detach())

    def state(self) -> State:
        """Return weights and momenta as arrays."""
        arrays: State = {f"model/{k}": v.numpy() for k, v in self.net.state_dict().items()}
        for index, parameter in enumerate(self.net.parameters()):
            arrays[f"momentum/{index}"] = self.optimizer.momentum[parameter].numpy()
        return arrays

    def restore(self, state: State) -> None:
        """Take up what `state` returned."""
        prefixes = ("model/", "momentum/")
        tensors = {
            k: torch.from_numpy(np.array(v)) for k, v in state.items() if k.startswith(prefixes)
        }
        prefix = prefixes[0]
        self.net.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
        for index, parameter in enumerate(self.net.parameters()):
            if f"momentum/{index}" in tensors:  # checkpoints of old lack what had not moved
                self.optimizer.momentum[parameter].copy_(tensors[f"momentum/{index}"])


def half_cosine(rate: float, done: float) -> float:
    """Return the learning rate when a share `done` (0..1) of the steps is done."""
    return rate * 0.5 * (1 + math.cos(math.pi * done))


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Yield the rows of whole batches in random order; one short batch if there is no whole one."""
    order = torch.from_numpy(rng.permutation(count))
    for start in range(0, max(1, count // size) * size, size):
        yield order[start : start + size]
