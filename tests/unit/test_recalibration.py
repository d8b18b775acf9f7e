"""Re-calibrated statistics, held to one pass over all the images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.build import build
from models.spec import ArchSpec
from pipeline.train.recalibration import recalibrate

SPEC = ArchSpec.parse("8x8x2:same:conv_k3_s2_o6:mb_k3_s1_m12_o6_se3-relu-sigmoid_skip:fc3")


def images(count: int = 10) -> np.ndarray:
    """Return images whose level rises from the first to the last: batches differ in their means."""
    rng = np.random.default_rng(0)
    level = np.linspace(-3, 5, count).reshape(-1, 1, 1, 1)
    return (rng.standard_normal((count, 2, 8, 8)) + level).astype(np.float32)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 99])
def test_statistics_are_those_of_all_images_whatever_the_batches(batch_size: int) -> None:
    module = build(SPEC, generator=torch.Generator().manual_seed(0))
    recalibrate(module, images(), batch_size=batch_size)
    first = module.blocks[0]
    with torch.no_grad():
        padded = torch.nn.functional.pad(torch.from_numpy(images()), (0, 1, 0, 1))
        maps = torch.nn.functional.conv2d(padded, first.conv.conv.weight, stride=2).double().numpy()
    values = maps.transpose(1, 0, 2, 3).reshape(6, -1)  # (channels, images x positions)
    bn = first.conv.bn
    assert np.allclose(bn.running_mean, values.mean(1), atol=1e-5)
    assert np.allclose(bn.running_var, values.var(1, ddof=1), rtol=1e-5)


def test_every_layer_has_the_statistics_of_one_pass() -> None:
    module = build(SPEC, generator=torch.Generator().manual_seed(0))
    reference = build(SPEC, generator=torch.Generator().manual_seed(0)).train()
    for layer in reference.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0  # torch then keeps the last batch's statistics: here, all images
    with torch.no_grad():
        reference(torch.from_numpy(images()))
    recalibrate(module, images(), batch_size=10)
    assert not module.training
    ours, theirs = module.state_dict(), reference.state_dict()
    for name, value in theirs.items():
        if "num_batches" not in name:
            assert torch.allclose(ours[name], value, atol=1e-5, rtol=1e-4), name


def test_no_small_rest_is_normalised_by_itself() -> None:
    # Behind the second stride one position is left: a batch of one image has no variance there.
    spec = ArchSpec.parse("4x4x2:same:conv_k3_s2_o6:mb_k3_s2_m12_o6:fc3")
    module = build(spec, generator=torch.Generator().manual_seed(0))
    sizes = []
    module.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    recalibrate(module, images(9)[:, :, :4, :4], batch_size=4)
    assert sizes == [3, 3, 3]


def test_weights_and_momentum_stay_as_they_are() -> None:
    module = build(SPEC, generator=torch.Generator().manual_seed(0))
    before = {name: p.clone() for name, p in module.named_parameters()}
    layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    recalibrate(module, images(), batch_size=4)
    assert [layer.momentum for layer in layers] == momenta
    assert None not in momenta
    assert all(torch.equal(before[name], p) for name, p in module.named_parameters())
    assert all(p.grad is None for p in module.parameters())
    hooks = [layer._forward_pre_hooks for layer in module.modules()]
    assert not any(hooks)
