"""Finds a phone through the adb client program, and says in one sentence why it cannot be used.

Two things that the client does are prevented. It kills a server of another version, and with it
everybody's connections: hence the server is asked first. And its exit code after `connect` is 0
whatever happened: hence its text is read, and then the list of devices.
"""

from __future__ import annotations

import functools
import os
import shutil
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from device_agents import android
from device_agents.errors import (
    AuthenticationFailed,
    ConfigError,
    DeadlineExceeded,
    DeviceError,
    Unreachable,
)
from device_agents.transports.local import LocalTransport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_agents.api import Completed, DeviceDescription

_ASK_TIMEOUT_S = 2.0
_POLL_S = 0.1
# These pass by themselves while a phone and the server greet each other.
_PASSING = ("authorizing", "connecting")
_HERE = ("localhost", "127.0.0.1")

_ADVICE: Final = {
    "unauthorized": "does not trust this computer; unlock it and accept `Allow USB debugging?`, "
    "after plugging it in again if it does not ask",
    "no permissions": "may not be opened by this user; install the udev rules (Debian: apt-get "
    "install android-sdk-platform-tools-common), add the user to the group plugdev, log in anew, "
    "plug the phone in again and run `adb kill-server`",
    "offline": "is offline for adb; plug it in again and unlock it, or run `adb reconnect offline`",
    "authorizing": "still waits for its user; accept `Allow USB debugging?` on it",
    "connecting": "is still being connected; try again, or plug it in again",
    "recovery": "runs its recovery system; choose `Reboot system now` on it",
    "rescue": "is in rescue mode; run `adb reboot`",
    "sideload": "waits for a system update; run `adb reboot`",
    "bootloader": "is in its bootloader; run `fastboot reboot`",
    "unknown": "is in a state that is not known; run `adb reconnect`",
}
# Nothing changes these but a person.
REFUSING = ("unauthorized", "no permissions")


@dataclass(frozen=True, slots=True)
class Adb:
    """The client program, and the server it is to ask.

    Attributes:
        name: the device's name, for messages.
        client: runs the program on this computer.
    """

    name: str
    client: LocalTransport
    program: str
    server: tuple[str, ...]

    def argv(self, *words: str) -> list[str]:
        """Return the command line for the server."""
        return [self.program, *self.server, *words]

    def ask(self, *words: str, timeout_s: float) -> Completed:
        """Run a command that is about the server; raises Unreachable when it does not answer."""
        try:
            return self.client.run(self.argv(*words), timeout_s=timeout_s)
        except DeadlineExceeded as error:
            raise Unreachable(
                f"device {self.name!r}: `adb {' '.join(words)}` did not end within {timeout_s:g} s"
            ) from error

    def devices(self, *, timeout_s: float) -> tuple[android.AdbDevice, ...]:
        """Return what the server knows; starts it when it does not run, except on another host."""
        done = self.ask("devices", "-l", timeout_s=timeout_s)
        if done.rc:
            raise Unreachable(
                f"device {self.name!r}: no adb server: {_said(done)}; start it there, or correct "
                "`adb_server` in the profile"
            )
        return android.parse_devices(done.stdout.decode("utf-8", "replace"))


def find_adb(device: DeviceDescription) -> Adb:
    """Find the program and check that it fits the server; raises ConfigError."""
    wanted = os.environ.get("ADB") or "adb"
    program = shutil.which(wanted)
    if program is None:
        raise ConfigError(
            f"device {device.name!r} needs the program {wanted!r}, which is not there; install it "
            "(Debian: apt-get install adb) or name it in the environment variable ADB"
        )
    host, port = _server_address(device)
    server: tuple[str, ...] = ()
    if device.adb_server:
        # With -H a server is never started, not even on this computer.
        server = ("-P", str(port)) if host in _HERE else ("-H", host, "-P", str(port))
    adb = Adb(device.name, LocalTransport(device.name, python=""), program, server)
    ours, theirs = _client_version(program), _server_version(host, port)
    if ours is not None and theirs is not None and ours != theirs:
        raise ConfigError(
            f"device {device.name!r}: the adb server at {host}:{port} has version {theirs} and "
            f"{program} has {ours}; name the adb that started it in the environment variable ADB, "
            "or end it with that one's `adb kill-server`"
        )
    return adb


def find_phone(adb: Adb, device: DeviceDescription) -> str:
    """Return the serial of the phone, which is ready; raises Unreachable, AuthenticationFailed."""
    deadline = time.monotonic() + device.connect_timeout_s
    said = _connected(adb, device) if ":" in device.address else ""
    renewed = False
    while True:
        known = adb.devices(timeout_s=device.connect_timeout_s)
        phone = _chosen(device, known, said)
        if phone.state == "device":
            return phone.serial
        if phone.state == "offline" and said.startswith("already") and not renewed:
            # The server keeps a connection that has gone, and says that it is there.
            adb.ask("disconnect", device.address, timeout_s=device.connect_timeout_s)
            said, renewed = _connected(adb, device), True
        elif phone.state in _PASSING and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        else:
            raise refusal(device.name, phone.serial, phone.state, phone.detail)


def refusal(name: str, serial: str, state: str, detail: str = "") -> DeviceError:
    """Return the error for a phone in this state."""
    kind = AuthenticationFailed if state in REFUSING else Unreachable
    advice = _ADVICE.get(state, _ADVICE["unknown"])
    return kind(f"device {name!r}: {serial} {advice}{f' (adb says: {detail})' if detail else ''}")


def _connected(adb: Adb, device: DeviceDescription) -> str:
    done = adb.ask("connect", device.address, timeout_s=device.connect_timeout_s)
    return _said(done)


def _chosen(
    device: DeviceDescription, known: Sequence[android.AdbDevice], said: str
) -> android.AdbDevice:
    """Return the phone that the profile means."""
    name, wanted = device.name, device.address
    listed = ", ".join(f"{phone.serial} ({phone.state})" for phone in known) or "none"
    if wanted:
        match = next((phone for phone in known if phone.serial == wanted), None)
        if match is not None:
            return match
        if said:
            raise Unreachable(
                f"device {name!r} at {wanted} is not reached: {said}; is it on this network, with "
                "wireless debugging on (or after `adb tcpip 5555` by USB)? Else correct `address`"
            )
        raise Unreachable(
            f"device {name!r}: adb knows no {wanted!r}; it has {listed}; plug the phone in, or "
            "correct `address` in the profile"
        )
    if not known:
        raise Unreachable(
            f"device {name!r}: adb knows no phone; plug one in with USB debugging on, or set "
            "`address` in the profile to its host:port"
        )
    if len(known) > 1:
        raise ConfigError(
            f"device {name!r} has no address and adb knows several phones: {listed}; set "
            "`address` in the profile to one of these serials"
        )
    return known[0]


def _said(done: Completed) -> str:
    """Return the last line of what adb said that is not about starting its server."""
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("*")] or lines
    return told[-1].removeprefix("adb: ").removeprefix("error: ") if told else "nothing"


def _server_address(device: DeviceDescription) -> tuple[str, int]:
    """Return where the server listens, as adb itself finds it out."""
    port = os.environ.get("ANDROID_ADB_SERVER_PORT") or "5037"
    host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS") or "localhost"
    source, text = "ADB_SERVER_SOCKET", os.environ.get("ADB_SERVER_SOCKET", "")
    if device.adb_server:
        source, text = "`adb_server` in the profile", device.adb_server
    if text:
        host, _, port = text.removeprefix("tcp:").rpartition(":")
    if not (port.isdecimal() and 0 < int(port) < 65536) or (device.adb_server and not host):
        raise ConfigError(
            f"device {device.name!r}: {source} is {text or port!r}, which is not host:port such "
            "as 127.0.0.1:5037; correct it"
        )
    return host or "localhost", int(port)


@functools.cache
def _client_version(program: str) -> int | None:
    """Return the protocol version, the last number of `1.0.41`; None when it is not told."""
    client = LocalTransport("adb", python="")
    text = client.run([program, "version"], timeout_s=_ASK_TIMEOUT_S * 5).stdout.decode()
    last = text.partition("\n")[0].rpartition(".")[2].strip()
    return int(last) if last.isdecimal() else None


def _server_version(host: str, port: int) -> int | None:
    """Ask a running server for its version; None when there is none, or it says nothing."""
    try:
        with socket.create_connection((host, port), _ASK_TIMEOUT_S) as sock:
            sock.settimeout(_ASK_TIMEOUT_S)
            sock.sendall(b"000chost:version")
            answer = sock.makefile("rb").read(12)
        return int(answer[8:], 16) if answer.startswith(b"OKAY") else None
    except (OSError, ValueError):
        return None
