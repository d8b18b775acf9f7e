"""What a file really is, by its first bytes: suffixes lie, and downloads go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.model_files import onnx, tflite

if TYPE_CHECKING:
    from typing import Any

HEAD_BYTES = 4096

_TORCH = "export it to ONNX with torch.onnx.export, or train a network of edgewright"
_UNPACK = "unpack it and give the model file inside"
_KERAS = "`edgewright export` makes a TFLite file of it"
_DOWNLOAD = "download the file itself"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is.

    Attributes:
        name: `tflite`, `onnx`, `ort`, `null`, or empty for what no runtime here takes.
        words: what it is, as in "it is …".
        advice: what to do with it; empty for what a runtime takes.
    """

    name: str
    words: str
    advice: str = ""


TFLITE = Kind("tflite", "a TFLite model")
ONNX = Kind("onnx", "an ONNX model")
ORT = Kind("ort", "a model in onnxruntime's own format")
NULL = Kind("null", "a model of the null runtime")
NETWORK = Kind(
    "",
    "a NumPy archive, as edgewright keeps its networks",
    "`edgewright export` makes a model file of it",
)
_LFS = Kind("", "a pointer of git-lfs, not the file", "fetch it with `git lfs pull`")
_PROGRAM = Kind("", "a program", "give the model file; a benchmark_model goes with --binary")
_UNKNOWN = Kind("", "of no known kind", "a TFLite file (.tflite) or an ONNX file (.onnx) is taken")

# Offset, bytes that stand there, what it is.
_MARKS = (
    (4, tflite.IDENTIFIER, TFLITE),
    (4, b"ORTM", ORT),
    (0, b"version https://git-lfs", _LFS),
    (0, b"\x1f\x8b", Kind("", "a gzip archive", _UNPACK)),
    (0, b"BZh", Kind("", "a bzip2 archive", _UNPACK)),
    (0, b"\xfd7zXZ\0", Kind("", "an xz archive", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("", "a 7z archive", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Kind("", "a zstd archive", _UNPACK)),
    (0, b"Rar!", Kind("", "a rar archive", _UNPACK)),
    (257, b"ustar", Kind("", "a tar archive", _UNPACK)),
    (0, b"\x89HDF\r\n", Kind("", "an HDF5 file, as Keras writes (.h5)", _KERAS)),
    (0, b"\x93NUMPY", Kind("", "a NumPy array", "give the model file")),
    (0, b"\x80", Kind("", "a Python pickle, as torch.save wrote (.pt, .pth)", _TORCH)),
    (0, b"GGUF", Kind("", "a GGUF file of llama.cpp", "no runtime here takes it")),
    (4, b"ET12", Kind("", "an ExecuTorch program (.pte)", "no runtime here takes it")),
    (0, b"7767517", Kind("", "the layers of an ncnn model (.param)", "no runtime here takes it")),
    (0, b"\x7fELF", _PROGRAM),
    (0, b"\x89PNG", Kind("", "a PNG picture", "give the model file")),
    (0, b"\xff\xd8\xff", Kind("", "a JPEG picture", "give the model file")),
    (0, b"%PDF", Kind("", "a PDF", "give the model file")),
)


def kind_of(content: Any) -> Kind:
    """Return what a file (bytes or mmap) is."""
    if not len(content):
        return Kind("", "empty", "copy or download it again")
    head = bytes(content[:HEAD_BYTES])
    for at, mark, kind in _MARKS:
        if head[at : at + len(mark)] == mark:
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _archive(content)
    if not head.strip(b"\0"):
        return Kind("", "filled with zeros, as an interrupted download leaves it", _DOWNLOAD)
    for test in (_text_kind, _safetensors):
        found = test(head)
        if found is not None:
            return found
    return ONNX if onnx.looks_like(content) else _UNKNOWN


def _archive(content: Any) -> Kind:
    """Tell the archives of the trade apart by the names in the zip's own list, at its end."""
    names = bytes(content[:HEAD_BYTES]) + bytes(content[-(1 << 16) :])
    members: tuple[tuple[bytes, Kind], ...] = (
        (b"data.pkl", Kind("", "a PyTorch file (.pt, .pth)", _TORCH)),
        (b"model.weights.h5", Kind("", "a Keras file (.keras)", _KERAS)),
        (b".npy", NETWORK),
    )
    for name, kind in members:
        if name in names:
            return kind
    return Kind("", "a zip archive", _UNPACK)


def _text_kind(head: bytes) -> Kind | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<script")):
        return Kind("", "a web page, as a download that was refused leaves it", _DOWNLOAD)
    if start.startswith((b"<?xml", b"<net")):
        words = "an XML text, of OpenVINO perhaps"
        return Kind("", words, "no runtime here takes it; export the network to ONNX")
    if start.startswith((b"{", b"[")):
        return NULL if b'"edgewright_null"' in head else Kind("", "JSON", "give the model file")
    if _is_text(head):
        first = head.split(b"\n", 1)[0].decode("utf-8", "replace").strip()[:60]
        return Kind("", f"a text that begins {first!r}", "give the model file")
    return None


def _is_text(head: bytes) -> bool:
    if any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head):
        return False
    # A character of several bytes may be cut at the end of the head.
    whole = head[:-3] if len(head) == HEAD_BYTES else head
    try:
        whole.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _safetensors(head: bytes) -> Kind | None:
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27:
        advice = "it holds weights and no network: export the network to ONNX"
        return Kind("", "a safetensors file", advice)
    return None
