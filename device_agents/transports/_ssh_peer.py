"""Why an SSH server that answers lets nobody in: its own words, and what both sides can do.

paramiko keeps neither the lines that a server writes in place of its version, nor the text with
which it ends a connection, nor what it offers where no algorithm is common to both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import paramiko
from cryptography.hazmat.primitives import hashes

from device_agents.transports._words import quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from device_agents.transports._ssh_config import Endpoint

# Kind of algorithm, paramiko's name for what the server offers, the option of sshd_config.
_KINDS = (
    ("key exchange", "kex_algo_list", "kex", "KexAlgorithms"),
    ("host keys", "server_key_algo_list", "key_types", "HostKeyAlgorithms"),
    ("ciphers", "server_encrypt_algo_list", "ciphers", "Ciphers"),
    ("checksums", "server_mac_algo_list", "digests", "MACs"),
)
# What servers write in place of their version: what can be done.
_REFUSALS = {
    "Not allowed at this time": "it shuts out this computer for a while after failed log-ins "
    "(PerSourcePenalties in its sshd_config): wait some minutes, and mend the key or user that "
    "failed",
    "MaxStartups": "too many connections there wait to log in: wait a minute, or raise MaxStartups "
    "in its sshd_config",
}


class Sha1RsaKey(paramiko.RSAKey):
    """A host key whose server signs with SHA-1, which is taken only where the user says so."""

    HASHES = {"ssh-rsa": hashes.SHA1}  # type: ignore[misc]  # noqa: RUF012


class Peer(paramiko.Transport):
    """paramiko's connection, which remembers what the server offered and said at the end."""

    _key_info: ClassVar[dict[str, Any]] = {
        **paramiko.Transport._key_info,  # type: ignore[attr-defined]  # noqa: SLF001
        "ssh-rsa": Sha1RsaKey,
    }
    offered: Mapping[str, Sequence[str]] | None = None
    last_words: str = ""

    def _really_parse_kex_init(self, m: Any, *args: Any, **kwargs: Any) -> Any:
        parsed = super()._really_parse_kex_init(m, *args, **kwargs)  # type: ignore[misc]
        # paramiko takes words out of its lists.
        self.offered = {key: tuple(value) for key, value in parsed.items() if "_list" in key}
        return parsed

    def _parse_disconnect(self, m: Any) -> None:
        m.get_int()  # the reason as a number
        self.last_words = m.get_text()


def why_not(peer: Peer | None, opening: bytes, end: Endpoint) -> str:
    """Return why no connection came about and what to do; empty when the server gave no reason.

    `opening` is what the server wrote first.
    """
    if opening.strip() and b"SSH-" not in opening:
        said = quote(opening)
        # Other services greet, too: HTTP, and mail by a number.
        if opening.startswith((b"HTTP", b"2", b"4", b"5")):
            return f"no SSH server answers there, but `{said}`; correct `port` in the profile"
        advice = next((advice for word, advice in _REFUSALS.items() if word in said), "")
        default = "see its SSH server's log, or correct `port` if that is none"
        return f"the server refuses, and says `{said}`; {advice or default}"
    if peer is not None and peer.offered is not None:
        unlike = _unlike(peer, peer.offered)
        if unlike:
            return unlike
    if peer is not None and peer.last_words:
        said = quote(peer.last_words)
        return f"the server ended the connection and says `{said}`; see its SSH server's log"
    if not opening:
        return (
            f"something listens there and says nothing; is port {end.port} that of an SSH server, "
            "and may this computer connect (see its log, /etc/hosts.deny, fail2ban)?"
        )
    return ""


def _unlike(peer: Peer, offered: Mapping[str, Sequence[str]]) -> str:
    """Return the kind of algorithm of which the two sides have none in common."""
    options = peer.get_security_options()
    for words, theirs_key, ours_key, option in _KINDS:
        theirs, ours = offered.get(theirs_key, ()), getattr(options, ours_key)
        if set(theirs) & set(ours):
            continue
        found = (
            f"no {words} are common to both: the server offers {_listed(theirs)}, this computer "
            f"{_listed(ours)}"
        )
        if option == "HostKeyAlgorithms" and "ssh-rsa" in theirs:
            return (
                f"{found}; update the SSH server there, or allow its old signatures with "
                "`HostKeyAlgorithms +ssh-rsa` for this host in your SSH configuration"
            )
        return (
            f"{found}; allow one of the latter with `{option}` in its sshd_config, or update the "
            "SSH server there"
        )
    return ""


def _listed(names: Sequence[str]) -> str:
    return quote(", ".join(names), limit=400)
