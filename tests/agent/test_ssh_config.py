"""The user's SSH configuration, jump hosts and known_hosts, with real servers and the real ssh."""

from __future__ import annotations

import base64
import dataclasses
import getpass
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from device_agents import transports
from device_agents.errors import AuthenticationFailed, ConfigError, HostKeyError, Unreachable
from device_agents.transports import _ssh_hosts, _ssh_settings
from device_agents.transports._ssh_config import resolve
from profiles.schema import DeviceProfile
from tests import lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the tests away from the keys, agent and configuration of whoever runs them."""
    path = tmp_path / "home"
    (path / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return path


@pytest.fixture(scope="module")
def hop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.LoopbackSsh]:
    with lab.loopback_ssh(tmp_path_factory.mktemp("hop")) as running:
        yield running


@pytest.fixture(scope="module")
def second_hop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.LoopbackSsh]:
    with lab.loopback_ssh(tmp_path_factory.mktemp("hop2")) as running:
        yield running


@pytest.fixture(scope="module")
def both_kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.LoopbackSsh]:
    folder = tmp_path_factory.mktemp("rsa")
    with lab.loopback_ssh(folder, host_keys=("rsa", "ed25519")) as running:
        yield running


def profile(config: Path, text: str, **changes: Any) -> DeviceProfile:
    config.write_text(text)
    values = {"address": "board", "python": sys.executable, "ssh_config": str(config)}
    return DeviceProfile("pi", **{**values, **changes})


def test_alias_of_the_users_own_file(server: lab.LoopbackSsh, home: Path) -> None:
    (home / ".ssh/config").write_text(server.config_entry("board"))
    assert lab.works(DeviceProfile("pi", address="board"))


def test_without_a_file_no_ssh_program_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    end = resolve(DeviceProfile("pi", address="pi.lan"))
    assert (end.host, end.port, end.user) == ("pi.lan", 22, getpass.getuser())
    assert (end.key_name, end.via, end.proxy_command) == ("pi.lan", None, "")


def test_with_a_file_a_missing_ssh_program_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = profile(tmp_path / "config", "Host board\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="needs the program ssh; install the OpenSSH client"):
        resolve(device)


def test_the_profile_wins_over_the_file(tmp_path: Path, home: Path) -> None:
    text = "Host board\n  Port 2222\n  User filed\n  ConnectTimeout 30\n  HostName 192.0.2.1\n"
    end = resolve(profile(tmp_path / "config", text))
    assert (end.host, end.port, end.user, end.timeout_s) == ("192.0.2.1", 2222, "filed", 30.0)
    assert end.key_name == "[192.0.2.1]:2222"
    key = lab.keygen(tmp_path / "key")
    changes = {"port": 8022, "user": "own", "identity_file": str(key), "known_hosts": "~/mine"}
    end = resolve(profile(tmp_path / "config", text, **changes))
    assert (end.port, end.user, end.identity_files) == (8022, "own", (key,))
    assert end.known_hosts[0] == home / "mine"
    assert end.only_identities


def test_include_match_and_tokens_mean_what_they_mean_to_ssh(tmp_path: Path, home: Path) -> None:
    keys = [lab.keygen(home / ".ssh" / name) for name in ("id_board", "my key")]
    (tmp_path / "more").write_text("Host board\n  HostName 192.0.2.7\n")
    text = f"""
Include {tmp_path}/more
Match host 192.0.2.7 exec "test -d {tmp_path}"
  User matched
Match exec "false"
  Port 1
Host b*d !other
  IdentityFile %d/.ssh/id_%n
  IdentityFile "~/.ssh/my key"
  IdentityFile ~/.ssh/not_there
  UserKnownHostsFile {home}/.ssh/known_%h
  HostKeyAlias Alias
  IdentitiesOnly yes
  ProxyCommand run %h %p %r %%
"""
    end = resolve(profile(tmp_path / "config", text))
    assert (end.host, end.user, end.port) == ("192.0.2.7", "matched", 22)
    assert end.identity_files == tuple(keys)
    assert end.known_hosts[0] == home / ".ssh/known_192.0.2.7"
    assert end.key_name == "alias"
    assert end.proxy_command == "run 192.0.2.7 22 matched %"
    assert not end.direct


def test_broken_file_is_named_with_its_line(tmp_path: Path) -> None:
    device = profile(tmp_path / "config", "Host board\n  Portt 22\n")
    with pytest.raises(ConfigError, match=rf"{tmp_path}/config.*line 2: .*portt") as caught:
        resolve(device)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"no SSH configuration '/no/such' *; correct"):
        resolve(DeviceProfile("pi", address="board", ssh_config="/no/such"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pipe", "it is a pipe or a device"),
        ("endless", "it is a pipe or a device"),
        ("folder", "it is a folder"),
        ("huge", "it has more than 16777216 bytes"),
    ],
)
def test_what_has_no_end_is_neither_a_configuration_nor_host_keys(
    tmp_path: Path, name: str, said: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    device = DeviceProfile("pi", address="board", ssh_config=str(tmp_path / name))
    with pytest.raises(ConfigError, match=rf"{name} cannot be read: {said}.*correct `ssh_config`"):
        resolve(device)
    if name == "huge":
        with pytest.raises(ConfigError, match=rf"host keys in .*{name} cannot be read: {said}"):
            _ssh_hosts.read([tmp_path / name])
    else:  # as with /dev/null, there are none
        assert _ssh_hosts.read([tmp_path / name]) == []


def test_condition_that_hangs_has_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ssh_settings, "_READ_TIMEOUT_S", 0.3)
    with pytest.raises(ConfigError, match=r"does a `Match exec` in .*config hang"):
        resolve(profile(tmp_path / "config", 'Match exec "exec sleep 5"\n'))


@pytest.mark.parametrize(
    "address", ["pi@host", "-oProxyCommand=touch it", "a b", "$(touch${IFS}it)", "x;y", "ssh:/"]
)
def test_address_that_is_none_is_refused(address: str, tmp_path: Path) -> None:
    device = profile(tmp_path / "config", "Host *\n  ProxyCommand echo %h\n", address=address)
    with pytest.raises(ConfigError, match="is not a host name, an address or an alias"):
        resolve(device)


@pytest.mark.parametrize("user", ["-oProxyCommand=touch it", "a b", "$(touch it)", "x;y"])
def test_user_that_is_none_is_refused(user: str) -> None:
    with pytest.raises(ConfigError, match="is no login name; correct `user`"):
        resolve(DeviceProfile("pi", address="pi", user=user))


def test_one_jump_host(server: lab.LoopbackSsh, hop: lab.LoopbackSsh, tmp_path: Path) -> None:
    text = server.config_entry("board", "ProxyJump gate") + hop.config_entry("gate")
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3_000_000))
    transport = transports.connect(profile(tmp_path / "config", text))
    # What the server sees as its client is the jump host; here both are this computer.
    said = transport.run(["sh", "-c", "echo $SSH_CONNECTION"], timeout_s=20).stdout.split()
    assert said[3] == str(server.port).encode()
    assert len(hop.sessions()) == 1
    transport.put(str(source), str(tmp_path / "there"))
    transport.get(str(tmp_path / "there"), str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    transport.close()


def test_several_jump_hosts_and_one_with_its_own(
    server: lab.LoopbackSsh, hop: lab.LoopbackSsh, second_hop: lab.LoopbackSsh, tmp_path: Path
) -> None:
    text = hop.config_entry("gate") + second_hop.config_entry("inner")
    config = tmp_path / "config"
    assert lab.works(profile(config, text + server.config_entry("board", "ProxyJump gate,inner")))
    text = hop.config_entry("gate") + second_hop.config_entry("inner", "ProxyJump gate")
    user = getpass.getuser()
    jump = f"ProxyJump {user}@inner:{second_hop.port}"
    assert lab.works(profile(config, text + server.config_entry("board", jump)))


def test_every_hop_is_verified(
    server: lab.LoopbackSsh, hop: lab.LoopbackSsh, tmp_path: Path
) -> None:
    nothing = f"UserKnownHostsFile {tmp_path}/none"
    unsafe = "StrictHostKeyChecking no"
    own = server.config_entry("board", "ProxyJump gate")
    device = profile(tmp_path / "config", own + hop.config_entry("gate", nothing, unsafe))
    with pytest.raises(HostKeyError, match=r"'pi': jump host gate at .*not in .*ssh-keyscan"):
        transports.connect(device)
    own = server.config_entry("board", "ProxyJump gate", nothing, unsafe)
    device = profile(tmp_path / "config", own + hop.config_entry("gate"))
    with pytest.raises(HostKeyError) as caught:
        transports.connect(device)
    # ssh-keyscan cannot jump.
    command = shlex.join(["ssh", "-F", str(tmp_path / "config"), "board"])
    assert f"connect once with `{command}`" in str(caught.value)
    assert "ssh-keyscan" not in str(caught.value)


def test_what_lies_behind_a_jump_host_is_not_there(hop: lab.LoopbackSsh, tmp_path: Path) -> None:
    config = tmp_path / "config"
    target = f"Host board\n  HostName 127.0.0.1\n  Port {lab.free_port()}\n  ProxyJump gate\n"
    with pytest.raises(Unreachable, match="cannot be reached from its jump host: Conn"):
        transports.connect(profile(config, target + hop.config_entry("gate")))
    with pytest.raises(ConfigError, match="more than 8 jump hosts; does a ProxyJump lead back"):
        resolve(profile(config, "Host board\n  ProxyJump gate\nHost gate\n  ProxyJump board\n"))


def test_proxy_command_of_the_users_shell(
    server: lab.LoopbackSsh, hop: lab.LoopbackSsh, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    command = f'ProxyCommand ssh -F "{config}" -W %h:%p "gate" 2>/dev/null'
    text = server.config_entry("board", command) + hop.config_entry("gate")
    assert lab.works(profile(config, text))


def test_proxy_command_goes_to_the_shell_as_it_is(tmp_path: Path) -> None:
    text = "Host board\n  ProxyCommand ~/bin/via http://proxy:8080 ${NOBODY_SETS_IT} %h\n"
    command = resolve(profile(tmp_path / "config", text)).proxy_command
    assert command == "~/bin/via http://proxy:8080 ${NOBODY_SETS_IT} board"


def test_proxy_command_that_fails_is_quoted(server: lab.LoopbackSsh, tmp_path: Path) -> None:
    text = server.config_entry("board", "ProxyCommand sh -c 'echo no way to %h >&2; exit 1'")
    with pytest.raises(Unreachable, match=r"ProxyCommand .*: no way to 127") as caught:
        transports.connect(profile(tmp_path / "config", text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_the_kind_of_key_that_is_known_is_asked_for(
    both_kinds: lab.LoopbackSsh, tmp_path: Path, kind: str
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(both_kinds.host_line(kind))
    assert lab.works(both_kinds.profile("~", known_hosts=str(known)))
    # Hashed, as Debian writes it.
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, timeout=30)
    assert known.read_text().startswith("|1|")
    assert lab.works(both_kinds.profile("~", known_hosts=str(known)))


def test_key_of_a_kind_that_is_not_known_is_unknown_not_changed(
    server: lab.LoopbackSsh, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    other = lab.keygen(tmp_path / "other", kind="rsa").with_suffix(".pub")
    known.write_text(lab.host_line(server.port, other))
    with pytest.raises(HostKeyError, match="its host key is not in"):
        transports.connect(server.profile("~", known_hosts=str(known)))


def test_alias_of_the_key_is_looked_up_without_a_port(
    server: lab.LoopbackSsh, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    alias = ("HostKeyAlias the-board", f"UserKnownHostsFile {known}")
    device = profile(tmp_path / "config", server.config_entry("board", *alias))
    known.write_text(server.host_line())
    with pytest.raises(HostKeyError, match="connect once with `ssh -F"):
        transports.connect(device)
    known.write_text("the-board " + server.host_line().partition(" ")[2])
    assert lab.works(device)


def test_lines_of_known_hosts(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    blobs = {}
    for name in ("good", "also", "bad"):
        public = lab.keygen(tmp_path / name).with_suffix(".pub").read_text().split()
        blobs[name] = " ".join(public[:2])
    file.write_text(
        f"# {blobs['bad']}\nnonsense\npi {blobs['good']}\nPI,other {blobs['also']} comment\n"
        f"*.lan,!bad.lan {blobs['good']}\n@revoked * {blobs['bad']}\n"
        f"[pi]:2222 {blobs['also']}\n@cert-authority ca {blobs['good']}\nbroken ssh-rsa %%%\n"
    )
    keys = _ssh_hosts.read([file, tmp_path / "missing"])

    def verdict(name: str, which: str, plain: str = "") -> str:
        blob = base64.b64decode(blobs[which].split()[1])
        return _ssh_hosts.judge(keys, name, plain or name, kind="ssh-ed25519", blob=blob)[0]

    assert verdict("pi", "good") == verdict("pi", "also") == "known"
    assert verdict("pi", "bad") == "revoked"
    assert verdict("a.lan", "good") == "known"
    assert verdict("a.lan", "also") == "changed"
    assert verdict("bad.lan", "good") == "unknown"
    assert verdict("[pi]:2222", "also", "pi") == "known"
    assert verdict("[pi]:2222", "good", "pi") == "known"
    assert verdict("[pi]:23", "good", "pi") == "known"
    assert verdict("2", "good") == verdict("ca", "good") == "unknown"


@contextmanager
def ssh_agent(folder: Path, *keys: Path) -> Iterator[str]:
    path = folder / "agent"
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert agent.stdout is not None
        agent.stdout.readline()
        asking = folder / "askpass"
        asking.write_text("#!/bin/sh\necho secret\n")
        asking.chmod(0o700)
        ask = {"SSH_ASKPASS": str(asking), "SSH_ASKPASS_REQUIRE": "force"}
        env = {**os.environ, "SSH_AUTH_SOCK": str(path), **ask}
        for key in keys:
            command = ["ssh-add", "-q", str(key)]
            subprocess.run(command, check=True, env=env, timeout=30, capture_output=True)
        yield str(path)
    finally:
        agent.terminate()
        agent.communicate(timeout=10)


def test_keys_of_the_ssh_agent(
    server: lab.LoopbackSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ssh_agent(tmp_path, server.identity) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        assert lab.works(server.profile("~", identity_file=""))
        monkeypatch.delenv("SSH_AUTH_SOCK")
        # No private key in sight: the public one says which key of the agent is meant.
        public = tmp_path / "only.pub"
        public.write_text(server.identity.with_suffix(".pub").read_text())
        text = (
            f"Host 127.0.0.1\n  IdentityAgent {path}\n  IdentityFile {public}\n"
            "  IdentitiesOnly yes\n"
        )
        (tmp_path / "config").write_text(text)
        config = str(tmp_path / "config")
        assert lab.works(server.profile("~", identity_file="", ssh_config=config))
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        (tmp_path / "config").write_text(
            text.replace(f"IdentityAgent {path}", "IdentityAgent none")
        )
        with pytest.raises(AuthenticationFailed):
            transports.connect(server.profile("~", identity_file="", ssh_config=config))


def test_encrypted_key_works_when_the_agent_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lab.loopback_ssh(tmp_path) as own:
        key = lab.keygen(tmp_path / "locked key", passphrase="secret")  # noqa: S106  # of this test
        (tmp_path / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
        device = own.profile("~", identity_file=str(key))
        with pytest.raises(AuthenticationFailed, match=r"passphrase; run `ssh-add '.*locked key'`"):
            transports.connect(device)
        with ssh_agent(tmp_path, key) as path:
            monkeypatch.setenv("SSH_AUTH_SOCK", path)
            assert lab.works(device)


def test_file_that_is_no_key(server: lab.LoopbackSsh, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("nonsense")
    with pytest.raises(AuthenticationFailed, match="no private key of a known form"):
        transports.connect(server.profile("~", identity_file=str(tmp_path / "key")))


def test_a_key_or_its_certificate_without_an_end(server: lab.LoopbackSsh, tmp_path: Path) -> None:
    """Of all that lies beside a key, nothing is read that never ends."""
    device = server.profile("~")
    key = shutil.copy(device.identity_file, tmp_path / "key")
    for name in ("key.pub", "key-cert.pub"):
        os.mkfifo(tmp_path / name)
    device = dataclasses.replace(device, identity_file=str(key))
    with pytest.raises(AuthenticationFailed, match=r"key-cert.pub: it is a pipe or a device"):
        transports.connect(device)
    (tmp_path / "key-cert.pub").unlink()
    assert lab.works(device)
    with (tmp_path / "key").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(AuthenticationFailed, match=r"it has more than 16777216 bytes"):
        transports.connect(device)


def test_agent_that_does_not_answer_has_no_keys(
    server: lab.LoopbackSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    path = str(tmp_path / "silent")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen(1)
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        assert lab.works(server.profile("~", connect_timeout_s=1.0))
