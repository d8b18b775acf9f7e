"""What the device is: the answer to `hello`."""

import hashlib
import importlib.util
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any, Dict, Optional

from . import runtimes, wire


def hello(archive: str) -> Dict[str, Any]:
    """Return protocol version, the agent's own hash, and the device's facts."""
    return {
        "protocol": wire.PROTOCOL,
        "agent_sha256": file_sha256(Path(archive)) if Path(archive).is_file() else "",
        "python": sys.version.split()[0],
        "python_path": sys.executable,
        "device_id": device_id(),
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "kernel_machine": os.uname().machine if hasattr(os, "uname") else platform.machine(),
        "userland_bits": userland_bits(),
        "os": _os_name(),
        "kernel": platform.release(),
        "cpu_count": os.cpu_count() or 1,
        "model": _model(),
        "memory_bytes": _memory_bytes(),
        "runtimes": runtimes.versions(),
        # Packed files can be unpacked here (packed/).
        "unpacks": importlib.util.find_spec("numpy") is not None,
    }


def file_sha256(path: Path) -> str:
    """Return the file's SHA-256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _read(path: str) -> str:
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""


def device_id(root: str = "/") -> str:
    """Return a hash that tells this device from others of its kind; empty when nothing does.

    Boards written from one card image share their machine id, so the board's serial goes first.
    """
    board = _read(root + "proc/device-tree/serial-number").strip("\0\n ")
    if not board:
        found = re.search(r"^Serial\s*:\s*(\S+)", _read(root + "proc/cpuinfo"), re.MULTILINE)
        board = found.group(1) if found else ""
    # Some kernels tell a serial of zeros instead of none.
    identity = board if board.strip("0") else _read(root + "etc/machine-id").strip()
    return hashlib.sha256(identity.encode()).hexdigest()[:16] if identity else ""


def userland_bits() -> int:
    """Return 32 or 64, of the programs here: a 64-bit kernel may run a 32-bit system."""
    try:
        with Path(sys.executable).resolve().open("rb") as file:
            head = file.read(5)
    except OSError:
        head = b""
    # The ELF class of the interpreter, which the system's libraries match.
    if head[:4] == b"\x7fELF":
        return 64 if head[4] == 2 else 32
    return 64 if sys.maxsize > 2**32 else 32


def _os_name() -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', _read("/etc/os-release"), re.MULTILINE)
    return found.group(1) if found else platform.system()


def _model() -> str:
    board = _read("/proc/device-tree/model").strip("\0\n ")
    if board:
        return board
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def _memory_bytes() -> Optional[int]:
    found = re.search(r"MemTotal:\s+(\d+) kB", _read("/proc/meminfo"))
    return int(found.group(1)) * 1024 if found else None
