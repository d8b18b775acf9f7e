"""A deployment: staged, checked, switched; and what is left when it ends anywhere in between."""

from __future__ import annotations

import os
import random
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_agents.agent.releases import Releases
from device_agents.agent.store import ModelStore
from device_agents.api import Inference, Runs, TensorValue
from device_agents.errors import AgentError, DeviceError, VerificationError
from device_agents.runner import Device
from pipeline.cli.main import main
from pipeline.deploy.release import put_in_use
from scripts import deploy_kills
from tests import lab, wrong_runtimes
from tests.wrong_runtimes import int8_dense

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from profiles.schema import DeviceProfile


def in_use(device: Device) -> list[tuple[str, bool]]:
    return [(item["version"], item["current"]) for item in device.releases.list_all()]


def half_done(profile: DeviceProfile) -> list[str]:
    """Return what lies about, but for the lock of each agent that runs."""
    return [
        path.name
        for path in Path(profile.directory).rglob("*")
        if ".part" in str(path) and path.is_file() and path.name != "lock"
    ]


def test_the_staged_copy_is_what_runs(device: Device, models: Path) -> None:
    images = np.random.default_rng(1).random((3, 16, 16, 3), np.float32)
    value = TensorValue("float32", images.shape, images.tobytes())
    direct = device.infer(models / "small.tflite", [value])
    assert isinstance(direct, Inference), direct
    seen: list[Inference] = []

    def look(run: Runs) -> None:
        assert in_use(device) == []
        seen.append(run([value]))

    device.releases.deploy(models / "small.tflite", "net", "1", check=look)
    assert seen[0].outputs == direct.outputs
    assert in_use(device) == [("1", True)]


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_failed_check_leaves_what_is_in_use(
    device: Device, local: Callable[..., DeviceProfile], models: Path, version: str
) -> None:
    first = Path(device.releases.deploy(models / "small.tflite", "net", "1", check=lab.unchecked))
    before = sorted(first.parent.parent.rglob("*"))
    model = models / ("small.tflite" if version == "1" else "large.tflite")

    def refuse(_: Runs) -> None:
        raise VerificationError("not what it should be")

    with pytest.raises(VerificationError, match="not what it should be"):
        device.releases.deploy(model, "net", version, check=refuse)
    assert in_use(device) == [("1", True)]
    assert sorted(first.parent.parent.rglob("*")) == before
    assert first.read_bytes() == (models / "small.tflite").read_bytes()
    assert half_done(local()) == []


def test_a_copy_that_changes_behind_the_check_is_not_put_in_use(
    device: Device, models: Path
) -> None:
    device.releases.deploy(models / "small.tflite", "net", "1", check=lab.unchecked)
    incoming = Path(device.hello["incoming"])

    def spoil(_: Runs) -> None:
        (path,) = incoming.glob("release-*/model.tflite")
        path.write_bytes(path.read_bytes()[:-1] + b"x")

    with pytest.raises(AgentError, match="no longer has the hash") as caught:
        device.releases.deploy(models / "large.tflite", "net", "2", check=spoil)
    assert caught.value.kind == "hash_mismatch"
    assert in_use(device) == [("1", True)]


def test_nothing_damaged_is_made_current_again(device: Device, models: Path) -> None:
    first = Path(device.releases.deploy(models / "small.tflite", "net", "1", check=lab.unchecked))
    device.releases.deploy(models / "large.tflite", "net", "2", check=lab.unchecked)
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    with pytest.raises(AgentError, match="is damaged or gone"):
        device.releases.rollback("net")
    assert in_use(device) == [("1", False), ("2", True)]


def test_a_rollback_goes_to_what_was_in_use_before(tmp_path: Path) -> None:
    campaign = deploy_kills.Campaign(tmp_path)
    for version in ("1", "2"):
        campaign.deploy_in_agent(version)
    home = campaign.directory / "deployed" / deploy_kills.NAME
    history = (home / "history.json").read_text()
    # Killed between writing the history and the switch to 2.
    (home / "current").unlink()
    (home / "current").symlink_to("1")
    store = ModelStore(str(campaign.directory))
    with pytest.raises(Exception, match="no release before the current one"):
        Releases(store).rollback(deploy_kills.NAME, None)
    (home / "history.json").write_text(history.replace("]", ', "?", {"version": 3}]'))
    assert Releases(store).rollback(deploy_kills.NAME, "2")["current"] == "2"
    assert Releases(store).rollback(deploy_kills.NAME, None)["current"] == "1"
    store.close()


def test_the_same_model_again_mends_a_damaged_release_in_use(device: Device, models: Path) -> None:
    path = models / "small.tflite"
    where = Path(device.releases.deploy(path, "net", "1", check=lab.unchecked))
    inode = where.parent.stat().st_ino
    where.write_bytes(b"damaged")
    assert device.releases.deploy(path, "net", "1", check=lab.unchecked) == str(where)
    assert where.read_bytes() == path.read_bytes()
    # The folder to which `current` leads was there at every moment.
    assert where.parent.stat().st_ino == inode


def test_a_file_that_computes_wrongly_there_is_not_put_in_use(
    local: Callable[..., DeviceProfile], tmp_path: Path
) -> None:
    good = int8_dense(tmp_path / "one.tflite", scale_per_output=False)
    bad = int8_dense(tmp_path / "many.tflite", scale_per_output=True)
    with Device.open(local(python=wrong_runtimes.zeroing_litert(tmp_path))) as device:
        _, checked = put_in_use(device, good, "net", "1", runtime="tflite")
        assert "equal this computer's" in checked.words
        with pytest.raises(VerificationError, match=r"net 2 was not put in use: many\.tflite does"):
            put_in_use(device, bad, "net", "2", runtime="tflite")
        assert in_use(device) == [("1", True)]
        broken = tmp_path / "broken.tflite"
        broken.write_bytes(bad.read_bytes()[:300])
        # The reason once, and not the runtime's own text behind it.
        why = r"net 3 was not put in use: it does not run there: .* no TFLite file[^()]*again$"
        with pytest.raises(DeviceError, match=why):
            put_in_use(device, broken, "net", "3", runtime="tflite")
        assert in_use(device) == [("1", True)]


def test_a_deployment_waits_for_no_lease_of_its_own(
    local: Callable[..., DeviceProfile], models: Path
) -> None:
    """Leases are not reentrant: asking for another one within would wait for itself."""
    free = threading.Lock()

    class Book:
        @contextmanager
        def hold(self, device: str, *, timeout_s: float, name: str = "") -> Iterator[None]:
            assert free.acquire(blocking=False), (device, name, timeout_s)
            try:
                yield
            finally:
                free.release()

    with Device.open(local(), leases=Book()) as device:
        _, checked = put_in_use(
            device, models / "small.tflite", "net", "1", runtime="tflite", threads=2
        )
        assert "plain kernels" in checked.words
        assert in_use(device) == [("1", True)]


def test_the_command_refuses_what_computes_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = wrong_runtimes.zeroing_litert(tmp_path)
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "old.toml").write_text(
        f'transport = "local"\ndirectory = "{tmp_path}/device"\npython = "{python}"\n'
    )
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    bad = int8_dense(tmp_path / "many.tflite", scale_per_output=True)
    how = ["--device", "old", "--name", "net", "--version", "1"]
    for command in (["deploy", str(bad), *how], ["bench", str(bad), "--device", "old"]):
        assert main(command) == 5
        said = capsys.readouterr()
        assert "many.tflite does not compute on device 'old' what it computes on" in said.err
        assert said.out == ""
    assert not list((tmp_path / "device" / "deployed").glob("*/*"))
    good = int8_dense(tmp_path / "one.tflite", scale_per_output=False)
    assert main(["deploy", str(good), *how]) == 0
    assert Path(capsys.readouterr().out.strip()).read_bytes() == good.read_bytes()


def test_an_agent_killed_at_any_call_of_a_deployment(tmp_path: Path) -> None:
    campaign = deploy_kills.Campaign(tmp_path)
    campaign.deploy_in_agent("1")

    def deploy(kill_at: int, *, answered: bool) -> int:
        """Deploy release 2 and kill the agent at a call, before or after its answer."""
        calls = [0]
        with Device.open(campaign.profile) as device:
            session: Any = device._session
            real = session._exchange

            def exchange(stream: Any, op: str, timeout_s: float, args: dict[str, Any]) -> Any:
                calls[0] += 1
                hit = calls[0] == kill_at
                if hit and not answered:
                    os.kill(stream._process.pid, signal.SIGKILL)
                found = real(stream, op, timeout_s, args)
                if hit and answered:
                    os.kill(stream._process.pid, signal.SIGKILL)
                return found

            session._exchange = exchange
            path = campaign.files["2"]
            device.releases.deploy(path, deploy_kills.NAME, "2", check=lambda run: run([]))
        return calls[0]

    calls = deploy(0, answered=True)
    assert calls >= 5
    for kill_at in range(1, calls + 1):
        for answered in (False, True):
            campaign.again()
            deploy(kill_at, answered=answered)
            assert campaign.check() == "2"


def test_an_agent_killed_before_each_of_its_acts_on_the_disk(tmp_path: Path) -> None:
    assert deploy_kills.every_step(tmp_path) >= 30


def test_hosts_and_agents_killed_at_random_moments(tmp_path: Path) -> None:
    rng = random.Random(20_261_127)
    found = deploy_kills.at_random(tmp_path, 8, rng)
    assert found["1"] + found["2"] == 8
