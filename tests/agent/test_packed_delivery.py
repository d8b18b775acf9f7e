"""A model goes to a device packed, and is there under the hash of the whole, or not at all."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_agents.agent.packed import MAGIC
from device_agents.delivery import Parcel
from device_agents.errors import AgentError
from device_agents.runner import Device
from pipeline.cli.main import main
from pipeline.coding import pack
from pipeline.coding.files import pack_file
from scripts.lab.adb_device import adb_device
from tests import corruptions, lab, lab_adb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from device_agents.delivery import Delivery
    from profiles.schema import DeviceProfile

# Of a device that could not hold much more than the agent with LiteRT and a dozen blocks.
ADDRESS_SPACE_KB = 1_500_000


@pytest.fixture(scope="module")
def model(models: Path) -> Path:
    return models / "large.tflite"


@pytest.fixture(scope="module")
def packed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "large.tflite.ewp"
    path.write_bytes(pack_file(model, lambda _: None)[1].content)
    return path


@contextmanager
def reached_over(
    link: str, request: pytest.FixtureRequest, folder: Path
) -> Iterator[DeviceProfile]:
    if link == "ssh":
        yield request.getfixturevalue("server").profile(folder / "it's a device")
        return
    with lab_adb.adb_server(folder / "adb") as server, adb_device(folder / "phone") as phone:
        yield server.profile(phone)
        server.adb("disconnect", phone.serial)


@pytest.mark.parametrize("link", ["ssh", "adb"])
def test_a_device_gets_the_small_file_and_has_the_whole(
    link: str, request: pytest.FixtureRequest, model: Path, packed: Path, tmp_path: Path
) -> None:
    told: list[Delivery] = []
    (tmp_path / "adb").mkdir()
    with reached_over(link, request, tmp_path) as profile, Device.open(profile) as device:
        for version in ("1", "2"):
            parcel = Parcel(model, packed, told.append)
            device.releases.deploy(parcel, "net", version, check=lambda run: run([]))
        incoming = device.hello["incoming"]
        transport: Any = device._session._transport
        left = transport.run(["ls", incoming], timeout_s=20).stdout.split()
        current = incoming.rpartition("/incoming/")[0] + "/deployed/net/current/model.tflite"
        transport.get(current, str(tmp_path / "back"))
    assert left == [b"lock"]
    assert (tmp_path / "back").read_bytes() == model.read_bytes()
    first, again = told
    assert first.sent_bytes == packed.stat().st_size < 0.9 * first.file_bytes
    assert first.unpack_s is not None
    assert first.unpack_s > 0
    assert "less to send" in first.words
    assert (again.sent_bytes, again.words) == (0, "had the file already")


def test_a_device_without_numpy_gets_the_file_as_it_is(
    local: Callable[..., DeviceProfile], bare_python: str, model: Path, packed: Path
) -> None:
    with Device.open(local(python=bare_python, runtime="null")) as device:
        assert not device.unpacks
        delivery = device._session.deliver(model, packed=packed)
        assert delivery.sent_bytes == model.stat().st_size
        assert delivery.words.startswith(f"got {delivery.sent_bytes} bytes in ")
        # Asked all the same, it says why.
        sent = Path(device.hello["incoming"], "sent")
        sent.write_bytes(packed.read_bytes())
        with pytest.raises(AgentError, match="no numpy, which unpacking takes") as caught:
            device._session.call(
                "unpack", timeout_s=30, sha256="0" * 64, path=str(sent), deadline_s=20.0
            )
        assert caught.value.kind == "bad_request"
        assert not sent.exists()


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        (lambda text: text[:-1], "hash_mismatch", "did not arrive as it was: it has"),
        (lambda text: text[:12], "hash_mismatch", "it ends within its header"),
        (lambda text: text[:-40] + bytes(40), "hash_mismatch", "is not as it was written"),
        (lambda _: b"", "hash_mismatch", "it does not begin as a packed file does"),
        (lambda text: pack(text).content, "hash_mismatch", "what arrived packed is"),
        (
            lambda text: MAGIC + b"\x63" + text[len(MAGIC) + 1 :],
            "bad_request",
            "it is of version 99 of the layout",
        ),
    ],
)
def test_what_is_not_what_was_packed_is_refused_and_leaves_nothing(
    change: Callable[[bytes], bytes],
    kind: str,
    sentence: str,
    device: Device,
    model: Path,
    packed: Path,
    tmp_path: Path,
) -> None:
    bad = tmp_path / "bad.ewp"
    bad.write_bytes(change(packed.read_bytes()))
    with pytest.raises(AgentError, match=sentence) as caught:
        device._session.deliver(model, packed=bad)
    assert caught.value.kind == kind
    assert caught.value.retryable == (kind == "hash_mismatch")
    top = Path(device.hello["directory"])
    assert not list((top / "models").iterdir())
    assert [path.name for path in Path(device.hello["incoming"]).iterdir()] == ["lock"]
    assert device._session.deliver(model, packed=packed).unpack_s is not None


def test_whatever_arrives_is_refused_in_one_sentence_and_in_bounded_memory(
    local: Callable[..., DeviceProfile], model: Path, packed: Path, tmp_path: Path
) -> None:
    python = lab.wrapped_python(tmp_path / "python", f"ulimit -v {ADDRESS_SPACE_KB}")
    content, refused = packed.read_bytes(), 0
    bad = tmp_path / "bad.ewp"
    with lab.deadline(120), Device.open(local(python=str(python))) as device:
        for seed in range(40):
            bad.write_bytes(corruptions.damaged(content, np.random.default_rng(seed)))
            if bad.read_bytes() == content:
                continue
            with pytest.raises(AgentError) as caught:
                device._session.deliver(model, packed=bad)
            assert caught.value.kind in ("hash_mismatch", "bad_request"), caught.value
            assert "\n" not in str(caught.value)
            refused += 1
        assert device._session.deliver(model, packed=packed).unpack_s is not None
    assert refused >= 36


@pytest.mark.parametrize("answered", [False, True])
def test_an_agent_that_is_killed_while_it_unpacks_leaves_nothing_half_done(
    answered: bool,  # noqa: FBT001
    local: Callable[..., DeviceProfile],
    model: Path,
    packed: Path,
) -> None:
    killed: list[str] = []
    with Device.open(local()) as device:
        session: Any = device._session
        real = session._exchange

        def exchange(stream: Any, op: str, timeout_s: float, args: dict[str, Any]) -> Any:
            hit = op == "unpack" and not killed
            if hit:
                killed.append(op)
            if hit and not answered:
                os.kill(stream._process.pid, signal.SIGKILL)
            found = real(stream, op, timeout_s, args)
            if hit and answered:
                os.kill(stream._process.pid, signal.SIGKILL)
            return found

        session._exchange = exchange
        parcel = Parcel(model, packed)
        where = device.releases.deploy(parcel, "net", "1", check=lambda run: run([]))
        assert Path(where).read_bytes() == model.read_bytes()
        top = Path(device.hello["directory"])
        assert {path.name for path in (top / "incoming").rglob("*") if path.is_file()} <= {
            "lock",
            ".mutex",
        }
    assert killed


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a device `board`, which is this computer; the place is tmp_path."""
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "board.toml").write_text(
        f'transport = "local"\ndirectory = "{tmp_path}/device"\n'
    )
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "device"


@pytest.mark.parametrize(
    ("name", "options", "sent"),
    [
        ("large.tflite.ewp", [], "packed"),
        ("large", [], "packed"),
        ("large.tflite.ewp", ["--no-pack"], "whole"),
        ("large.tflite", ["--pack"], "packed"),
        ("large.tflite", [], "whole"),
    ],
)
def test_the_command_sends_it_so_and_says_what_was_sent(
    name: str,
    options: list[str],
    sent: str,
    board: Path,
    model: Path,
    packed: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = model if name == model.name else packed
    Path(name).write_bytes(source.read_bytes())
    how = ["--device", "board", "--name", "net", "--version", "1", *options]
    assert main(["deploy", name, *how]) == 0
    said = capsys.readouterr()
    there = Path(said.out.strip())
    assert there == board / "deployed" / "net" / "1" / "model.tflite"
    assert there.read_bytes() == model.read_bytes()
    size = (packed if sent == "packed" else model).stat().st_size
    assert f"board got {size} bytes in " in said.err
    assert ("less to send" in said.err) == (sent == "packed")


def test_the_command_packs_nothing_that_saves_too_little(
    board: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("pipeline.deploy.packed.LEAST_SAVING", 0.9)
    (tmp_path / "m.tflite").write_bytes(model.read_bytes())
    how = ["--device", "board", "--name", "net", "--version", "1", "--pack"]
    assert main(["deploy", "m.tflite", *how]) == 0
    said = capsys.readouterr().err
    assert "m.tflite is sent as it is: packed it is only 18" in said
    assert f"got {model.stat().st_size} bytes" in said
    assert board.is_dir()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text[:-7], "bad.ewp is cut short or damaged: it has"),
        (lambda text: MAGIC + b"\x63" + text[len(MAGIC) + 1 :], "update edgewright"),
        (lambda _: pack(b"no model " * 300).content, "is no model file"),
    ],
)
def test_the_command_refuses_a_bad_packed_file_before_anything_is_reached(
    change: Callable[[bytes], bytes],
    sentence: str,
    board: Path,
    packed: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("bad.ewp").write_bytes(change(packed.read_bytes()))
    assert main(["deploy", "bad.ewp", "--device", "board", "--name", "n", "--version", "1"]) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.out == ""
    assert not board.exists()
