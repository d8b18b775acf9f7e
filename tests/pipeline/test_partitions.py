"""The predicted partitions of XNNPACK's delegate against those that LiteRT makes."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models import zoo
from models.lower import lower
from models.model import random_model
from models.number_format import FLOAT32, STATIC8, NumberFormat
from pipeline.formats.tflite.contents import read_contents
from pipeline.formats.tflite.partitions import predict
from pipeline.formats.tflite.quiet import without_noise
from pipeline.formats.tflite.write import write_tflite
from scripts.tflite_maker import TFLiteFile
from tests import litert_partitions
from tests.one_op_files import KINDS, Draw
from tests.other_models import NAMES, need

if TYPE_CHECKING:
    from pathlib import Path

DRAWS = 40


def check(content: bytes) -> int:
    with without_noise():
        found = litert_partitions.count(content)
    expected = predict(read_contents(content))
    assert expected.count == found, expected
    assert found is not None
    return found


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".tflite")])
def test_files_of_other_people_are_parted_as_predicted(name: str) -> None:
    check(need(name).read_bytes())


@pytest.mark.parametrize("number_format", [FLOAT32, STATIC8], ids=str)
@pytest.mark.parametrize("net", ["mobilenet-v2", "mobilenet-v3-large", "mnasnet-a1"])
def test_files_of_our_writer_are_parted_as_predicted(net: str, number_format: NumberFormat) -> None:
    graph = lower(zoo.get(net).with_input(64, 64, 3))
    model = random_model(graph, np.random.default_rng(0), number_format)
    count = check(write_tflite(model))
    assert (count > 1) == (net == "mobilenet-v3-large" and number_format == STATIC8)


@pytest.mark.parametrize("kind", KINDS)
def test_an_op_is_taken_or_left_as_predicted(kind: str, tmp_path: Path) -> None:
    for seed in range(DRAWS):
        content = KINDS[kind](Draw(random.Random(f"{kind} {seed}")))
        (tmp_path / f"{seed:03}").write_bytes(content)
    found = litert_partitions.count_apart(tmp_path)
    assert len(found) > DRAWS // 5
    for name, count in found.items():
        expected = predict(read_contents((tmp_path / name).read_bytes()))
        assert expected.count == count, (name, expected)
        assert all(op.why for op in expected.left)


def drawn_graph(seed: int) -> bytes:
    """Return a network of ops that are taken and ops that are left, any reading any before it."""
    rng, file = random.Random(seed), TFLiteFile()
    shape = (1, 4)
    tensors = [file.tensor(name, shape) for name in ("x", "y")]
    inputs = list(tensors)
    for _ in range(rng.randint(3, 40)):
        if rng.random() < 0.2:  # weights as float16 files have them
            half = file.constant("half", np.ones(shape, np.float16))
            tensors.append(file.tensor("whole", shape))
            file.op("DEQUANTIZE", [half], [tensors[-1]])
            continue
        sources = [rng.choice(tensors[-4:]), rng.choice(tensors)]
        output = file.tensor("made", shape)
        kind = rng.choice(("ADD", "RELU", "MUL", "FLOOR_DIV", "SIGN", "POW"))
        count = 1 if kind in ("RELU", "SIGN") else 2
        table = {"ADD": "AddOptions", "MUL": "MulOptions"}.get(kind)
        file.op(kind, sources[:count], [output], (table, {}) if table else None)
        tensors.append(output)
    return file.content(inputs, tensors[-3:])


def test_networks_of_taken_and_left_ops_are_parted_as_predicted() -> None:
    found = Counter(check(drawn_graph(seed)) for seed in range(150))
    assert len(found) > 5, found
    assert max(found) > 4


def test_ops_between_two_partitions_are_what_breaks() -> None:
    file = TFLiteFile()
    source, first, second, third, last = (file.tensor(f"t{n}", (1, 4)) for n in range(5))
    file.op("SIGN", [source], [first])
    file.op("RELU", [first], [second])
    file.op("SIGN", [second], [third])
    file.op("RELU", [third], [last])
    expected = predict(read_contents(file.content([source], [last])))
    assert (expected.count, expected.ops, expected.taken) == (2, 4, 2)
    assert [(op.place, op.kind, op.output, op.breaks) for op in expected.left] == [
        (0, "SIGN", "t1", False),
        (2, "SIGN", "t3", True),
    ]
    assert {op.why for op in expected.left} == {"XNNPACK has no such op"}


def test_an_op_whose_rule_is_not_known_leaves_the_count_unknown() -> None:
    file = TFLiteFile()
    source, output = file.tensor("x", (1, 4)), file.tensor("y", (1, 4))
    file.op("CUSTOM MaxUnpooling2D", [source], [output])
    expected = predict(read_contents(file.content([source], [output])))
    assert expected.count is None
    assert expected.unknown == "op 0 is MaxUnpooling2D, a custom op of MediaPipe"
