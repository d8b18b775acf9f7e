"""The weight steps of a path network: SGD on the paths that the odds draw."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pipeline.train.loop import GRADIENT_NORM, MOMENTUM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.supernet.paths import PathNet
    from pipeline.train.loop import State


class PathWeights:
    """The weights of a path network and their optimiser (Nesterov, no decay on BN and biases).

    Weights that are not on an active path have no gradient and do not move in that step.
    """

    def __init__(self, net: PathNet, weight_decay: float, label_smoothing: float) -> None:
        self.net, self.label_smoothing = net, label_smoothing
        parameters = list(net.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=0.1, momentum=MOMENTUM, nesterov=True)

    def step(self, images: torch.Tensor, labels: torch.Tensor, rate: float) -> float:
        """Train the active paths by one batch; return the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.net.train()
        loss = functional.cross_entropy(
            self.net(images), labels, label_smoothing=self.label_smoothing
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.active_parameters(), GRADIENT_NORM)
        self.optimizer.step()
        return float(loss.detach())

    def state(self) -> State:
        """Return weights and momenta as arrays."""
        arrays: State = {f"model/{k}": v.numpy() for k, v in self.net.state_dict().items()}
        for index, parameter in enumerate(self.net.parameters()):
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                arrays[f"momentum/{index}"] = momentum.numpy()
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
            if f"momentum/{index}" in tensors:
                self.optimizer.state[parameter]["momentum_buffer"] = tensors[f"momentum/{index}"]


def half_cosine(rate: float, done: float) -> float:
    """Return the learning rate when a share `done` (0..1) of the steps is done."""
    return rate * 0.5 * (1 + math.cos(math.pi * done))


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Yield the rows of whole batches in random order; one short batch if there is no whole one."""
    order = torch.from_numpy(rng.permutation(count))
    for start in range(0, max(1, count // size) * size, size):
        yield order[start : start + size]
