from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from pipeline.train.sgd import MOMENTUM, Sgd


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))


@pytest.mark.parametrize("left_out", [False, True])
def test_steps_are_those_of_torchs_own_optimizer(*, left_out: bool) -> None:
    """A layer without a gradient in some steps, as in a supernet, neither moves nor decays."""
    ours, theirs = small(), small()
    optimizer = Sgd(ours.parameters(), 0.01)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in theirs.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    reference = torch.optim.SGD(groups, lr=0.1, momentum=MOMENTUM, nesterov=True)
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        images = torch.randn(8, 2, 6, 6, generator=generator)
        optimizer.zero_grad()
        reference.zero_grad()
        for net in (ours, theirs):
            net(images).square().mean().backward()
            if left_out and step % 2:
                net[3].weight.grad = None
        optimizer.step(0.1)
        reference.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, rtol=1e-5, atol=1e-7)


def test_a_training_process_does_not_import_torchs_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from pipeline.train.loop import take_step\n"
        "from pipeline.train.sgd import Sgd\n"
        "net = torch.nn.Linear(2, 2)\n"
        "optimizer = Sgd(net.parameters(), 0.1)\n"
        "optimizer.zero_grad()\n"
        "net(torch.ones(1, 2)).sum().backward()\n"
        "take_step(net, optimizer, 0.1)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
