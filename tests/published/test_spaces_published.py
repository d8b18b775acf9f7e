"""The spaces against the networks, tables and counts that their papers' authors released."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import zoo
from models.cost import cost
from models.spec import ArchSpec, Block, Dense, SqueezeExcite
from pipeline.search.space.ofa_mobilenet_v3 import OfaMobileNetV3Space
from pipeline.search.space.ofa_proxyless import OfaProxylessSpace
from pipeline.search.space.proxyless import ZERO, Op, ProxylessSpace
from pipeline.search.space.stages import Stage

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SIZE, CLASSES = (224, 224, 3), 1000
PROXYLESS = ProxylessSpace(input=SIZE, classes=CLASSES)
STRIDES = (2, 2, 2, 1, 2, 1)


def reference(name: str) -> Any:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is not there: it holds the published figures")
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else list(csv.DictReader(text.splitlines()))


@pytest.mark.parametrize(
    "name", ["proxyless-mobile", "proxyless-cpu", "proxyless-gpu", "proxyless-mobile-14"]
)
def test_released_proxyless_networks_are_in_the_space_of_their_widths(name: str) -> None:
    nets = {net["name"]: net for net in reference("proxyless_nets.json")}
    net = nets[name.replace("-", "_")]
    first, *cells = net["blocks"]
    # The released widths leave the grid of the super-net (stage 1 has 32 filters, not 24), and
    # a Zero has no width of its own: each stage's is that of its first cell.
    starts = (0, 4, 8, 12, 16, 20)
    stages = tuple(
        Stage(stride, cells[at]["o"], 4 if at < 20 else 1)
        for stride, at in zip(STRIDES, starts, strict=True)
    )
    space = replace(
        PROXYLESS, stages=stages, stem=(3, 2, net["first"]), first=first["o"], head=net["last"],
        padding="symmetric",
    )  # fmt: skip
    ops = [Op(cell["k"], cell["e"]) if cell else ZERO for cell in cells]
    pairs = zip(space.all_decisions, ops, strict=True)
    spec = space.decode(tuple(decision.options.index(op) for decision, op in pairs))
    assert spec == zoo.get(name)
    assert spec in space
    assert (cost(spec).params, cost(spec).macs) == (net["params"], net["macs"])


class PixelTable:
    """The released table of a Pixel 1, read for our networks; no key is made up."""

    def __init__(self) -> None:
        self.rows = {
            (row["type"], row["input"], row["output"], *(row[k] for k in ("expand", "kernel"))):
            float(row["mean_ms"])
            for row in reference("proxyless_lut_pixel1.csv")
        }  # fmt: skip

    def latency_ms(self, spec: ArchSpec) -> float:
        total, size = 0.0, spec.input[0]
        last = len(spec.blocks) - 1
        for index, (channels, block) in enumerate(spec.chain()):
            after = -(-size // block.stride)
            shapes = (f"{size}x{size}x{channels}", f"{after}x{after}x{block.out}")
            if block.op == "mb":
                expansion = (block.mid or channels) // channels
                key = ("expanded_conv", *shapes, str(expansion), str(block.kernel))
            else:
                key = ("Conv_1" if index == last else "Conv", *shapes, "", "")
            total, size = total + self.rows[key], after
        pooled = f"{size}x{size}x{spec.blocks[-1].out}"
        return total + self.rows["Logits", pooled, str(spec.classes), "", ""]


@pytest.mark.parametrize(
    ("op", "published_ms"),
    [
        (Op(3, 3), 76.0481), (Op(5, 3), 87.7203), (Op(7, 3), 103.6661),
        (Op(3, 6), 136.4662), (Op(5, 6), 158.9527), (Op(7, 6), 191.0298),
    ],
)  # fmt: skip
def test_networks_of_one_op_have_the_table_s_latency(op: Op, published_ms: float) -> None:
    spec = PROXYLESS.decode((PROXYLESS.ops.index(op),) * 21)
    assert PixelTable().latency_ms(spec) == pytest.approx(published_ms, abs=5e-5)


def test_fastest_slowest_and_mean_of_the_space_are_the_table_s() -> None:
    table = PixelTable()
    zeros = [d.options.index(ZERO) if ZERO in d.options else 0 for d in PROXYLESS.all_decisions]
    fastest_ms = table.latency_ms(PROXYLESS.decode(tuple(zeros)))
    assert fastest_ms == pytest.approx(29.6088, abs=5e-5)
    # From the fastest network, change one cell at a time: latency adds up over cells, and uniform
    # probabilities give the mean of each cell.
    above_ms = []
    for at, count in enumerate(PROXYLESS.cardinalities):
        made = (PROXYLESS.decode((*zeros[:at], c, *zeros[at + 1 :])) for c in range(count))
        above_ms.append([table.latency_ms(spec) - fastest_ms for spec in made])
    assert min(min(cell) for cell in above_ms) >= -1e-9
    assert fastest_ms + sum(map(max, above_ms)) == pytest.approx(191.0298, abs=5e-5)
    mean_ms = fastest_ms + sum(float(np.mean(cell)) for cell in above_ms)
    assert mean_ms == pytest.approx(113.9881, abs=5e-5)


def _specialised(net: dict[str, Any]) -> ArchSpec:
    """Write a network of the list as it stands there; what it leaves out is nas.md's skeleton."""
    mobilenet, stem = net["net"] == "MobileNetV3", net["first"]
    outer = "hardswish" if mobilenet else "relu6"
    blocks = [Block("conv", 3, 2, stem, act=outer)]
    for row in net["blocks"]:
        mid = row["mid"] or 0
        squeeze = SqueezeExcite(zoo.make_divisible(mid // 4), gate="hardsigmoid")
        act = row["act"].replace("h_swish", "hardswish")
        skip = "identity" if row["skip"] else "none"
        squeezed = squeeze if row["se"] else None
        blocks.append(Block("mb", row["k"], row["s"], row["o"], mid, act, squeezed, skip))
    head, mix = {16: (960, 1280), 24: (1152, 1536), 40: (1664, 0)}[stem]
    blocks.append(Block("conv", 1, 1, head, act=outer))
    dense = (Dense(mix, outer), Dense(CLASSES)) if mix else (Dense(CLASSES),)
    return ArchSpec((net["res"], net["res"], 3), tuple(blocks), dense, "symmetric")


def test_all_50_specialised_once_for_all_networks_are_in_their_space() -> None:
    nets = reference("ofa_specialized.json")
    assert len(nets) == 50
    spaces = {
        16: OfaMobileNetV3Space(input=SIZE, classes=CLASSES, padding="symmetric"),
        24: OfaMobileNetV3Space(input=SIZE, classes=CLASSES, padding="symmetric", width=1.2),
        40: OfaProxylessSpace(input=SIZE, classes=CLASSES, padding="symmetric", width=1.3),
    }
    for net in nets:
        spec = _specialised(net)
        space = replace(spaces[net["first"]], resolutions=(net["res"],))
        assert space.decode(space.choices(spec)) == spec, net["name"]
        counted = cost(spec)
        assert counted.macs + counted.se_macs == net["macs"], net["name"]
        # Our dense layers have a bias, the published feature mix has none.
        bias = sum(layer.units for layer in spec.dense[:-1])
        assert counted.params - bias == net["params"], net["name"]


@pytest.mark.parametrize(
    ("name", "macs_m"),
    [("flops-389M_top1-79.1", 389.5), ("flops-482M_top1-79.6", 482.4), ("flops-595M", 595.2)],
)
def test_macs_of_the_networks_named_after_them(name: str, macs_m: float) -> None:
    (net,) = [net for net in reference("ofa_specialized.json") if net["name"].startswith(name)]
    space = OfaMobileNetV3Space(
        input=SIZE, classes=CLASSES, padding="symmetric", width=1.2, resolutions=(net["res"],)
    )
    counted = cost(space.decode(space.choices(_specialised(net))))
    assert round((counted.macs + counted.se_macs) / 1e6, 1) == macs_m


def test_features_are_the_input_of_the_released_accuracy_predictor() -> None:
    path = DATA / "ofa_acc_predictor.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there: it holds the released predictor")
    weights = np.load(path)
    resolutions = tuple(range(112, 225, 16))
    space = OfaMobileNetV3Space(
        input=SIZE, classes=CLASSES, width=1.2, resolutions=resolutions, padding="symmetric"
    )

    def predicted(spec: ArchSpec) -> float:
        x = space.features(spec)
        for layer in (0, 2, 4):
            x = np.maximum(weights[f"{layer}.weight"] @ x + weights[f"{layer}.bias"], 0)
        return 100 * (weights["6.weight"] @ x + weights["6.bias"]).item()

    # The four published networks that its encoding can say (it reads 3.5 points high).
    expected = {
        "flops-389M_top1-79.1_finetune-75": 82.56,
        "flops-482M_top1-79.6_finetune-75": 83.24,
        "note10_lat-30ms_top1-78.4_finetune-75": 81.97,
        "pixel1_lat-79ms_top1-78.7_finetune-75": 82.18,
    }
    nets = {net["name"]: net for net in reference("ofa_specialized.json")}
    for name, top1 in expected.items():
        assert round(predicted(_specialised(nets[name])), 2) == top1
    smallest = space.decode((*(0,) * 45, resolutions.index(160)))
    assert round(predicted(smallest), 2) == 75.31
    assert round(predicted(space.full), 2) == 83.59
