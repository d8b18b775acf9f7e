from __future__ import annotations

import io
import os
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional

from device_agents.errors import ConfigError
from models.blocks import BN_EPSILON, ConvBN
from models.build import build
from models.cost import cost
from models.lower import lower
from models.network import Network
from models.spec import ArchSpec
from models.zoo import get, zoo
from tests.spec_strategies import REPLAY, specs

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ArchSpec.parse(
    "12x12x3:same:conv_k3_s2_o8:mb_k5_s1_m16_o8_hardswish_se4-relu-hardsigmoid_skip:fc6_relu:fc5"
)


def module_macs(module: nn.Module, image: torch.Tensor) -> int:
    """Multiply-accumulates by layer type, seen by hooks."""
    total = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        positions = output.numel() // weight.shape[0]
        total += weight.numel() * positions

    kinds = nn.Conv2d | nn.Linear
    handles = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        module.eval()(image)
    for handle in handles:
        handle.remove()
    return total


@pytest.mark.parametrize("name", zoo())
def test_module_has_the_counted_parameters_and_macs(name: str) -> None:
    spec = get(name).with_input(64, 64, 3)
    module, counted = build(spec), cost(spec)
    assert sum(p.numel() for p in module.parameters()) == counted.params
    assert module_macs(module, torch.zeros(1, 3, 64, 64)) == counted.macs + counted.se_macs


@settings(REPLAY, max_examples=30)
@given(specs())
def test_any_spec_builds_with_the_counted_cost(spec: ArchSpec) -> None:
    module, counted = build(spec), cost(spec)
    height, width, channels = spec.input
    assert sum(p.numel() for p in module.parameters()) == counted.params
    macs = module_macs(module, torch.zeros(1, channels, height, width))
    assert macs == counted.macs + counted.se_macs


@settings(REPLAY, max_examples=30)
@given(specs())
def test_module_paths_are_op_names(spec: ArchSpec) -> None:
    module = build(spec)
    weighted = {op.name for op in lower(spec).ops if op.has_weights}
    paths = set()
    for name, layer in module.named_modules():
        inner = isinstance(module.get_submodule(name.rpartition(".")[0]), ConvBN)
        if isinstance(layer, ConvBN) or (isinstance(layer, nn.Conv2d | nn.Linear) and not inner):
            paths.add(name)
    assert paths == weighted


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size", [(1, 2), (7, 8), (9, 16)])
def test_same_padding_is_that_of_tensorflow(kernel: int, size: tuple[int, int]) -> None:
    layer = ConvBN(2, 3, kernel, 2).eval()
    image = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(0))
    # TensorFlow's rule from its definition: all zeros first, then windows from the top left.
    rows, cols = (-(-s // 2) for s in size)
    down, right = ((out - 1) * 2 + kernel - s for out, s in zip((rows, cols), size, strict=True))
    padded = functional.pad(image, (right // 2, -(-right // 2), down // 2, -(-down // 2)))
    expected = functional.conv2d(padded, layer.conv.weight, stride=2) / (1 + BN_EPSILON) ** 0.5
    with torch.no_grad():
        found = layer(image)
    assert found.shape == (2, 3, rows, cols)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_pads_by_copy_only_where_margins_differ(
    padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ArchSpec.parse(f"16x16x3:{padding}:conv_k3_s2_o8:mb_k5_s1_m8_o8:mb_k3_s2_m8_o8:fc5")
    calls: list[tuple[int, ...]] = []
    pad = functional.pad

    def record(x: torch.Tensor, margins: tuple[int, ...]) -> torch.Tensor:
        calls.append(margins)
        return pad(x, margins)

    monkeypatch.setattr(functional, "pad", record)
    build(spec)(torch.zeros(2, 3, 16, 16))
    assert calls == ([(0, 1, 0, 1)] * 2 if padding == "same" else [])


def test_stays_channels_last() -> None:
    module = build(SPEC)
    seen = []
    for layer in module.modules():
        if isinstance(layer, ConvBN):
            layer.register_forward_hook(lambda _m, _i, out: seen.append(out))
    images = torch.randn(2, 3, 12, 12).contiguous(memory_format=torch.channels_last)
    module(images)
    assert len(seen) == 4
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)


def test_initial_weights_come_from_the_generator() -> None:
    first, again, other = (
        build(SPEC, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    digests = [Network(SPEC, module).digest() for module in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]


def test_global_randomness_is_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    Network(SPEC, build(SPEC, generator=torch.Generator())).save(tmp_path / "net.npz")
    Network.load(tmp_path / "net.npz")
    assert torch.equal(torch.get_rng_state(), before)
    build(SPEC)
    assert not torch.equal(torch.get_rng_state(), before)


def test_a_small_net_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    module = build(SPEC, generator=generator)
    labels = torch.randint(5, (64,), generator=generator)
    stripes = functional.one_hot(labels, 12).float()[:, None, None]  # (64, 1, 1, 12)
    images = stripes + 0.3 * torch.randn(64, 3, 12, 12, generator=generator)
    optimiser = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = functional.cross_entropy(module(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(np.log(5), abs=0.3)
    assert losses[-1] < 0.3
    assert all(p.grad is not None for p in module.parameters())


@pytest.fixture
def network() -> Network:
    module = build(SPEC, generator=torch.Generator().manual_seed(3))
    module(torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(4)))
    return Network(SPEC, module.eval(), ("train: 3 epochs", "prune: 30 %"))


def test_network_survives_the_disk(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "new" / "net.npz"
    network.save(path)
    again = Network.load(path)
    assert (again.spec, again.history) == (network.spec, network.history)
    assert again.digest() == network.digest()
    assert not again.module.training
    images = torch.randn(2, 3, 12, 12)
    assert torch.equal(again.module(images), network.module(images))
    assert [entry.name for entry in path.parent.iterdir()] == ["net.npz"]
    first = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == first


def test_digest_sees_weights_and_not_history(network: Network) -> None:
    before = network.digest()
    assert Network(network.spec, network.module).digest() == before
    with torch.no_grad():
        network.module.get_submodule("dense.1").bias[0] += 1e-6  # type: ignore[index, operator]
    assert network.digest() != before


def test_no_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no network file .*none\.npz"):
        Network.load(tmp_path / "none.npz")
    with pytest.raises(ConfigError, match=r"cannot read the network"):
        Network.load(tmp_path)


def damaged(data: bytes) -> dict[str, bytes]:
    """Ways in which a file is not the one that was written."""
    array = io.BytesIO()
    np.savez(array, x=np.zeros(3))
    pickled = io.BytesIO()
    header: dict[str, Any] = {"edgewright.json": np.array([{}], object)}
    np.savez(pickled, allow_pickle=True, **header)
    plain = io.BytesIO()
    np.save(plain, np.zeros(3))
    return {
        "empty": b"",
        "text": b"not a network",
        "half": data[: len(data) // 2],
        "other arrays": array.getvalue(),
        "pickle": pickled.getvalue(),
        "npy": plain.getvalue(),
    }


@pytest.mark.parametrize(
    "how", ["empty", "text", "half", "other arrays", "pickle", "npy", "flipped bit", "lacks layer"]
)
def test_damage_is_one_sentence(network: Network, tmp_path: Path, how: str) -> None:
    path = tmp_path / "net.npz"
    network.save(path)
    if how == "flipped bit":
        # In the stored number itself, with the checksum of the archive made right again.
        rewrite(path, {"dense.1.bias.npy": lambda raw: raw[:-1] + bytes([raw[-1] ^ 64])})
    elif how == "lacks layer":
        rewrite(path, {"dense.1.bias.npy": lambda _: None})
    else:
        path.write_bytes(damaged(path.read_bytes())[how])
    with pytest.raises(ConfigError) as caught:
        Network.load(path)
    assert str(path) in str(caught.value)
    # What is no archive at all is called what it is.
    other = how in ("empty", "text", "npy")
    assert ("is not a network file of edgewright" if other else "damaged") in str(caught.value)
    assert "\n" not in str(caught.value)


def rewrite(path: Path, changes: dict[str, object]) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in entries.items():
            change = changes.get(name)
            content = change(raw) if callable(change) else raw
            if content is not None:
                archive.writestr(name, content)


def test_a_failed_write_keeps_the_old_file(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.npz"
    network.save(path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"cannot write the network .*: No space left"):
        network.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.npz"]
