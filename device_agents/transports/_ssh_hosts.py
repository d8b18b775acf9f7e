"""Host keys that the user trusts: files in the known_hosts form of OpenSSH.

Read here and not by paramiko, which ignores `@revoked` and patterns, knows one key per type and
host, and then reports any other as changed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from device_agents import bounded
from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

Verdict = Literal["known", "unknown", "changed", "revoked"]

# The names under which one type of key is negotiated.
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


@dataclass(frozen=True, slots=True)
class HostKey:
    """One line of a file: `blob` is the public key for the hosts that `patterns` match."""

    file: Path
    line: int
    marker: str
    patterns: tuple[str, ...]
    kind: str
    blob: bytes

    def matches(self, name: str) -> bool:
        """Tell whether the line speaks of the host `name`, as `host` or `[host]:port`."""
        found = False
        for pattern in self.patterns:
            negated, plain = pattern.startswith("!"), pattern.removeprefix("!")
            if _matches(plain, name):
                if negated:
                    return False
                found = True
        return found


def read(files: Iterable[Path]) -> list[HostKey]:
    """Return the keys of all files that are there; lines that are none are left out.

    Raises ConfigError for a file that may not be read.
    """
    found: list[HostKey] = []
    for file in files:
        # /dev/null is a usual way of saying that there are none.
        if not bounded.is_file(file):
            continue
        try:
            text = bounded.read_text(file, limit_bytes=bounded.TEXT_BYTES, errors="replace")
        except bounded.Unreadable as error:
            raise ConfigError(
                f"the host keys in {file} cannot be read: {error.reason}; let this user read "
                "a file of them, or set `known_hosts` in the profile"
            ) from error
        found += _keys(file, text)
    return found


def algorithms(keys: Sequence[HostKey], names: Sequence[str]) -> list[str]:
    """Return the algorithms of the keys known for the host, which must be asked for first.

    A server has keys of several types and shows only the one that is asked for.
    """
    kinds = [key.kind for key in keys if not key.marker and any(map(key.matches, names))]
    return [name for kind in dict.fromkeys(kinds) for name in _ALGORITHMS.get(kind, (kind,))]


def judge(
    keys: Sequence[HostKey], name: str, plain_name: str, *, kind: str, blob: bytes
) -> tuple[Verdict, HostKey | None]:
    """Judge a server's key, and return the line that decided.

    Several keys of one type may be listed for a host; each of them is trusted. A line for the host
    without its port makes an equal key trusted, but another key not "changed": other ports of a
    host may show other keys.
    """
    own = [key for key in keys if key.matches(name)]
    near = [key for key in keys if key.matches(plain_name)]
    for key in (*own, *near):
        if key.marker == "@revoked" and key.blob == blob:
            return "revoked", key
    for key in (*own, *near):
        if not key.marker and key.blob == blob:
            return "known", key
    changed = next((key for key in own if not key.marker and key.kind == kind), None)
    return ("changed", changed) if changed else ("unknown", None)


def fingerprint(blob: bytes) -> str:
    """Return the fingerprint as `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _keys(file: Path, text: str) -> Iterable[HostKey]:
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        try:
            blob = base64.b64decode(fields[2], validate=True)
        except binascii.Error:
            continue
        yield HostKey(file, number, marker, tuple(fields[0].split(",")), fields[1], blob)


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("|1|"):
        return _matches_hash(pattern, name)
    # Not fnmatch: the brackets of `[host]:port` stand for themselves.
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern.lower())
    return re.fullmatch("".join(parts), name.lower()) is not None


def _matches_hash(pattern: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(text, validate=True) for text in pattern.split("|")[2:])
    except ValueError:
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)
