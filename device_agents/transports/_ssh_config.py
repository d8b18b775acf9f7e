"""Where a device's SSH address leads: its profile, over the user's SSH configuration.

`ssh -G` reads the configuration, so that aliases, patterns, Match, Include and tokens mean exactly
what they mean to `ssh`, and nothing is run (`Match exec`) that `ssh` itself would not run. Without
a configuration file no SSH program is needed. Values of the profile win, as options on the command
line of `ssh` do. The system's ssh_config is not read.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.transports._ssh_settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from device_agents.api import DeviceDescription

_JUMPS_LIMIT = 8
_USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
# Both come to stand in a ProxyCommand, which a shell runs; newer versions of `ssh` refuse the same.
_ADDRESS = re.compile(r"""(?!-)[^\s@/\\'"`$;&<>|(){}\x00-\x1f]+""")
_USER = re.compile(r"""(?!-)[^\s'"`$;&<>|(){}\x00-\x1f]*""")
_HOP = re.compile(r"(?:ssh://)?(?:([^@]+)@)?(\[[^\]]+\]|[^:]+)(?::(\d+))?/?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One SSH server on the way, with all that is needed to reach it and to trust it.

    Attributes:
        alias: what the user calls it; `ssh alias` reaches it, with `options` before it.
        options: options that give `ssh` what the profile says.
        host: name or address to connect to, as its last jump host sees it.
        key_name: its name in known_hosts.
        plain_name: the name without its port, which counts for keys that match, as for `ssh`.
        known_hosts: files of host keys; a new key belongs into the first.
        identity_files: private keys, or public ones whose private half the agent holds.
        only_identities: no other key of the agent is offered.
        agent: socket of the SSH agent; empty for none.
        old_rsa: host keys that sign with SHA-1 are taken, as the user says.
        own: it is the device itself, to which its profile applies.
        proxy_command: shell command whose stdin and stdout are the connection; empty for none.
        via: the server that forwards the connection; None when it is reached directly.
        timeout_s: deadline of each step of connecting.
    """

    alias: str
    options: tuple[str, ...]
    host: str
    port: int
    user: str
    key_name: str
    plain_name: str
    known_hosts: tuple[Path, ...]
    identity_files: tuple[Path, ...]
    only_identities: bool
    agent: str
    old_rsa: bool
    own: bool
    proxy_command: str
    via: Endpoint | None
    timeout_s: float

    @property
    def direct(self) -> bool:
        """Whether a plain TCP connection reaches it, so that ssh-keyscan does too."""
        return self.via is None and not self.proxy_command


@dataclass(frozen=True, slots=True)
class _Asked:
    """What stands on the command line of `ssh`, so to speak."""

    alias: str
    user: str
    port: int
    timeout_s: float


def resolve(device: DeviceDescription) -> Endpoint:
    """Return the device's server; raises ConfigError naming the file and the line, or the key."""
    if not device.address:
        raise ConfigError(
            f'device {device.name!r} has no address; add `address = "…"` to a profile of your own '
            f'that says `extends = "{device.name}"`'
        )
    if not _ADDRESS.fullmatch(device.address):
        raise ConfigError(
            f"device {device.name!r}: address {device.address!r} is not a host name, an address "
            "or an alias of the SSH configuration; the user belongs into `user` of its profile "
            "and the port into `port`"
        )
    if not _USER.fullmatch(device.user):
        raise ConfigError(
            f"device {device.name!r}: user {device.user!r} is no login name; correct `user` in its "
            "profile"
        )
    asked = _Asked(device.address, device.user, device.port, device.connect_timeout_s)
    return _Resolver(device).endpoint(asked, own=True)


class _Resolver:
    """Resolves a device and its jump hosts against one configuration file."""

    def __init__(self, device: DeviceDescription) -> None:
        self._device = device
        self._config = _config_file(device)

    def endpoint(
        self,
        asked: _Asked,
        *,
        own: bool = False,
        via: Endpoint | None = None,
        depth: int = 0,
    ) -> Endpoint:
        """Resolve one server; `own` is the device itself, to which alone the profile applies."""
        if depth > _JUMPS_LIMIT:
            raise ConfigError(
                f"device {self._device.name!r}: {self._config} leads through more than "
                f"{_JUMPS_LIMIT} jump hosts; does a ProxyJump lead back to itself?"
            )
        settings = self._settings(asked)
        host, port = settings.one("hostname", asked.alias), int(settings.one("port", "22"))
        user = settings.one("user", getpass.getuser())
        tokens = _tokens(asked.alias, host=host, port=port, user=user)
        tokens["%k"] = settings.one("hostkeyalias", asked.alias)
        jumps = tokens["%j"] = settings.one("proxyjump")
        if via is None and jumps:
            via = self._hops(jumps.split(","), asked, depth)
        command = "" if via else settings.one("proxycommand")
        alias_of_key = settings.one("hostkeyalias").lower()
        plain = alias_of_key or host.lower()
        return Endpoint(
            alias=asked.alias,
            options=self._options(asked, own=own),
            host=host,
            port=port,
            user=user,
            key_name=plain if alias_of_key or port == 22 else f"[{plain}]:{port}",
            plain_name=plain,
            known_hosts=self._known_hosts(settings, tokens, own=own),
            identity_files=self._identity_files(settings, tokens, own=own),
            only_identities=bool(own and self._device.identity_file)
            or settings.one("identitiesonly") == "yes",
            agent=_agent_socket(settings.all("identityagent"), tokens),
            old_rsa="ssh-rsa" in settings.one("hostkeyalgorithms").split(","),
            own=own,
            proxy_command=_with_tokens(command, tokens),
            via=via,
            timeout_s=max(asked.timeout_s, _seconds(settings.one("connecttimeout"))),
        )

    def _settings(self, asked: _Asked) -> Settings:
        if self._config is None:
            said = {"user": [asked.user], "port": [str(asked.port or 22)]}
            return Settings({key: value for key, value in said.items() if value[0]})
        flags = ["-F", str(self._config), *_flags(asked)]
        return read_settings(self._device.name, self._config, flags, asked.alias)

    def _hops(self, hops: Sequence[str], asked: _Asked, depth: int) -> Endpoint:
        via: Endpoint | None = None
        for text in hops:
            found = _HOP.fullmatch(text.strip())
            if found is None or found[2].startswith("-"):
                raise ConfigError(
                    f"device {self._device.name!r}: {self._config}: ProxyJump {text!r} for "
                    f"{asked.alias!r} is not [user@]host[:port]; correct it there"
                )
            user, host, port = found[1] or "", found[2].strip("[]"), int(found[3] or 0)
            hop = _Asked(host, user, port, asked.timeout_s)
            via = self.endpoint(hop, via=via, depth=depth + 1)
        if via is None:
            raise ConfigError(f"{self._config}: ProxyJump for {asked.alias!r} is empty")
        return via

    def _options(self, asked: _Asked, *, own: bool) -> tuple[str, ...]:
        options = _flags(asked)
        if self._device.ssh_config:
            options = ["-F", self._device.ssh_config, *options]
        if own and self._device.identity_file:
            options += ["-i", self._device.identity_file]
        if own and self._device.known_hosts:
            options += ["-o", f'UserKnownHostsFile="{self._device.known_hosts}"']
        return tuple(options)

    def _known_hosts(
        self, settings: Settings, tokens: Mapping[str, str], *, own: bool
    ) -> tuple[Path, ...]:
        home = Path("~").expanduser() / ".ssh"
        usual = [f"{home}/known_hosts", f"{home}/known_hosts2"]
        common = settings.paths("globalknownhostsfile", _GLOBAL_KNOWN_HOSTS)
        if own and self._device.known_hosts:
            users: Sequence[str] = [self._device.known_hosts]
        else:
            users = settings.paths("userknownhostsfile", usual)
        return tuple(Path(_expanded(text, tokens)) for text in [*users, *common])

    def _identity_files(
        self, settings: Settings, tokens: Mapping[str, str], *, own: bool
    ) -> tuple[Path, ...]:
        if own and self._device.identity_file:
            path = Path(self._device.identity_file).expanduser()
            if not bounded.is_file(path):
                raise ConfigError(
                    f"device {self._device.name!r}: there is no key "
                    f"{self._device.identity_file!r}; correct `identity_file` in its profile"
                )
            return (path,)
        usual = [f"~/.ssh/{name}" for name in _USUAL_KEYS]
        texts = settings.all("identityfile") or usual
        paths = (Path(_expanded(text, tokens)) for text in texts if text != "none")
        return tuple(path for path in paths if bounded.is_file(path))


def _config_file(device: DeviceDescription) -> Path | None:
    path = Path(device.ssh_config or "~/.ssh/config").expanduser()
    if not device.ssh_config and not bounded.is_file(path):
        return None
    try:
        with bounded.open_file(path, limit_bytes=bounded.TEXT_BYTES):
            return path
    except bounded.Unreadable as error:
        said = f"the SSH configuration {path} cannot be read: {error.reason}"
        if error.missing:
            said = f"there is no SSH configuration {device.ssh_config!r}"
        todo = "correct `ssh_config` in its profile" if device.ssh_config else "mend that"
        raise ConfigError(f"device {device.name!r}: {said}; {todo}") from error


def _flags(asked: _Asked) -> list[str]:
    port = ["-p", str(asked.port)] if asked.port else []
    return [*port, *(["-l", asked.user] if asked.user else [])]


def _tokens(alias: str, *, host: str, port: int, user: str) -> dict[str, str]:
    return {
        "%%": "%",
        "%h": host,
        "%n": alias,
        "%p": str(port),
        "%r": user,
        "%u": getpass.getuser(),
        "%d": str(Path("~").expanduser()),
        "%i": str(os.getuid()),
        "%l": socket.gethostname(),
        "%L": socket.gethostname().partition(".")[0],
    }


def _expanded(text: str, tokens: Mapping[str, str]) -> str:
    """Expand `~`, `${NAME}` and tokens such as `%h`, as ssh_config(5) says."""
    if text.startswith("~"):
        text = str(Path(text).expanduser())
    text = re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], ""), text)
    return _with_tokens(text, tokens)


def _with_tokens(text: str, tokens: Mapping[str, str]) -> str:
    """Expand tokens alone; of a command the shell expands the rest."""
    return re.sub(r"%.", lambda found: tokens.get(found[0], found[0]), text)


def _agent_socket(settings: Sequence[str], tokens: Mapping[str, str]) -> str:
    setting = settings[0] if settings else "SSH_AUTH_SOCK"
    if setting == "none":
        return ""
    if setting == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK", "")
    if setting.startswith("$"):
        return os.environ.get(setting.strip("${}"), "")
    return _expanded(setting, tokens)


def _seconds(text: str) -> float:
    return float(text) if text.isdecimal() else 0.0
