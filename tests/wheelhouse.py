"""Makes wheels without an index: small stand-ins, and the packages that are installed here."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import zipfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def wheel(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, bytes],
    *,
    tag: str = "py3-none-any",
    needs: tuple[str, ...] = (),
) -> Path:
    """Write a wheel of these files and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    head += "".join(f"Requires-Dist: {need}\n" for need in needs)
    everything = {
        **files,
        f"{info}/METADATA": head.encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = "".join(
        f"{path},sha256={_digest(content)},{len(content)}\n" for path, content in everything.items()
    )
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_inside, content in everything.items():
            archive.writestr(name_inside, content)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


_BORROWED = """{code}
import sys

# The import that runs this returns what is in its place by then.
del sys.modules[{name!r}]
sys.path.insert(0, {folder!r})
import {name}

# What they need in turn; last, so that it hides nothing else of the stand-ins.
sys.path.append(sys.path.pop(0))
"""


def stub_litert(folder: Path, *, version: str = "9.8.7", code: str = "") -> list[Path]:
    """Write wheels of LiteRT and numpy that run `code` and borrow the packages installed here."""
    litert = {
        "ai_edge_litert/__init__.py": _borrowed("ai_edge_litert", code),
        # As wheels with compiled parts have it: to be laid out beside the rest.
        f"ai_edge_litert-{version}.data/purelib/ai_edge_litert/extra.py": b"",
    }
    return [
        wheel(folder, "numpy", "1.26.0", {"numpy/__init__.py": _borrowed("numpy")}),
        wheel(folder, "ai-edge-litert", version, litert, needs=("numpy",)),
    ]


def stub_onnxruntime(folder: Path) -> Path:
    """Write a wheel of ONNX Runtime that borrows the package installed here."""
    files = {"onnxruntime/__init__.py": _borrowed("onnxruntime")}
    return wheel(folder, "onnxruntime", "9.1.0", files, needs=("numpy>=1.21",))


def _borrowed(name: str, code: str = "") -> bytes:
    return _BORROWED.format(name=name, folder=str(installed(name).parent), code=code).encode()


def repacked(folder: Path, name: str, *, needs: tuple[str, ...] = ()) -> Path:
    """Write a wheel of a package as it is installed in this environment."""
    found = metadata.distribution(name)
    left_out = (".dist-info", "__pycache__", "..")
    files = {
        str(item): item.locate().read_bytes()
        for item in found.files or ()
        if not any(part in str(item) for part in left_out)
    }
    return wheel(folder, name, found.version, files, needs=needs)


def installed(package: str) -> Path:
    """Return the folder of a package of this environment."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
