"""Networks lower to the ops, and are written to the files, that edgewright 0.1.0 gave them.

Latency tables are kept by op keys and measurements by graph digests and file hashes, so a change
here makes both worthless: it needs another version of what it changes (tests/recorded/README.md).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from models.cost import cost
from models.lower import lower
from models.model import Model
from models.scales import random_quantization
from models.spec import ArchSpec
from pipeline.formats.onnx.write import write_onnx
from pipeline.formats.tflite.write import write_tflite
from pipeline.search.lut.ops import distinct_ops
from pipeline.search.lut.table import restore_space
from profiles.table import LatencyTable

if TYPE_CHECKING:
    from models.fold import Weights
    from models.graph import Graph

RECORDED = Path(__file__).parent.parent / "recorded"
GRAPHS: dict[str, dict[str, Any]] = json.loads((RECORDED / "graphs.json").read_text())
TABLE = RECORDED / "latency_table_1.json"


def plain_weights(graph: Graph) -> Weights:
    """Weights by integer arithmetic, so that no generator's stream matters."""
    weights = {}
    for op in graph.ops:
        if op.has_weights:
            shape, units = op.weight_shape, op.out_shape[-1]
            weight = ((np.arange(np.prod(shape)) * 7) % 17 - 8).astype(np.float32) / 16
            weights[op.name] = (weight.reshape(shape), np.arange(units).astype(np.float32) / 8)
    return weights


def onnx_digest(content: bytes) -> str:
    """Hash what an ONNX file says: its bytes may differ between versions of onnx."""
    graph = onnx.load_model_from_string(content).graph
    digest = hashlib.sha256()
    for node in graph.node:
        attributes = sorted((a.name, onnx.helper.get_attribute_value(a)) for a in node.attribute)
        said = (node.op_type, list(node.input), list(node.output), attributes)
        digest.update(repr(said).encode())
    for item in graph.initializer:
        array = onnx.numpy_helper.to_array(item)
        digest.update(repr((item.name, array.dtype.str, array.shape)).encode() + array.tobytes())
    for end in (*graph.input, *graph.output):
        dims = [dim.dim_value for dim in end.type.tensor_type.shape.dim]
        digest.update(repr((end.name, end.type.tensor_type.elem_type, dims)).encode())
    return digest.hexdigest()[:32]


@pytest.mark.parametrize("line", GRAPHS, ids=lambda line: line[:40])
def test_a_network_is_what_it_was(line: str) -> None:
    recorded, graph = GRAPHS[line], lower(ArchSpec.parse(line))
    assert list(dict.fromkeys(op.key for op in graph.ops)) == recorded["keys"]
    assert graph.digest() == recorded["digest"]
    counted = cost(graph)
    costs = [counted.macs, counted.se_macs, counted.params, counted.peak_activation_bytes]
    assert costs == recorded["cost"]
    weights, files = plain_weights(graph), {}
    for scheme, quantization in (("float32", None), ("static8", random_quantization(graph))):
        model = Model(graph, weights, quantization)
        files[f"tflite {scheme}"] = hashlib.sha256(write_tflite(model)).hexdigest()[:32]
        files[f"onnx {scheme}"] = onnx_digest(write_onnx(model))
    assert files == recorded["files"]


def test_a_table_of_before_prices_the_networks_of_its_space() -> None:
    table = LatencyTable.load(TABLE)
    assert table.entries.keys() == distinct_ops(restore_space(table)).keys()
    assert len(table.networks) > 1
    for line in table.networks:
        latency_ms, stderr_ms = table.latency_ms(op.key for op in lower(ArchSpec.parse(line)).ops)
        assert latency_ms > table.overhead.latency_ms
        assert stderr_ms > 0
