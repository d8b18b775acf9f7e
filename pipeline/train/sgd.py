"""The optimiser of every training: SGD with Nesterov momentum.

The step is torch's own fused one, called as a function. Its class `torch.optim.SGD` imports
torch's compiler at the first use, which nothing here needs: 2.5 s of processor time in every
training process, as much as importing torch itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.optim.sgd import sgd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

MOMENTUM = 0.9


class Sgd:
    """Parameters with their momentum; decay pulls on what multiplies, not on biases and BN.

    Momentum starts as zeros, which gives the same steps as none. A parameter without a gradient,
    as on a path or in a part of a supernet that a step leaves out, stays as it is.

    Attributes:
        momentum: of each parameter; those that decay come first.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], weight_decay: float) -> None:
        every = list(parameters)
        self._groups = (
            ([p for p in every if p.ndim > 1], weight_decay),
            ([p for p in every if p.ndim <= 1], 0.0),
        )
        self.momentum = {p: torch.zeros_like(p) for group, _ in self._groups for p in group}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.momentum:
            parameter.grad = None

    def step(self, learning_rate: float) -> None:
        """Move every parameter that has a gradient."""
        for group, weight_decay in self._groups:
            moved = [p for p in group if p.grad is not None]
            with torch.no_grad():
                sgd(
                    list[torch.Tensor](moved),
                    [p.grad for p in moved if p.grad is not None],
                    [self.momentum[p] for p in moved],
                    fused=True,
                    weight_decay=weight_decay,
                    momentum=MOMENTUM,
                    lr=learning_rate,
                    dampening=0.0,
                    nesterov=True,
                    maximize=False,
                )
