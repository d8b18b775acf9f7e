"""Reads what a user gives as a device's address: user@host:port, an SSH alias, or adb:SERIAL."""

from __future__ import annotations

import re
from dataclasses import dataclass

from device_agents.errors import ConfigError

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.%-]{0,252})|\[[0-9A-Fa-f:.%A-Za-z]{2,64}\]")
_IPV6 = re.compile(r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f.]{0,15}){2,8}(?:%[A-Za-z0-9]{1,16})?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?")
# As `adb devices` shows it: with blanks where a phone's or an mDNS name has them, such as
# `adb-R5-x (2)._adb-tls-connect._tcp`; a host may be an IPv6 address in brackets, with its scope.
_SERIAL = re.compile(
    r"(?=.{1,128}$)(?:[A-Za-z0-9][\w.:%+()-]*(?: [\w.:%+()-]+)*"
    r"|\[[0-9A-Fa-f:.]{2,45}(?:%[\w.-]{1,16})?\](?::\d{1,5})?)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Address:
    """How to reach a device; an empty user and port 0 were not given."""

    transport: str
    host: str
    user: str = ""
    port: int = 0


def parse(text: str, *, transport: str = "") -> Address:
    """Read an address; `transport` says which kind where the text does not. Raises ConfigError."""
    if text.startswith("adb:") or transport == "adb":
        serial = text.removeprefix("adb:")
        if transport not in ("", "adb") or not _SERIAL.fullmatch(serial):
            raise _refusal(text, "adb:SERIAL or adb:HOST:PORT, as `adb devices` shows it")
        return Address("adb", serial)
    if transport in ("", "ssh"):
        return _ssh(text)
    return Address(transport, "" if text == "-" else text)


def _ssh(text: str) -> Address:
    rest = text.removeprefix("ssh://").removesuffix("/")
    user, at, host = rest.rpartition("@")
    port = ""
    if not _IPV6.fullmatch(host):
        name, colon, after = host.rpartition(":")
        if colon and not host.endswith("]"):
            host, port = name, after or "?"
    good_user = not at or _USER.fullmatch(user)
    good_host = _IPV6.fullmatch(host) or _HOST.fullmatch(host)
    if not good_user or not good_host or not re.fullmatch(r"\d{0,5}", port):
        raise _refusal(text, "user@host:port, host, or an alias of ~/.ssh/config")
    if port and not 1 <= int(port) <= 65535:
        raise _refusal(text, "a port from 1 to 65535")
    return Address("ssh", host.strip("[]"), user, int(port or 0))


def _refusal(text: str, wanted: str) -> ConfigError:
    return ConfigError(f"address {text!r} is not {wanted}; correct it")
