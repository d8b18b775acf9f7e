"""Servers that answer and let nobody in, agents that do not sign: the reason and fitting advice."""

from __future__ import annotations

import dataclasses
import re
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import paramiko
import pytest
from paramiko.agent import SSH2_AGENT_IDENTITIES_ANSWER, SSH2_AGENT_SIGN_RESPONSE

from device_agents import transports
from device_agents.care import doctor
from device_agents.errors import AuthenticationFailed, DeviceError, HostKeyError, Unreachable
from profiles.schema import DeviceProfile
from tests import lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the tests away from the keys, agent and configuration of whoever runs them."""
    path = tmp_path / "new home"
    path.mkdir()
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return path


def test_a_server_that_floods_in_place_of_its_version() -> None:
    with (
        answering(b"x" * 5_000_000) as device,
        pytest.raises(Unreachable, match=r"refuses, and says `x{200}…`; see"),
    ):
        transports.connect(dataclasses.replace(device, connect_timeout_s=60.0))


@contextmanager
def answering(said: bytes, *, closes: bool = True) -> Iterator[DeviceProfile]:
    """Listen, say something to whoever connects, and hang up."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(4)

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with suppress(OSError):
                    sock.sendall(said)
                if closes:
                    sock.close()
                else:
                    kept.append(sock)

        kept: list[socket.socket] = []
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            port = listener.getsockname()[1]
            yield DeviceProfile("pi", address="127.0.0.1", port=port, connect_timeout_s=1.0)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for sock in kept:
                sock.close()


@pytest.mark.parametrize(
    ("said", "closes", "words"),
    [
        (b"Not allowed at this time\r\n", True, r"says `Not allowed at this time`; .*PerSourcePen"),
        (b"Exceeded MaxStartups\r\n", True, r"says `Exceeded MaxStartups`; .*raise MaxStartups"),
        (b"Go \x1b[31maway; now\r\n", True, r"says `Go \[31maway, now`; see its SSH server's log"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", True, r"no SSH server .*HTTP/1\.1.*correct `port`"),
        (b"220 mail.example.org ESMTP\r\n", False, r"no SSH server answers there, but `220 mail"),
        (b"", True, r"says nothing; .*hosts\.deny"),
        (b"", False, r"says nothing; is port \d+ that of an SSH server"),
        (b"SSH-1.5-old\r\n", True, r"Incompatible version \(1\.5 instead of 2\.0\)"),
        (b"SSH-2.0-cut\r\n", True, r"see its SSH server's log"),
        (b"SSH-2.0-mute\r\n", False, r"did not answer within 1 s; is it busy"),
    ],
)
def test_the_words_of_a_server_that_refuses(said: bytes, *, closes: bool, words: str) -> None:
    with answering(said, closes=closes) as device:
        with pytest.raises(Unreachable, match=words) as caught:
            transports.connect(device)
        link, *_ = doctor.examine(device).checks
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert (link.name, link.status) == ("link", "fail")
    assert link.advice
    assert "switch" not in f"{caught.value} {link.advice}"


@pytest.mark.parametrize(
    ("option", "theirs", "ours"),
    [
        ("KexAlgorithms sntrup761x25519-sha512@openssh.com", "sntrup761", "curve25519"),
        ("Ciphers chacha20-poly1305@openssh.com", "chacha20-poly1305", "aes256-ctr"),
        ("MACs umac-128@openssh.com", "umac-128@openssh.com", "hmac-sha2-256"),
        ("HostKeyAlgorithms ssh-rsa", "ssh-rsa", "rsa-sha2-512"),
    ],
)
def test_no_common_algorithm(tmp_path: Path, option: str, theirs: str, ours: str) -> None:
    options = [option, *(["Ciphers aes128-ctr"] if option.startswith("MACs") else [])]
    with lab.loopback_ssh(tmp_path, host_keys=("rsa", "ed25519"), options=options) as server:
        with pytest.raises(Unreachable) as caught:
            transports.connect(server.profile("~"))
        link, *_ = doctor.examine(server.profile("~")).checks
    sentence = str(caught.value)
    assert re.search(f"the server offers .*{theirs}.*, this computer .*{ours}", sentence)
    assert option.split(maxsplit=1)[0] in link.advice
    assert "switch it on" not in link.advice


def test_the_users_word_admits_signatures_of_old_servers(tmp_path: Path) -> None:
    options = ["HostKeyAlgorithms ssh-rsa"]
    with lab.loopback_ssh(tmp_path, host_keys=("rsa",), options=options) as server:
        config = tmp_path / "config"
        changes: dict[str, Any] = {"ssh_config": str(config), "address": "board", "port": 0}
        device = server.profile("~", **changes)
        config.write_text(server.config_entry("board"))
        with pytest.raises(Unreachable, match=r"`HostKeyAlgorithms \+ssh-rsa` for this host"):
            transports.connect(device)
        config.write_text(server.config_entry("board", "HostKeyAlgorithms +ssh-rsa"))
        assert lab.works(device)
        # A key that is not the known one is refused all the same.
        other = lab.keygen(tmp_path / "other", kind="rsa").with_suffix(".pub")
        server.known_hosts.write_text(lab.host_line(server.port, other))
        with pytest.raises(HostKeyError, match="the host key has changed"):
            transports.connect(device)


def test_a_server_that_says_goodbye(tmp_path: Path) -> None:
    keys = [lab.keygen(tmp_path / f"key{number}") for number in range(4)]
    with lab.loopback_ssh(tmp_path, options=["MaxAuthTries 2"]) as server:
        config = tmp_path / "config"
        lines = [f"IdentityFile {key}" for key in keys]
        config.write_text("\n  ".join(["Host *", *lines]) + "\n")
        device = server.profile("~", identity_file="", ssh_config=str(config))
        with pytest.raises(AuthenticationFailed, match="saying `Too many authentication failures`"):
            transports.connect(device)


class Agent:
    """An SSH agent, by its protocol, that signs with some of its keys only."""

    def __init__(self, path: Path, keys: list[paramiko.PKey], signing: set[int]) -> None:
        self._keys, self._signing = keys, signing
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4)
        self.asked: list[int] = []
        self.silent = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(sock,), daemon=True).start()

    def _talk(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rwb") as stream:
            self._answer_all(cast("BinaryIO", stream))

    def _answer_all(self, stream: BinaryIO) -> None:
        while head := stream.read(4):
            message = paramiko.Message(stream.read(int.from_bytes(head, "big")))
            answer = self._answer(message)
            if answer:
                stream.write(len(answer).to_bytes(4, "big") + answer)
                stream.flush()

    def _answer(self, message: paramiko.Message) -> bytes:
        found = paramiko.Message()
        if message.get_byte() == b"\x0b":
            found.add_byte(bytes([SSH2_AGENT_IDENTITIES_ANSWER]))
            found.add_int(len(self._keys))
            for key in self._keys:
                found.add_string(key.asbytes())
                found.add_string("a comment")
            return found.asbytes()
        blob, data, flags = message.get_string(), message.get_string(), message.get_int()
        number = [key.asbytes() for key in self._keys].index(blob)
        self.asked.append(number)
        if number not in self._signing:
            return b"" if self.silent else b"\x05"
        algorithm = {4: "rsa-sha2-512", 2: "rsa-sha2-256"}.get(flags)
        found.add_byte(bytes([SSH2_AGENT_SIGN_RESPONSE]))
        found.add_string(self._keys[number].sign_ssh_data(data, algorithm).asbytes())
        return found.asbytes()

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "does not answer"])
def test_a_key_that_the_agent_does_not_sign_with_leaves_the_next_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, silent: bool
) -> None:
    files = [lab.keygen(tmp_path / f"a{kind}", kind=kind) for kind in ("rsa", "ed25519")]
    files.append(lab.keygen(tmp_path / "last"))
    keys = [paramiko.PKey.from_path(path) for path in files]
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    with lab.loopback_ssh(tmp_path) as server:
        lines = [path.with_suffix(".pub").read_text() for path in files]
        (tmp_path / "authorized_keys").write_text("".join(lines))
        device = server.profile("~", identity_file="", connect_timeout_s=1.0 if silent else 10.0)
        agent = Agent(tmp_path / "agent", keys, {2})
        agent.silent = silent
        assert lab.works(device)
        assert agent.asked == [0, 1, 2]
        agent._signing = set()
        with pytest.raises(
            AuthenticationFailed, match="would not sign with 3 of its 3 keys"
        ) as caught:
            transports.connect(device)
        assert "\n" not in str(caught.value)
        agent.close()


def advised(error: HostKeyError) -> str:
    found = re.search("run `([^`]+)`", str(error))
    assert found is not None, error
    return found[1]


def test_a_home_without_ssh_gets_it_by_the_advice(server: lab.LoopbackSsh, home: Path) -> None:
    device = server.profile("~", known_hosts="")
    with pytest.raises(HostKeyError) as caught:
        transports.connect(device)
    subprocess.run(["sh", "-c", advised(caught.value)], check=True, timeout=30, capture_output=True)
    assert (home / ".ssh").stat().st_mode & 0o777 == 0o700
    assert lab.works(device)


def test_dev_null_as_known_hosts(server: lab.LoopbackSsh, tmp_path: Path, home: Path) -> None:
    config = tmp_path / "config"
    own = server.config_entry("board", "UserKnownHostsFile /dev/null", "StrictHostKeyChecking no")
    config.write_text(own)
    config.write_text("Host *\n  UserKnownHostsFile /dev/null\n")
    device = server.profile("~", known_hosts="", ssh_config=str(config))
    with pytest.raises(HostKeyError, match="since /dev/null keeps no key") as caught:
        transports.connect(device)
    setting = re.search(r'set `known_hosts = "([^"]+)"` in the profile', str(caught.value))
    assert setting is not None
    assert ">> /dev/null" not in str(caught.value)
    subprocess.run(["sh", "-c", advised(caught.value)], check=True, timeout=30, capture_output=True)
    assert lab.works(server.profile("~", known_hosts=setting[1], ssh_config=str(config)))
    assert (home / ".ssh/known_hosts").is_file()
    # Of a jump host the profile says nothing.
    config.write_text(f"{own}Host end\n  HostName 127.0.0.1\n  ProxyJump board\n")
    words = "set `UserKnownHostsFile ~/.ssh/known_hosts` for it in the SSH configuration.*connect"
    with pytest.raises(HostKeyError, match=words):
        transports.connect(DeviceProfile("pi", address="end", ssh_config=str(config)))


@pytest.mark.parametrize("name", ["a blank", "two  blanks"])
def test_paths_with_blanks_are_whole(server: lab.LoopbackSsh, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "the hosts").write_text(server.host_line())
    (folder / "key").write_bytes(server.identity.read_bytes())
    (folder / "key").chmod(0o600)
    (folder / "in here").write_text(f"Host board\n  HostName 127.0.0.1\n  Port {server.port}\n")
    config = tmp_path / "config"
    config.write_text(
        f'Include "{folder}/in here"\nHost *\n  IdentityFile "{folder}/key"\n  IdentitiesOnly yes\n'
        f'  UserKnownHostsFile /dev/null "{folder}/the hosts"\n'
    )
    device = DeviceProfile("pi", address="board", ssh_config=str(config))
    assert lab.works(device)
    assert (
        subprocess.run(
            ["ssh", "-F", config, "board", "true"], check=False, timeout=30, capture_output=True
        ).returncode
        == 0
    )


def test_names_of_keys_in_paths(server: lab.LoopbackSsh, tmp_path: Path, home: Path) -> None:
    folder = home / ".ssh" / "hosts"
    folder.mkdir(parents=True)
    (folder / "board").write_text(server.host_line())
    config = tmp_path / "config"
    config.write_text(f"Host *\n  UserKnownHostsFile {folder}/%k\n" + server.config_entry("board"))
    device = DeviceProfile("pi", address="board", ssh_config=str(config))
    assert lab.works(device)
    (folder / "board").rename(folder / "alias")
    (folder / "alias").write_text("alias " + server.host_line().partition(" ")[2])
    config.write_text(f"Host board\n  HostKeyAlias Alias\n{config.read_text()}")
    assert lab.works(device)


def test_other_kinds_of_errors_have_one_sentence(server: lab.LoopbackSsh, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(DeviceError, match="keeps no key and keys are always verified"):
        transports.connect(server.profile("~", known_hosts=str(folder)))
