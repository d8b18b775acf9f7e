"""What of a TFLite file is refused, and with which words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import (
    BlockwiseQuantizationT,
    Padding,
    QuantizationDetails,
    SubGraphT,
)

from device_agents.errors import ConfigError
from pipeline.formats.api import UnknownOp, Unsupported
from pipeline.formats.tflite.read import read_tflite
from scripts.tflite_maker import TFLiteFile
from tests.tflite_cases import negated

if TYPE_CHECKING:
    from pathlib import Path


def unknown(content: bytes) -> Unsupported:
    found = read_tflite(content)
    assert isinstance(found, Unsupported)
    assert "\n" not in found.sentence
    return found


def test_every_op_that_is_not_known_is_named_with_its_place() -> None:
    file = TFLiteFile()
    x, state = file.tensor("x", (1, 5)), file.tensor("state", (), "resource")
    held, found, y, z = (file.tensor(n, (1, 5)) for n in ("held", "found", "y", "z"))
    file.op("VAR_HANDLE", [], [state], ("VarHandleOptions", {}))
    file.op("READ_VARIABLE", [state], [held], ("ReadVariableOptions", {}))
    file.op("ADD", [x, held], [y], ("AddOptions", {}))
    file.op("CUSTOM Mine", [y], [found])
    file.op("LOCAL_RESPONSE_NORMALIZATION", [found], [z])
    refused = unknown(file.content([x], [z]))
    assert refused.ops == (
        UnknownOp("VAR_HANDLE", "state (op 0)"),
        UnknownOp("READ_VARIABLE", "held (op 1)"),
        UnknownOp("CUSTOM Mine", "found (op 3)"),
        UnknownOp("LOCAL_RESPONSE_NORMALIZATION", "z (op 4)"),
    )
    assert refused.sentence.startswith("the file has ops that are not known here: VAR_HANDLE at")


def test_a_known_kind_that_cannot_be_said_says_why() -> None:
    file = TFLiteFile()
    x, order, y = (
        file.tensor("x", (1, 5)),
        file.tensor("order", (2,), "int32"),
        file.tensor("y", (5, 1)),
    )
    file.op("TRANSPOSE", [x, order], [y], ("TransposeOptions", {}))
    (op,) = unknown(file.content([x, order], [y])).ops
    assert op.kind == "TRANSPOSE"
    assert op.why == "has no constant order of axes, which is computed while the file runs"


def test_a_second_network_in_the_file_is_refused() -> None:
    file = TFLiteFile()
    x, y = file.tensor("x", (1, 5)), file.tensor("y", (1, 5))
    file.op("NEG", [x], [y])
    other = SubGraphT()
    other.name, other.tensors, other.operators = "decode", [], []
    file.model.subgraphs = [file.graph, other]
    (op,) = unknown(file.content([x], [y])).ops
    assert (op.kind, op.place) == ("SUBGRAPH", "decode")


def hostile() -> dict[str, bytes]:
    """Files of a few hundred bytes that mean gigabytes, or nothing."""
    files = {}
    sizes = {"fill": (1 << 15, 1 << 15), "fill past all": (1 << 30, 1 << 30)}
    for name, size in sizes.items():
        file = TFLiteFile()
        x, y, filled = file.tensor("x", (1, 5)), file.tensor("y", ()), file.tensor("filled", ())
        value = file.constant("value", np.float32(1))
        file.op("FILL", [file.constant("size", np.int32(size)), value], [filled])
        file.op("ADD", [x, filled], [y], ("AddOptions", {}))
        files[name] = file.content([x], [y])
    file = TFLiteFile()
    x, y, tiled = file.tensor("x", (1, 5)), file.tensor("y", ()), file.tensor("tiled", ())
    repeats = file.constant("repeats", np.int32([1 << 20, 1 << 20]))
    file.op("TILE", [file.constant("one", np.float32([[1.0]])), repeats], [tiled])
    file.op("ADD", [x, tiled], [y], ("AddOptions", {}))
    files["tile"] = file.content([x], [y])
    file = TFLiteFile()
    x, y = file.tensor("x", (1, 5)), file.tensor("y", ())
    short = file.tensor("short", (1 << 20, 5), data=np.zeros(3, np.float32))
    file.op("ADD", [x, short], [y], ("AddOptions", {}))
    files["short constant"] = file.content([x], [y])
    # A thousand tensors of one megabyte of codes.
    file = TFLiteFile()
    x, y = file.tensor("x", (1, 5)), file.tensor("y", ())
    shared = file.tensor("c", (1, 1 << 20), "int8", data=np.ones(1 << 20, np.int8), scale=0.1)
    copies = []
    for number in range(1000):
        copies.append(file.tensor(f"c{number}", (1, 1 << 20), "int8", scale=0.1))
        file.graph.tensors[-1].buffer = file.graph.tensors[shared].buffer
    file.op("CONCATENATION", [x, *copies], [y], ("ConcatenationOptions", {"axis": 1}))
    files["one buffer a thousand times"] = file.content([x], [y])
    return files


@pytest.mark.parametrize("content", hostile().values(), ids=hostile().keys())
def test_a_small_file_that_means_gigabytes_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigError, match="a TFLite model that is damaged: tensor") as refused:
        read_tflite(content)
    assert "\n" not in str(refused.value)


def test_what_is_no_tflite_file_is_called_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    for content, words in (
        (b"", "empty"),
        (b"<html>", "web page"),
        (negated(1, 5)[:-40], "cut short or damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=words) as refused:
            read_tflite(path)
        assert str(path) in str(refused.value)
    with pytest.raises(ConfigError, match="no such file"):
        read_tflite(tmp_path / "none.tflite")


def test_what_only_follows_from_an_unknown_op_is_not_held_against_the_file() -> None:
    file = TFLiteFile()
    # What comes out of the custom op is open, and the file holds ones for it.
    x, found = file.tensor("x", (1, 6, 9, 2)), file.tensor("found", (1, 1, 1, 2))
    pooled, state = file.tensor("pooled", (1, 3, 4, 2)), file.tensor("state", (), "resource")
    y = file.tensor("y", ())
    file.op("CUSTOM Spectrum", [x], [found])
    fields = {
        "filterHeight": 2,
        "filterWidth": 2,
        "strideH": 2,
        "strideW": 2,
        "padding": Padding.VALID,
    }
    file.op("MAX_POOL_2D", [found], [pooled], ("Pool2DOptions", fields))
    file.op("CUSTOM Peaks", [pooled], [y])
    file.op("VAR_HANDLE", [], [state], ("VarHandleOptions", {}))
    kinds = [op.kind for op in unknown(file.content([x], [y])).ops]
    assert kinds == ["CUSTOM Spectrum", "CUSTOM Peaks", "VAR_HANDLE"]


def refused(content: bytes) -> str:
    (op,) = unknown(content).ops
    return op.why


def test_codes_whose_meaning_is_not_known_are_not_taken_for_numbers() -> None:
    file = TFLiteFile()
    x, y = file.tensor("x", (1, 32)), file.tensor("y", (1, 3))
    weight = file.tensor("w", (3, 32), "int4", data=bytes(48), scale=0.1)
    file.graph.tensors[weight].quantization.detailsType = QuantizationDetails.BlockwiseQuantization
    file.graph.tensors[weight].quantization.details = BlockwiseQuantizationT()
    file.op("FULLY_CONNECTED", [x, weight], [y], ("FullyConnectedOptions", {}))
    assert refused(file.content([x], [y])) == "reads a constant of type block-wise int4"
    file = TFLiteFile()
    x, y = file.tensor("x", (1, 4)), file.tensor("y", (1, 3))
    weight = file.tensor("w", (3, 4), "int8", data=np.ones((3, 4), np.int8))
    file.op("FULLY_CONNECTED", [x, weight], [y], ("FullyConnectedOptions", {}))
    assert refused(file.content([x], [y])) == "has a weight of int8 without a scale"
    file = TFLiteFile()
    x = file.tensor("x", (1, 6), "int8", scale=0.1)
    y = file.tensor("y", (3, 2), "int8", scale=0.2)
    wanted = file.constant("shape", np.int32([3, 2]))
    file.op("RESHAPE", [x, wanted], [y])
    assert "another scale than those it moves" in refused(file.content([x], [y]))
    file = TFLiteFile()
    x, y = file.tensor("x", (1, 6), "int8", scale=0.1), file.tensor("y", (1, 6))
    file.op("CAST", [x], [y], ("CastOptions", {}))
    assert refused(file.content([x], [y])) == "makes float32 of int8 codes"
