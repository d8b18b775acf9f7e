"""Makes SSH connections, through jump hosts too, and says in one sentence why one cannot be made.

Host keys are verified at every server on the way: an unknown or changed key is refused with the
command that fixes it, whatever StrictHostKeyChecking says. paramiko's SSHClient is not used: it
asks for one type of host key only and offers keys in an order of its own.
"""

from __future__ import annotations

import base64
import binascii
import logging
import shlex
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
from paramiko.pkey import UnknownKeyType

from device_agents import bounded
from device_agents.errors import (
    AuthenticationFailed,
    ConfigError,
    DeviceError,
    HostKeyError,
    Unreachable,
)
from device_agents.transports import _ssh_hosts
from device_agents.transports._ssh_agent import Agent
from device_agents.transports._ssh_config import resolve
from device_agents.transports._ssh_peer import Peer, why_not
from device_agents.transports._ssh_socket import Listened, ProxyCommand, tcp
from device_agents.transports._words import quotable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from device_agents.api import DeviceDescription
    from device_agents.transports._ssh_config import Endpoint

# What goes wrong is raised here; without a handler Python would print paramiko's log as well.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_PROHIBITED = 1  # of a channel, by RFC 4254
_USUAL_KNOWN_HOSTS = "~/.ssh/known_hosts"


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


def connected(device: DeviceDescription) -> Connection:
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
        _check_host(transport, end, where)
        _log_in(transport, end, where)
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


def _check_host(transport: Peer, end: Endpoint, where: str) -> None:
    keys = _ssh_hosts.read(end.known_hosts)
    options = transport.get_security_options()
    # Of several keys the server shows the one that is asked for first.
    wanted = _ssh_hosts.algorithms(keys, (end.key_name, end.plain_name))
    first = [name for name in wanted if name in options.key_types]
    options.key_types = [*first, *(name for name in options.key_types if name not in first)]
    if end.old_rsa:
        options.key_types = [*options.key_types, "ssh-rsa"]
    transport.banner_timeout = transport.handshake_timeout = end.timeout_s
    transport.channel_timeout = end.timeout_s
    # The agent has the same limit, and comes first.
    transport.auth_timeout = 2 * end.timeout_s + 1
    transport.start_client(timeout=end.timeout_s)
    if not transport.initial_kex_done:  # it returns at its timeout as well
        raise TimeoutError
    shown = transport.get_remote_server_key()
    kind, blob = shown.get_name(), shown.asbytes()
    verdict, line = _ssh_hosts.judge(keys, end.key_name, end.plain_name, kind=kind, blob=blob)
    found = _ssh_hosts.fingerprint(blob)
    file = end.known_hosts[0]
    if verdict == "unknown":
        raise HostKeyError(
            f"{where}: its host key is not in {file}; check on the device that its {kind} "
            f"fingerprint is {found}, then {_advice(end)}"
        )
    if verdict == "changed" and line is not None:
        remove = shlex.join(["ssh-keygen", "-R", end.key_name, "-f", str(line.file)])
        raise HostKeyError(
            f"{where}: the host key has changed: it is now {found}, {line.file} line {line.line} "
            f"has {_ssh_hosts.fingerprint(line.blob)}; if the device was reinstalled, "
            f"run `{remove}` and {_advice(end)}, otherwise do not connect"
        )
    if verdict == "revoked" and line is not None:
        raise HostKeyError(
            f"{where}: the host key {found} is marked as revoked in {line.file} line {line.line}; "
            "do not connect"
        )


def _advice(end: Endpoint) -> str:
    """Say how the key gets into the file; ssh-keyscan neither jumps nor knows aliases of keys."""
    file = end.known_hosts[0]
    keeps = file.is_file() or not file.exists()
    first = "" if keeps else _other_file(end, file)
    if end.direct and end.plain_name == end.host.lower() and (keeps or end.own):
        if not keeps:
            file = Path(_USUAL_KNOWN_HOSTS).expanduser()
        scan = f"ssh-keyscan -p {end.port} {shlex.quote(end.host)} >> {shlex.quote(str(file))}"
        if not file.parent.exists():
            scan = f"mkdir -p -m 700 {shlex.quote(str(file.parent))} && {scan}"
        return f"{first}run `{scan}`"
    command = shlex.join(["ssh", *end.options, end.alias])
    return f"{first}connect once with `{command}`, which shows it too and asks"


def _other_file(end: Endpoint, file: Path) -> str:
    """Say where to name a file in place of one that keeps nothing, such as /dev/null."""
    wanted = f'`known_hosts = "{_USUAL_KNOWN_HOSTS}"` in the profile'
    if not end.own:
        wanted = f"`UserKnownHostsFile {_USUAL_KNOWN_HOSTS}` for it in the SSH configuration"
    return f"set {wanted}, since {file} keeps no key and keys are always verified, and "


def _log_in(transport: Peer, end: Endpoint, where: str) -> None:
    unusable: list[str] = []
    keys = _Keys(end, unusable)
    tried = 0
    try:
        for key in keys:
            tried += 1
            try:
                more = transport.auth_publickey(end.user, key)
            except paramiko.BadAuthenticationType as error:
                raise AuthenticationFailed(
                    f"{where} takes no keys, only {', '.join(error.allowed_types)}; "
                    "allow PubkeyAuthentication in its sshd_config"
                ) from error
            except paramiko.AuthenticationException as error:
                if "timeout" in str(error):
                    raise TimeoutError from error
                if transport.is_active():
                    continue
                break
            if not more:
                return
            raise AuthenticationFailed(
                f"{where} asks for {' and '.join(more)} besides the key, which cannot be answered "
                "here; allow the key alone for this user"
            )
    finally:
        keys.close()
    if unusable and not tried:
        raise AuthenticationFailed(
            f"{where}: {unusable[0]}" + (f" (and {len(unusable) - 1} more)" if unusable[1:] else "")
        )
    files = ", ".join(map(str, end.identity_files))
    offered = files if end.only_identities else f"any key of the SSH agent or {files or '~/.ssh'}"
    refused = sum(key.refused for key in keys.from_agent)
    if refused:
        offered += (
            f" (the SSH agent would not sign with {refused} of its {len(keys.from_agent)} keys: "
            "is a security key to be plugged in, or a question of its to be answered?)"
        )
    if tried and not transport.is_active():
        last = f", saying `{quotable(transport.last_words)}`" if transport.last_words else ""
        offered += f" and ended the connection after {tried} keys{last}"
    raise AuthenticationFailed(
        f"{where} refuses user {end.user!r} with {offered}; run `{_copy_id(end)}` or correct "
        "`user` and `identity_file` in the profile"
    )


def _copy_id(end: Endpoint) -> str:
    if end.direct and end.alias == end.host:
        target, options = end.host, ["-p", str(end.port)]
    else:
        target, options = end.alias, [o for o in end.options if o not in ("-l", end.user)]
    return shlex.join(["ssh-copy-id", *options, f"{end.user}@{target}"])


class _Keys:
    """The keys to offer, in order: named ones from file or agent, then the rest of the agent.

    Files that give no key are noted in `unusable`, a sentence each.
    """

    def __init__(self, end: Endpoint, unusable: list[str]) -> None:
        self._end = end
        self._unusable = unusable
        self._agent = Agent(end.agent, timeout_s=end.timeout_s)

        self.from_agent = self._agent.keys()

    def __iter__(self) -> Iterator[paramiko.PKey]:
        held = {key.asbytes(): key for key in self.from_agent}
        for path in self._end.identity_files:
            from_agent = held.pop(_public_blob(path), None)
            key = from_agent or self._read(path)
            if key is not None:
                yield key
        if not self._end.only_identities:
            yield from held.values()

    def _read(self, path: Path) -> paramiko.PKey | None:
        quoted = shlex.quote(str(path))
        try:
            _check_sizes(path)
            return paramiko.PKey.from_path(path)
        except (TypeError, paramiko.PasswordRequiredException):
            self._unusable.append(
                f"the key {path} needs a passphrase; run `ssh-add {quoted}`, so that the SSH "
                f"agent holds it, and keep {path.name}.pub beside it"
            )
        except bounded.Unreadable as error:
            self._unusable.append(
                f"the key {path} cannot be used: {error}; correct `identity_file` in the profile"
            )
        except (ValueError, OSError, paramiko.SSHException, UnknownKeyType) as error:
            reason = getattr(error, "strerror", None) or "no private key of a known form"
            self._unusable.append(
                f"the key {path} cannot be read ({reason}); correct `identity_file` in the profile"
            )
        return None

    def close(self) -> None:
        """End the connection to the agent."""
        self._agent.close()


def _public_blob(path: Path) -> bytes:
    """Return the public half of a key from its own file or the one beside it."""
    public = path if path.suffix == ".pub" else path.with_name(f"{path.name}.pub")
    with suppress(bounded.Unreadable, IndexError, binascii.Error):
        text = bounded.read_text(public, limit_bytes=bounded.TEXT_BYTES)
        return base64.b64decode(text.split()[1])
    return b""


def _check_sizes(path: Path) -> None:
    """Raise Unreadable for what paramiko would read without end: a key, or its certificate."""
    with bounded.opened(path, limit_bytes=bounded.TEXT_BYTES):
        certificate = path.with_name(f"{path.name}-cert.pub")
    if certificate.exists():
        with bounded.opened(certificate, limit_bytes=bounded.TEXT_BYTES):
            pass


def _explained(
    error: BaseException, end: Endpoint, where: str, stream: Listened | None, peer: Peer | None
) -> BaseException:
    """Return the error of our tree, one sentence, for what paramiko raised."""
    if isinstance(error, DeviceError | ConfigError) or not isinstance(error, Exception):
        return error
    opening = stream.opening if stream else b""
    said = quotable(stream.said()) if stream and end.proxy_command else ""
    if end.proxy_command and (said or not opening):
        return Unreachable(
            f"{where}: no SSH connection through its ProxyCommand `{end.proxy_command}`: "
            f"{said or quotable(str(error)) or 'it ended'}"
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
        f"{quotable(str(error)) or 'it was closed'}; see its SSH server's log"
    )
    return Unreachable(f"{where}: no SSH connection: {reason}")
