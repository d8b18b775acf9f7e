"""Makes SSH connections and says in one sentence why one cannot be made.

Host keys are verified: an unknown or changed key is refused with the command that fixes it.
TCP_NODELAY is set because a new channel costs 48 ms without it and 3 ms with it.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import shlex
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import paramiko

from device_agents.errors import (
    AuthenticationFailed,
    ConfigError,
    DeviceError,
    HostKeyError,
    LinkLost,
    Unreachable,
)

if TYPE_CHECKING:
    from device_agents.api import DeviceDescription

_KEEPALIVE_S = 10


def connected_client(device: DeviceDescription) -> paramiko.SSHClient:
    """Connect; raises ConfigError, Unreachable, HostKeyError, AuthenticationFailed."""
    if not device.address:
        raise ConfigError(
            f'device {device.name!r} has no address; add `address = "…"` to a profile of your own '
            f'that says `extends = "{device.name}"`'
        )
    return _client(device)


class _RefuseUnknown:
    """A paramiko.MissingHostKeyPolicy that refuses and shows the fingerprint to compare."""

    def __init__(self, device: DeviceDescription, known_hosts: Path) -> None:
        self._device = device
        self._known_hosts = known_hosts

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        del client
        device = self._device
        scan = f"ssh-keyscan -p {device.port} {shlex.quote(device.address)}"
        raise HostKeyError(
            f"device {device.name!r}: the host key of {hostname} is not in {self._known_hosts}; "
            f"check on the device that its {key.get_name()} fingerprint is {fingerprint(key)}, "
            f"then run `{scan} >> {shlex.quote(str(self._known_hosts))}`"
        )


def fingerprint(key: Any) -> str:
    """Return the fingerprint as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _client(device: DeviceDescription) -> paramiko.SSHClient:
    known_hosts = Path(device.known_hosts or "~/.ssh/known_hosts").expanduser()
    client = paramiko.SSHClient()
    where = f"device {device.name!r} at {device.address} port {device.port}"
    sock = _socket(device, where)
    try:
        if known_hosts.is_file():
            client.load_host_keys(str(known_hosts))
        client.set_missing_host_key_policy(cast("Any", _RefuseUnknown(device, known_hosts)))
        own_key = str(Path(device.identity_file).expanduser()) if device.identity_file else None
        timeout_s = device.connect_timeout_s
        client.connect(
            device.address,
            device.port,
            username=device.user or getpass.getuser(),
            key_filename=own_key,
            sock=sock,
            timeout=timeout_s,
            banner_timeout=timeout_s,
            auth_timeout=timeout_s,
            # With a key in the profile, no other key of the user is offered.
            allow_agent=own_key is None,
            look_for_keys=own_key is None,
        )
    except BaseException as error:
        client.close()
        sock.close()
        raise _explained(error, device, where, known_hosts) from error
    transport = client.get_transport()
    if transport is None:
        raise LinkLost(f"{where} closed the connection")
    transport.set_keepalive(_KEEPALIVE_S)
    return client


def _socket(device: DeviceDescription, where: str) -> socket.socket:
    try:
        sock = socket.create_connection((device.address, device.port), device.connect_timeout_s)
    except ConnectionRefusedError as error:
        raise Unreachable(
            f"{where} refuses the connection; is its SSH server running, and is the port right?"
        ) from error
    except TimeoutError as error:
        raise Unreachable(
            f"{where} did not answer within {device.connect_timeout_s:g} s; is it switched on and "
            "on this network?"
        ) from error
    except socket.gaierror as error:
        raise Unreachable(
            f"{where}: no such host ({error.strerror}); correct `address` in its profile"
        ) from error
    except OSError as error:
        raise Unreachable(f"{where} cannot be reached: {error.strerror or error}") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # A device that vanished is noticed although nothing is read from it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    return sock


def _explained(  # noqa: PLR0911  # one return per kind of error
    error: BaseException, device: DeviceDescription, where: str, known_hosts: Path
) -> BaseException:
    """Return the error of our tree, one sentence, for what paramiko raised."""
    user = device.user or getpass.getuser()
    if isinstance(error, DeviceError) or not isinstance(error, Exception):
        return error
    if isinstance(error, paramiko.BadHostKeyException):
        entry = device.address if device.port == 22 else f"[{device.address}]:{device.port}"
        remove = f"ssh-keygen -R {shlex.quote(entry)} -f {shlex.quote(str(known_hosts))}"
        scan = f"ssh-keyscan -p {device.port} {shlex.quote(device.address)}"
        return HostKeyError(
            f"{where}: the host key has changed: it is now {fingerprint(error.key)}, "
            f"{known_hosts} has {fingerprint(error.expected_key)}; if the device was reinstalled, "
            f"run `{remove}` and `{scan} >> {shlex.quote(str(known_hosts))}`, otherwise do not "
            "connect"
        )
    if isinstance(error, paramiko.PasswordRequiredException):
        return AuthenticationFailed(
            f"{where}: the key {device.identity_file} needs a passphrase; run "
            f"`ssh-add {device.identity_file}` and remove `identity_file` from the profile"
        )
    if isinstance(error, paramiko.AuthenticationException):
        key = device.identity_file or "any key of the SSH agent or ~/.ssh"
        return AuthenticationFailed(
            f"{where} refuses user {user!r} with {key}; run "
            f"`ssh-copy-id -p {device.port} {user}@{device.address}` or correct `user` and "
            "`identity_file` in the profile"
        )
    if isinstance(error, FileNotFoundError):
        return ConfigError(
            f"device {device.name!r}: there is no key {device.identity_file!r}; "
            "correct `identity_file` in its profile"
        )
    if isinstance(error, TimeoutError):
        return Unreachable(f"{where} did not answer within {device.connect_timeout_s:g} s")
    return Unreachable(f"{where}: no SSH connection: {error}")
