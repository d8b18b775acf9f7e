"""Puts the user's binary and the models on the device under their content's hash.

A file goes to a temporary name, is verified there and renamed, so half a file is never used.
"""

from __future__ import annotations

import hashlib
import posixpath
import secrets
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents import bounded
from device_agents.errors import ConfigError, DeviceError, TransferFailed

if TYPE_CHECKING:
    from device_agents.api import DeviceDescription, OnSent, Transport

_CALL_TIMEOUT_S = 30.0
_BYTES_PER_S = 1e6

# ELF: e_machine and the `uname -m` words of the kernels that run it.
_MACHINES = {
    3: ("x86", ("i386", "i486", "i586", "i686", "x86_64")),
    40: ("32-bit arm", ("armv6l", "armv7l", "armv8l", "aarch64")),
    62: ("x86-64", ("x86_64",)),
    183: ("64-bit arm", ("aarch64", "arm64")),
    243: ("RISC-V", ("riscv32", "riscv64")),
}

# $1 mark, $2 the device's directory, $3 to $5 folders in it. As agent/launcher.py, where there is
# no Python: folders of this user's own, in which nobody else can put a program under our name.
_OWN = r"""
mark=$1 me=$(id -u)
umask 077
say() { echo "@$mark $1 $2"; exit 0; }
own() {
    set -- "$1" $(ls -ldn "$1" 2>/dev/null)
    case $2 in d*) ;; *) say missing "${1##*/}" ;; esac
    [ "$4" = "$me" ] || say another-user "$4"
    case $2 in ?????w*|????????w*) say writable "$2" ;; esac
    chmod 700 "$1"
}
mkdir -p "$2"
own "$2/."
for folder in "$3" "$4" "$5"; do
    [ -h "$2/$folder" ] && say link "$folder"
    mkdir -p "$2/$folder"
    own "$2/$folder"
    # Of transfers that never came to their end; one that runs is younger.
    find "$2/$folder" -name "*.part-*" -mmin +60 -exec rm -f {} \; 2>/dev/null
done
say own 0
"""
_UNSAFE = {
    "missing": "cannot be made there",
    "another-user": "belongs to another user",
    "writable": "can be written by others, so what lies there may be theirs",
    "link": "holds a link where a folder must be",
}
# $1 mark, $2 file. Without sha256sum the size must do.
_IDENTIFY = """
if [ -f "$2" ]; then
  hash=$(sha256sum "$2" 2>/dev/null); hash=${hash%% *}
  echo "@$1 $(($(wc -c <"$2"))) ${hash:-unknown}"
else echo "@$1 none none"; fi
"""
# $1 mark, $2 part, $3 target.
_PLACE = 'chmod 755 "$2" && mv -f "$2" "$3" && echo "@$1 placed 0"\n'
_DROP = 'rm -f "$2"; echo "@$1 dropped 0"\n'


def file_sha256(path: Path) -> str:
    """Return the file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_binary(description: DeviceDescription) -> Path:
    """Return the user's binary; raises ConfigError that says where to get one."""
    name, given = description.name, description.benchmark_binary
    if not given:
        raise ConfigError(
            f"device {name!r} has the runtime benchmark_model and no binary; take one built for it "
            "(the TensorFlow Lite or LiteRT project publishes them, or build "
            "//tflite/tools/benchmark:benchmark_model) and set `benchmark_binary` in its profile"
        )
    path = Path(given).expanduser()
    if not bounded.is_file(path):
        raise ConfigError(
            f"device {name!r}: there is no file {given!r} on this computer; correct "
            "`benchmark_binary` in its profile"
        )
    return path


def check_processor(path: Path, *, machine: str, userland_bits: int | None, name: str) -> None:
    """Refuse a binary that is for another processor; raises ConfigError.

    A script (`#!`) is taken as it is; an unknown `machine` is given the benefit of the doubt.
    """
    with path.open("rb") as file:
        head = file.read(20)
    if head.startswith(b"#!"):
        return
    if not head.startswith(b"\x7fELF") or len(head) < 20:
        raise ConfigError(
            f"{path} is no program for Linux or Android (no ELF header); correct "
            f"`benchmark_binary` of device {name!r}"
        )
    bits = 64 if head[4] == 2 else 32
    number = struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])[0]
    built_for, machines = _MACHINES.get(number, (f"ELF machine {number}", ()))
    other = bool(machine) and machine not in machines
    if other or (bits == 64 and userland_bits == 32):
        system = f"{machine or 'unknown'} with {userland_bits or 'unknown'}-bit programs"
        raise ConfigError(
            f"{path} is built for {built_for} and device {name!r} is {system}; set "
            "`benchmark_binary` in its profile to one built for that"
        )


def own_folders(transport: Transport, directory: str, name: str) -> None:
    """Make the folders of programs, models and jobs, or see that they are this user's alone.

    Raises DeviceError for a folder in which others could have put something.
    """
    word, what = _call(transport, _OWN, directory, "tools", "models", "jobs", size=0)
    if word != "own":
        reason = _UNSAFE.get(word, "cannot be looked at")
        raise DeviceError(
            f"device {name!r}: {directory} {reason} ({what or 'no answer'}); remove it there, or "
            "set another `directory` in the profile"
        )


def ensure(
    transport: Transport, path: Path, sha256: str, target: str, *, on_sent: OnSent | None = None
) -> None:
    """Make sure that the file is on the device as `target`; raises TransferFailed, LinkLost."""
    size = path.stat().st_size
    if _is(transport, target, size, sha256):
        return
    part = posixpath.join(
        posixpath.dirname(target), f".part-{posixpath.basename(target)}-{secrets.token_hex(4)}"
    )
    transport.put(str(path), part, on_sent=on_sent)
    if not _is(transport, part, size, sha256):
        _call(transport, _DROP, part, size=size)
        raise TransferFailed(f"{path} arrived damaged on the device; try again")
    if _call(transport, _PLACE, part, target, size=size)[0] != "placed":
        _call(transport, _DROP, part, size=size)
        raise TransferFailed(
            f"{target} cannot be put in place on the device; is the folder writable?"
        )


def _is(transport: Transport, path: str, size: int, sha256: str) -> bool:
    found_size, found_hash = _call(transport, _IDENTIFY, path, size=size)
    return found_size == str(size) and found_hash in (sha256, "unknown")


def _call(transport: Transport, script: str, *more: str, size: int) -> tuple[str, str]:
    mark = secrets.token_hex(8)
    done = transport.run(
        ["sh", "-c", script, "edgewright-push", mark, *more],
        timeout_s=_CALL_TIMEOUT_S + size / _BYTES_PER_S,
    )
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == f"@{mark}":
            return words[1], words[2]
    return "", ""
