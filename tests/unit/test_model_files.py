"""What a file really is, what it holds, and which files belong to it: read without any runtime."""

from __future__ import annotations

import gzip
import tarfile
import tracemalloc
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_agents.errors import ConfigError
from device_agents.model_files import (
    check_runtime,
    check_suffix,
    input_shapes,
    inputs_outputs,
    onnx,
    read,
    tflite,
    what_is,
)
from pipeline.coding.varint import varint
from tests.corruptions import damaged
from tests.tiny_models import onnx_conv, tflite_conv

if TYPE_CHECKING:
    from pathlib import Path


def _zip(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x" * 5000)


def _tar(path: Path) -> None:
    inner = path.with_name("inner.tflite")
    inner.write_bytes(b"1234TFL3")
    with tarfile.open(path, "w") as archive:
        archive.add(inner, "inner.tflite")


WRITERS: dict[str, tuple[Any, str]] = {
    "empty.tflite": (lambda p: p.write_bytes(b""), "it is empty; copy or download it again"),
    "lfs.onnx": (
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
        "a pointer of git-lfs, not the file; fetch it with `git lfs pull`",
    ),
    "page.tflite": (
        lambda p: p.write_text("\n<!DOCTYPE html><html><title>Sign in</title>"),
        "a web page, as a download that was refused leaves it; download the file itself",
    ),
    "m.tflite.gz": (lambda p: p.write_bytes(gzip.compress(b"x" * 99)), "a gzip archive; unpack"),
    "m.zip": (lambda p: _zip(p, "m.tflite"), "a zip archive; unpack it"),
    "m.tar": (_tar, "a tar archive; unpack"),
    "net.pt": (lambda p: _zip(p, "net/data.pkl", "net/data/0"), "a PyTorch file"),
    "old.pth": (lambda p: p.write_bytes(b"\x80\x02\x8a\nl\xfc"), "a Python pickle, as torch.save"),
    "m.keras": (lambda p: _zip(p, "config.json", "model.weights.h5"), "a Keras file"),
    "m.h5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 99), "an HDF5 file"),
    "zeros.onnx": (lambda p: p.write_bytes(b"\0" * 5000), "filled with zeros"),
    "w.safetensors": (
        lambda p: p.write_bytes((16).to_bytes(8, "little") + b'{"a":{"dtype":1}'),
        "a safetensors file; it holds weights and no network",
    ),
    "notes.txt": (lambda p: p.write_text("my notes\nmore"), "a text that begins 'my notes'"),
    "noise.bin": (lambda p: p.write_bytes(bytes(range(200, 250)) * 9), "of no known kind"),
    "n.npz": (lambda p: np.savez(p, a=np.zeros(3)), "as edgewright keeps its networks"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_no_model_is_called_by_its_name(tmp_path: Path, name: str) -> None:
    write, words = WRITERS[name]
    write(tmp_path / name)
    with pytest.raises(ConfigError) as error:
        read(tmp_path / name)
    assert f"{name} is no model file: it is " in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; give the model file in it"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="no model file"):
        read(tmp_path / "none.tflite")


def test_inputs_are_those_of_the_runtimes(tmp_path: Path) -> None:
    first = read(tflite_conv(tmp_path / "m.tflite", signature=(-1, -1, 16, 3)))
    assert (first.format, first.parts) == ("tflite", ())
    assert first.inputs is not None
    assert [(t.name, t.dtype, t.dims) for t in first.inputs] == [("x", "float32", ("", "", 16, 3))]
    second = read(onnx_conv(tmp_path / "m.onnx", shape=("n", 3, None, 8)))
    assert second.inputs is not None
    # No weights among them, although old files list those as inputs.
    assert [(t.name, t.dims) for t in second.inputs] == [("x", ("n", 3, "", 8))]
    assert second.outputs is not None
    assert [t.name for t in second.outputs] == ["logits"]
    with pytest.raises(ConfigError, match=r"m.tflite: the file leaves dimensions .* open"):
        input_shapes(first, {})
    assert input_shapes(second, {"x": (1, 3, 7, 8)}) == {"x": (1, 3, 7, 8)}


@pytest.mark.parametrize(("suffix", "write"), [("tflite", tflite_conv), ("onnx", onnx_conv)])
def test_a_wrong_suffix_or_runtime_is_said(tmp_path: Path, suffix: str, write: Any) -> None:
    other = {"tflite": "onnx", "onnx": "tflite"}[suffix]
    file = read(write(tmp_path / f"m.{other}"))
    words = f"although its name ends in .{other}; rename it to .{suffix}"
    with pytest.raises(ConfigError, match=words):
        check_suffix(file)
    with pytest.raises(ConfigError, match=f"which the runtime {other} does not take"):
        check_runtime(file, other)
    check_runtime(file, suffix)
    plain = read(write(tmp_path / "m.bin"))
    check_suffix(plain)
    assert plain.format == suffix


@pytest.mark.parametrize(("format_", "write"), [("tflite", tflite_conv), ("onnx", onnx_conv)])
def test_readers_survive_any_damage(tmp_path: Path, format_: str, write: Any) -> None:
    content = write(tmp_path / "m").read_bytes()
    refused = 0
    for seed in range(800):
        try:
            inputs_outputs(damaged(content, np.random.default_rng(seed)), format_)
        except ConfigError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize(("name", "write"), [("m.tflite", tflite_conv), ("m.onnx", onnx_conv)])
def test_every_cut_is_noticed(tmp_path: Path, name: str, write: Any) -> None:
    path = write(tmp_path / name)
    content = path.read_bytes()
    for size in range(16, len(content) - 1, 97):
        path.write_bytes(content[:size])
        with pytest.raises(ConfigError, match="cut short or damaged"):
            read(path)


def test_tables_that_refer_to_each_other_end(tmp_path: Path) -> None:
    # A vector of subgraphs that all are the table that holds it.
    content = bytearray(tflite_conv(tmp_path / "m.tflite").read_bytes())
    root = int.from_bytes(content[:4], "little")
    vtable = root - int.from_bytes(content[root : root + 4], "little", signed=True)
    place = root + int.from_bytes(content[vtable + 8 : vtable + 10], "little")
    vector = place + int.from_bytes(content[place : place + 4], "little")
    entry = vector + 4
    content[entry : entry + 4] = ((root - entry) % (1 << 32)).to_bytes(4, "little")
    with pytest.raises(ConfigError, match="cut short or damaged"):
        inputs_outputs(bytes(content), "tflite")


def test_a_small_file_that_claims_much_takes_little() -> None:
    """Tables that are named often and share a vector; a tensor with more dimensions than any."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    builder = flatbuffers.Builder(1 << 20)
    data = builder.CreateByteVector(bytes(2000))
    dims = builder.CreateNumpyVector(np.ones(50_000, np.int32))
    name = builder.CreateString("n" * 100_000)
    schema.BufferStart(builder)
    schema.BufferAddData(builder, data)
    buffer = schema.BufferEnd(builder)
    tensors = []
    for _ in range(20):
        schema.TensorStart(builder)
        schema.TensorAddShape(builder, dims)
        schema.TensorAddName(builder, name)
        tensors.append(schema.TensorEnd(builder))

    def vector(places: list[int]) -> int:
        builder.StartVector(4, len(places), 4)
        for place in places:
            builder.PrependUOffsetTRelative(place)
        return int(builder.EndVector())

    buffers, named = vector([buffer]), vector(tensors * 6)
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, named)
    graphs = vector([schema.SubGraphEnd(builder)] * 3)
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    schema.ModelAddBuffers(builder, buffers)
    builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")

    def field(number: int, content: bytes) -> bytes:
        return bytes([8 * number + 2]) + varint(len(content)) + content

    rest = bytes([8 * 2, 3]) + field(8, b"w") + field(9, bytes(2000))
    dimensions = field(1, bytes([1]) * 50_000), bytes([8, 1]) * 50_000, bytes([8, 1]) * 8
    many, more, few = (field(7, field(5, of + rest)) for of in dimensions)
    tracemalloc.start()
    try:
        found = tflite.constants(bytes(builder.Output()))
        assert [(one[0], one[2]) for one in found] == [("n" * 256, ())] * 20
        for content in (many, more):
            ((*_, size),) = [one for one in onnx.constants(content) if one[:3] == ("w", "int8", ())]
            assert size == 2000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert onnx.constants(few)[0][:3] == ("w", "int8", (1,) * 8)


def test_what_the_runtime_takes_is_not_damaged(tmp_path: Path) -> None:
    """A scale of 0 is none; metadata, signatures and labels behind the file are no fault."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    path = tflite_conv(tmp_path / "m.tflite")
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    graph = model.subgraphs[0]
    scaled = schema.QuantizationParametersT()
    scaled.scale, scaled.zeroPoint = [0.0], [0]
    graph.tensors[graph.inputs[0]].quantization = scaled
    note, named = schema.MetadataT(), schema.SignatureDefT()
    note.name, note.buffer = "TFLITE_METADATA", 0
    named.signatureKey = "serving_default"
    named.inputs, named.outputs = [schema.TensorMapT()], [schema.TensorMapT()]
    named.inputs[0].name, named.inputs[0].tensorIndex = "x", graph.inputs[0]
    named.outputs[0].name, named.outputs[0].tensorIndex = "y", graph.outputs[0]
    model.metadata, model.signatureDefs = [note], [named]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()) + b"PK\x03\x04labels.txt")
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    interpreter.invoke()
    file = read(path)
    assert file.inputs is not None
    assert [(t.name, t.scale, t.zero_point) for t in file.inputs] == [("x", None, None)]


def test_what_is_reads_only_the_kind(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(onnx_conv(tmp_path / "m.onnx").read_bytes()[:200])
    assert what_is(path).name == "onnx"
