"""Who reads a tensor of a TFLite file as it was made, and who reads what its codes mean."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models.codes import QParams
from pipeline.formats.tflite.file import parse
from pipeline.formats.tflite.write import write_tflite
from scripts.tflite_maker import TFLiteFile
from tests.tflite_reading import model_of, real_outputs, run

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]

SHAPE = (1, 5, 7)
FINE, COARSE = (0.02, 5), (0.083, -10)
"""Scales and zero points: what is fed saturates in the first."""


class Mixed(TFLiteFile):
    """A file of real numbers and codes, of which every tensor has one shape."""

    def real(self, kind: str, x: int) -> int:
        """Add an op of real numbers, or DEQUANTIZE."""
        y = self.tensor(f"{kind}.{len(self.graph.tensors)}", SHAPE)
        self.op(kind, [x], [y], version=2 if kind == "DEQUANTIZE" else 1)
        return y

    def coded(self, x: int, scale: float, zero_point: int, kind: str = "QUANTIZE") -> int:
        """Add an op that gives codes."""
        name = f"{kind}.{len(self.graph.tensors)}"
        y = self.tensor(name, SHAPE, "int8", scale=scale, zero_point=zero_point)
        self.op(kind, [x], [y], version=2 if kind == "LOGISTIC" else 1)
        return y

    def gate(self, codes: int) -> int:
        """Add an op that computes with codes, and turn back what it gives."""
        return self.real("DEQUANTIZE", self.coded(codes, 1 / 256, -128, "LOGISTIC"))


def as_made_and_its_codes(file: Mixed, x: int) -> list[int]:
    return [file.gate(file.coded(x, *FINE)), file.real("TANH", x)]


def two_scales(file: Mixed, x: int) -> list[int]:
    return [file.gate(file.coded(x, *FINE)), file.gate(file.coded(x, *COARSE))]


def all_at_once(file: Mixed, x: int) -> list[int]:
    codes = file.coded(x, *FINE)
    real = [file.real("TANH", x), file.real("TANH", file.real("DEQUANTIZE", codes))]
    return [*real, file.gate(codes), file.gate(file.coded(x, *COARSE))]


def what_codes_mean(file: Mixed, x: int) -> list[int]:
    codes = file.coded(x, *FINE)
    return [file.gate(codes), file.real("EXP", file.real("DEQUANTIZE", codes))]


def the_meaning_alone(file: Mixed, x: int) -> list[int]:
    return [file.real("DEQUANTIZE", file.coded(x, *FINE))]


def the_same_twice(file: Mixed, x: int) -> list[int]:
    return [file.real("DEQUANTIZE", file.coded(x, *FINE)), file.gate(file.coded(x, *FINE))]


def codes_of_codes(file: Mixed, x: int) -> list[int]:
    back = file.real("DEQUANTIZE", file.coded(x, *FINE))
    return [file.gate(file.coded(back, *COARSE)), file.gate(file.coded(back, *FINE)), back]


def in_another_shape(file: Mixed, x: int) -> list[int]:
    moved = file.tensor("moved", SHAPE)
    file.op("RESHAPE", [x, file.constant("shape", np.int32(SHAPE))], [moved])
    return [file.gate(file.coded(moved, *FINE)), file.gate(file.coded(x, *COARSE)), moved]


def made(case: Callable[[Mixed, int], list[int]], *, inner: bool) -> bytes:
    """Build a file in which a case reads the input, or what an op of real numbers makes of it."""
    file = Mixed()
    x = file.tensor("x", SHAPE)
    return file.content([x], case(file, file.real("NEG", x) if inner else x))


def again(content: bytes) -> bytes:
    """Read a file and write it."""
    return write_tflite(model_of(content))


CASES = (
    *(as_made_and_its_codes, two_scales, all_at_once, what_codes_mean, the_meaning_alone),
    *(the_same_twice, codes_of_codes, in_another_shape),
)


@pytest.mark.parametrize("inner", [False, True], ids=["input", "inner"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_each_reads_what_it_reads_in_the_file(case: Any, *, inner: bool) -> None:
    content = made(case, inner=inner)
    fed = [np.random.default_rng(3).normal(0, 3, SHAPE).astype(np.float32)]
    assert fed[0].max() > 3 > 122 * FINE[0]
    ours, wanted = real_outputs(model_of(content), fed), run(content, fed, reference=True)
    written = run(again(content), fed, reference=True)
    for right, found, found_again in zip(wanted, ours, written, strict=True):
        # A kernel of codes may give the next one, of 1/256.
        assert np.abs(found - right).max() <= 1.001 / 256
        # One that rescales codes rounds twice, and a sigmoid has slopes of up to 1/4.
        assert np.abs(found_again - right).max() <= 1.001 / 256 + COARSE[0] / 4


def test_a_tensor_of_which_only_codes_are_read_has_no_copy() -> None:
    file = Mixed()
    x = file.tensor("x", SHAPE)
    real = file.real("NEG", x)
    content = file.content([x], [file.gate(file.coded(real, *FINE)) for _ in range(2)])
    model = model_of(content)
    assert [op.kind for op in model.graph.ops] == ["unary", "act", "act"]
    assert model.quantization is not None
    assert model.quantization.tensors[model.graph.ops[0].name] == QParams(*FINE)
    assert not model.quantization.is_integer(model.graph.ops[0])


@pytest.mark.parametrize("inner", [False, True], ids=["input", "inner"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_it_is_written_again_with_no_more_ops(case: Any, *, inner: bool) -> None:
    content = made(case, inner=inner)
    before, after = (
        Counter(op.kind for op in parse(each).ops) for each in (content, again(content))
    )
    assert not after - before
