"""Makes SSH connections, through jump hosts too, and says in one sentence why one cannot be made.

Host keys are verified at every server on the way: an unknown or changed key is refused with the
command that fixes it, whatever StrictHostKeyChecking says. paramiko's SSHClient is not used: it
asks for one type of host key only and offers keys in an order of its own.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import paramiko

from device_agents.errors import ConfigError, DeviceError, Unreachable
from device_agents.transports._ssh_config import resolve
from device_agents.transports._ssh_login import log_in
from device_agents.transports._ssh_peer import Peer, why_not
from device_agents.transports._ssh_socket import Listened, ProxyCommand, tcp
from device_agents.transports._ssh_trust import check_host
from device_agents.transports._words import quote

if TYPE_CHECKING:
    from device_agents.api import DeviceDescription
    from device_agents.transports._ssh_config import Endpoint

# What goes wrong is raised here; without a handler Python would print paramiko's log as well.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_PROHIBITED = 1  # of a channel, by RFC 4254


class Connection:
    """An authenticated connection to the last server of a chain, which it holds."""

    def __init__(self, transport: paramiko.Transport, below: Connection | None) -> None:
        self.transport = transport
        self._below = below

    def close(self) -> None:
        """End the chain, from any thread; never raises."""
        # The way first: to say goodbye over a way that is stuck would take seconds.
        if self._below is not None:
            self._below.close()
        with suppress(Exception):
            self.transport.close()


def open_connection(device: DeviceDescription) -> Connection:
    """Connect; raises ConfigError, Unreachable, HostKeyError, AuthenticationFailed."""
    end = resolve(device)
    return _connected(end, f"device {device.name!r} at {end.host} port {end.port}", device)


def _connected(end: Endpoint, where: str, device: DeviceDescription) -> Connection:
    below = None
    if end.via is not None:
        jump = f"device {device.name!r}: jump host {end.via.alias} at {end.via.host} port"
        below = _connected(end.via, f"{jump} {end.via.port}", device)
    transport: Peer | None = None
    stream: Listened | None = None
    try:
        stream = _stream(end, where, below)
        transport = Peer(stream)  # type: ignore[arg-type]  # it needs what ByteStream has
        check_host(transport, end, where)
        log_in(transport, end, where)
        stream.guard(transport)
    except BaseException as error:
        for made in (transport, stream, below):
            if made is not None:
                made.close()
        raise _explained(error, end, where, stream, transport) from error
    return Connection(transport, below)


def _stream(end: Endpoint, where: str, below: Connection | None) -> Listened:
    if below is not None:
        try:
            channel = below.transport.open_channel(
                "direct-tcpip", (end.host, end.port), ("127.0.0.1", 0), timeout=end.timeout_s
            )
        except paramiko.ChannelException as error:
            if error.code == _PROHIBITED:
                raise Unreachable(
                    f"{where} cannot be reached: its jump host does not forward ({error.text}); "
                    "set `AllowTcpForwarding yes` in that one's sshd_config, and see PermitOpen"
                ) from error
            raise Unreachable(
                f"{where} cannot be reached from its jump host: {error.text}; is it switched on, "
                "and the address right?"
            ) from error
        return Listened(channel)
    if end.proxy_command:
        return Listened(ProxyCommand(end.proxy_command))
    try:
        return Listened(tcp(end.host, end.port, timeout_s=end.timeout_s))
    except ConnectionRefusedError as error:
        raise Unreachable(
            f"{where} refuses the connection; is its SSH server running, and is the port right?"
        ) from error
    except TimeoutError as error:
        raise Unreachable(
            f"{where} did not answer within {end.timeout_s:g} s; is it switched on and "
            "on this network?"
        ) from error
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unreachable(
            f"{where}: no such host ({reason}); correct `address` in its profile"
        ) from error
    except OSError as error:
        raise Unreachable(
            f"{where} cannot be reached: {error.strerror or error}; is this computer on the same "
            "network, and `address` in the profile right?"
        ) from error


def _explained(
    error: BaseException, end: Endpoint, where: str, stream: Listened | None, peer: Peer | None
) -> BaseException:
    """Return the error of our tree, one sentence, for what paramiko raised."""
    if isinstance(error, DeviceError | ConfigError) or not isinstance(error, Exception):
        return error
    opening = stream.opening if stream else b""
    said = quote(stream.said()) if stream and end.proxy_command else ""
    if end.proxy_command and (said or not opening):
        return Unreachable(
            f"{where}: no SSH connection through its ProxyCommand `{end.proxy_command}`: "
            f"{said or quote(str(error)) or 'it ended'}"
        )
    # paramiko's own limit of the handshake says of a silent server that it has hung up.
    hung_up = stream is None or stream.ended
    silent = isinstance(error, TimeoutError) or (isinstance(error, EOFError) and not hung_up)
    if silent and b"SSH-" in opening:
        return Unreachable(
            f"{where} did not answer within {end.timeout_s:g} s; is it busy, or the link slow? "
            "Raise `connect_timeout_s` in its profile"
        )
    reason = why_not(peer, opening, end) or (
        f"{quote(str(error)) or 'it was closed'}; see its SSH server's log"
    )
    return Unreachable(f"{where}: no SSH connection: {reason}")
