"""A Once-for-all network, held to plain networks and to sums written out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from device_agents.errors import ConfigError
from models.spec import ArchSpec, SpecError
from models.supernet.elastic import ElasticNet
from pipeline.search.space.ofa_mobilenet_v3 import OfaMobileNetV3Space
from pipeline.search.space.ofa_proxyless import OfaProxylessSpace

if TYPE_CHECKING:
    from pathlib import Path

SPACE = OfaMobileNetV3Space(
    input=(16, 16, 1), classes=4, resolutions=(8, 12, 16), depths=(1, 2, 3), width=0.5
)
TWO_STAGES = ArchSpec.parse(
    "8x8x2:same:conv_k3_s1_o4:mb_k7_s2_m24_o8_hardswish_se6-relu-hardsigmoid:"
    "mb_k5_s1_m16_o8_skip:mb_k3_s1_m16_o8_skip:conv_k1_s1_o12:fc6_relu:fc3"
)


def elastic(full: ArchSpec, seed: int = 0) -> ElasticNet:
    """Return a supernet in which no tensor is 0, 1 or the identity any more."""
    generator = torch.Generator().manual_seed(seed)
    net = ElasticNet(full, generator=generator)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.add_(0.3 * noise if "running_var" in name else 0.2 * (noise - 0.5))
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0  # one batch in training mode gives the statistics
    return net.eval()


def images(spec: ArchSpec, count: int = 3, seed: int = 0) -> torch.Tensor:
    height, width, channels = spec.input
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, height, width, generator=generator)


@pytest.mark.parametrize(
    "space",
    [SPACE, OfaProxylessSpace(input=(20, 12, 3), classes=5, width=0.5, padding="symmetric")],
    ids=lambda space: space.name,
)
def test_an_extracted_network_has_the_outputs_of_the_supernet(space: OfaMobileNetV3Space) -> None:
    net = elastic(space.full)
    rng = np.random.default_rng(0)
    specs = [space.full, *(space.sample(rng) for _ in range(24))]
    assert len({spec.input for spec in specs}) == len(space.inputs)
    with torch.inference_mode():
        for spec in specs:
            net.select(spec)
            net.train()(images(spec, 16))  # statistics of its own, or no image reaches the logits
            outputs = net.eval()(images(spec))
            assert outputs.std(0).max() > 1e-2
            network = net.extract(spec)
            assert network.spec == spec
            error = (outputs - network.module(images(spec))).abs().max()
            assert error <= 1e-5, spec


def test_it_takes_what_follows_the_pooling_and_every_block_of_the_zoo() -> None:
    full = ArchSpec.parse(
        "9x9x1:symmetric:conv_k3_s2_o8_se4-relu-sigmoid:ds_k3_s1_o8:mb_k5_s1_o8_skip:"
        "mb_k5_s1_m24_o8:mb_k3_s1_m16_o8_poolskip:fc6_relu6:fc3"
    )
    spec = ArchSpec.parse(str(full).replace("mb_k5_s1_m24_o8", "mb_k3_s1_m5_o8"))
    net = elastic(full)
    net.select(spec)
    with torch.inference_mode():
        expected = net.extract(spec).module(images(spec))
        assert torch.allclose(net(images(spec)), expected, atol=1e-5, rtol=0)


def test_a_smaller_kernel_begins_as_the_centre_of_the_larger() -> None:
    net = ElasticNet(TWO_STAGES, generator=torch.Generator().manual_seed(0))
    seven = net.net.blocks[1].depthwise.conv.weight
    assert torch.equal(net.kernel(1, 7, 24), seven)
    assert torch.equal(net.kernel(1, 5, 24), seven[:, :, 1:6, 1:6])
    assert torch.equal(net.kernel(1, 3, 10), seven[:10, :, 2:5, 2:5])


def test_the_kernel_transform_is_the_matrix_times_the_centre_chained() -> None:
    net = elastic(TWO_STAGES)
    shapes = {name: tuple(matrix.shape) for name, matrix in net.matrices.items()}
    assert shapes == {"1_7_5": (25, 25), "1_5_3": (9, 9), "2_5_3": (9, 9)}
    seven = net.net.blocks[1].depthwise.conv.weight.detach().double().numpy()
    large = net.matrices["1_7_5"].detach().double().numpy()
    small = net.matrices["1_5_3"].detach().double().numpy()
    for channel in (0, 23):
        # f5[i] = sum_j M75[i, j] centre(f7)[j], row by row; then the same from 5 to 3.
        five = np.zeros((5, 5))
        for i in range(25):
            for j in range(25):
                five[i // 5, i % 5] += large[i, j] * seven[channel, 0, 1 + j // 5, 1 + j % 5]
        three = np.zeros((3, 3))
        for i in range(9):
            for j in range(9):
                three[i // 3, i % 3] += small[i, j] * five[1 + j // 3, 1 + j % 3]
        for size, expected in ((5, five), (3, three)):
            ours = net.kernel(1, size, 24)[channel, 0].detach().numpy()
            assert np.allclose(ours, expected, atol=1e-6)


def test_only_what_a_sub_network_uses_has_a_gradient() -> None:
    net = elastic(TWO_STAGES).train()
    spec = ArchSpec.parse(
        str(TWO_STAGES)
        .replace("mb_k7_s2_m24_o8_hardswish_se6", "mb_k5_s2_m16_o8_hardswish_se4")
        .replace(":mb_k3_s1_m16_o8_skip", "")
    )
    net.select(spec)
    functional.cross_entropy(net(images(spec, 8)), torch.arange(8) % 3).backward()
    first, last = net.net.blocks[1], net.net.blocks[3]
    for weight, used in (
        (first.expand.conv.weight, (16, 4)),
        (first.expand.bn.bias, (16,)),
        (first.depthwise.bn.weight, (16,)),
        (first.se.reduce.weight, (4, 16)),
        (first.se.expand.weight, (16, 4)),
        (first.project.conv.weight, (8, 16)),
    ):
        inside = torch.zeros(weight.shape, dtype=torch.bool)
        inside[tuple(slice(length) for length in used)] = True
        assert (weight.grad[~inside] == 0).all()
        assert (weight.grad[inside] != 0).any()
    kernel = first.depthwise.conv.weight.grad
    assert (kernel[16:] == 0).all()
    ring = torch.ones(7, 7, dtype=torch.bool)
    ring[1:6, 1:6] = False
    assert (kernel[:, 0, ring] == 0).all()
    assert (kernel[:16, 0, ~ring] != 0).any()
    assert net.matrices["1_7_5"].grad is not None
    assert net.matrices["1_5_3"].grad is None
    assert all(parameter.grad is None for parameter in last.parameters())


def test_its_gradients_are_those_of_the_extracted_network() -> None:
    net = elastic(TWO_STAGES).train()
    spec = ArchSpec.parse(str(TWO_STAGES).replace("m24", "m12").replace("m16", "m10"))
    network = net.extract(spec).module.train()
    net.select(spec)
    for module in (net, network):
        functional.cross_entropy(module(images(spec, 8)), torch.arange(8) % 3).backward()
    ours = dict(net.net.named_parameters())
    for name, theirs in network.named_parameters():
        part = ours[name].grad[tuple(slice(length) for length in theirs.shape)]
        assert torch.allclose(part, theirs.grad, atol=1e-5), name


def test_sorting_leaves_the_full_network_and_puts_large_channels_first() -> None:
    net = elastic(SPACE.full)
    before = net(images(SPACE.full))
    net.sort_channels()
    assert (net(images(SPACE.full)) - before).abs().max() <= 1e-5
    for module, block in zip(net.net.blocks, SPACE.full.blocks, strict=True):
        if block.mid:
            importance = module.project.conv.weight.detach().abs().sum((0, 2, 3))
            assert (importance.diff() <= 0).all()
            if block.se is not None:
                hidden = module.se.expand.weight.detach().abs().sum((0, 2, 3))
                assert (hidden.diff() <= 0).all()


def test_sorting_leaves_the_widths_that_are_trained_already() -> None:
    net = elastic(SPACE.full)
    trained = replace(SPACE, expansions=(4,)).full
    untrained = replace(SPACE, expansions=(3,)).full

    def outputs(spec: ArchSpec) -> torch.Tensor:
        net.select(spec)
        with torch.inference_mode():
            return net(images(spec))

    full, four, three = (outputs(spec) for spec in (SPACE.full, trained, untrained))
    net.sort_channels([trained])
    assert (outputs(SPACE.full) - full).abs().max() <= 1e-5
    assert (outputs(trained) - four).abs().max() <= 1e-5
    assert (outputs(untrained) - three).abs().max() > 1e-4
    block = next(b for b, spec in zip(net.net.blocks, SPACE.full.blocks, strict=True) if spec.mid)
    importance = block.project.conv.weight.detach().abs().sum((0, 2, 3))
    bound = next(spec.mid for spec in trained.blocks if spec.mid)
    assert (importance[:bound].diff() <= 0).all()
    assert (importance[bound:].diff() <= 0).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("8x8x2", "8x8x3"), "input channels 3"),
        (("same", "symmetric"), "padding symmetric"),
        (("fc3", "fc4"), r"dense layers fc6_relu:fc4"),
        (
            (":mb_k5_s1_m16_o8_skip", ":mb_k5_s1_m16_o8"),
            "4 stages does not fit in a supernet of 3",
        ),
        (("k5", "k7"), "block 2 .*kernel is 7, it must be 3 to 5"),
        (("k7", "k1"), "block 1 .*kernel is 1, it must be 3 to 7"),
        (("conv_k3", "conv_k1"), "block 0 .*kernel is 1, it must be 3 to 3"),
        (("m24", "m25"), "block 1 .*middle width is 25, it must be 1 to 24"),
        (("k5_s1_m16", "k5_s1"), "block 2 .*middle width is 0, it must be 1 to 16"),
        (("_s2_", "_s1_"), "block 1 .*stride is 1, it must be 2"),
        (("hardswish", "relu"), "block 1 .*act is relu, it must be hardswish"),
        (("se6", "se7"), "block 1 .*7 channels, it must have 1 to 6"),
        (("hardsigmoid", "sigmoid"), "block 1 .*other activations"),
        (("_se6-relu-hardsigmoid", ""), "block 1 .*squeeze-and-excite or neither"),
        ((":conv_k1", ":mb_k3_s1_m16_o8_skip:conv_k1"), "stage 1 .* has 4 blocks, .* at most 3"),
    ],
)
def test_what_does_not_fit_is_named(change: tuple[str, str], sentence: str) -> None:
    line = str(TWO_STAGES)
    assert change[0] in line
    net = ElasticNet(TWO_STAGES)
    with pytest.raises(SpecError, match=sentence):
        net.select(ArchSpec.parse(line.replace(*change)))
    with pytest.raises(SpecError, match=sentence):
        net.extract(ArchSpec.parse(line.replace(*change)))


def test_a_plain_convolution_stays_as_it_is() -> None:
    full = ArchSpec.parse("8x8x1:same:conv_k3_s1_o8_se4-relu-sigmoid:mb_k3_s1_m8_o8:fc3")
    with pytest.raises(SpecError, match=r"block 0 .*has 2 channels, it must have 4 to 4"):
        ElasticNet(full).select(ArchSpec.parse(str(full).replace("se4", "se2")))


def test_a_file_gives_back_the_same_supernet(tmp_path: Path) -> None:
    net = elastic(TWO_STAGES)
    path = tmp_path / "supernet.npz"
    net.save(path)
    again = ElasticNet.load(path)
    assert again.full == net.full
    assert again.digest() == net.digest()
    with torch.inference_mode():
        assert torch.equal(again(images(TWO_STAGES)), net(images(TWO_STAGES)))
    with pytest.raises(ConfigError, match="no supernet file"):
        ElasticNet.load(tmp_path / "none.npz")
    network = net.extract(TWO_STAGES)
    network.save(tmp_path / "network.npz")
    with pytest.raises(ConfigError, match="not a supernet file"):
        ElasticNet.load(tmp_path / "network.npz")
    with pytest.raises(SpecError, match="images of 2 channels, the data set has 1"):
        again.check_data(1, 3)
    again.check_data(2, 3)
