"""Packs the agent into one file, named by its content: the same sources give the same bytes."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import os
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from device_agents.files import replace_file

_SOURCES = Path(__file__).parent / "agent"
_PACKAGE = "edgewright_agent"
_MAIN = f"import sys\nfrom {_PACKAGE}.main import main\nsys.exit(main())\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class PackedAgent:
    """The agent as a file.

    Attributes:
        path: the .pyz on this machine.
        sha256: hash of its bytes, which the running agent reports about itself.
    """

    path: Path
    sha256: str

    @property
    def file_name(self) -> str:
        """Name of the file, here and on the device."""
        return self.path.name


def agent_bytes() -> bytes:
    """Return the .pyz: fixed times, sorted names, and stored, since zlib's output varies."""
    files = {"__main__.py": _MAIN.encode()}
    for source in _SOURCES.rglob("*.py"):
        files[f"{_PACKAGE}/{source.relative_to(_SOURCES).as_posix()}"] = source.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, files[name])
    return buffer.getvalue()


@cache
def launch_code() -> str:
    """Return what an interpreter on the device is given with -c: agent/launcher.py, in one line.

    One line of letters, digits and few signs passes every login shell. The working directory goes
    from the path first: anybody's modules may lie there.
    """
    tree = ast.parse((_SOURCES / "launcher.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            # Each of them holds something else; an exception's body may not be empty.
            node.body = node.body[1:] or [ast.Pass()]
    code = ast.unparse(tree) + "\nsys.exit(main(sys.argv[1:]))\n"
    packed = base64.b64encode(code.encode()).decode()
    return (
        'import sys; sys.path[:1] == [""] and sys.path.pop(0); import base64; '
        f'exec(base64.b64decode("{packed}"))'
    )


def default_cache() -> Path:
    """Return the folder that holds packed agents: $XDG_CACHE_HOME/edgewright/agent."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "edgewright" / "agent"


def pack_agent(folder: Path | None = None) -> PackedAgent:
    """Write the packed agent to the cache unless it is there; raises OSError."""
    content = agent_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    folder = folder if folder is not None else default_cache()
    path = folder / f"edgewright-agent-{sha256[:12]}.pyz"
    if not path.is_file() or path.read_bytes() != content:
        replace_file(path, content)
    return PackedAgent(path, sha256)
