"""Space on a device: what the doctor tells of it, and `device clean`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_agents import transports
from device_agents.care import cleaning, doctor
from device_agents.errors import DeviceError
from device_agents.packing import pack_agent
from device_agents.runner import Device
from pipeline.cli.main import main
from tests import lab

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiles.schema import DeviceProfile


@pytest.fixture
def used(local: Callable[..., DeviceProfile], models: Path, tmp_path: Path) -> DeviceProfile:
    """Return a device with a release, 300 kB of models and a program."""
    profile = local()
    with Device.open(profile) as device:
        device.releases.deploy(models / "small.tflite", "net", "1", check=lab.unchecked)
        for number in range(3):
            path = tmp_path / f"{number}.bin"
            path.write_bytes(bytes([number]) * 100_000)
            device._session.push(path)
    (Path(profile.directory) / "tools").mkdir()
    for name in ("benchmark_model-0123", ".part-benchmark_model-45"):
        (Path(profile.directory) / "tools" / name).write_bytes(b"x" * 50_000)
    return profile


def test_clean_frees_what_can_be_sent_again(used: DeviceProfile, models: Path) -> None:
    directory = Path(used.directory)
    with Device.open(used) as device:
        # An agent that is at work is not disturbed.
        gone = cleaning.clean(used)
        assert (gone.models, gone.programs) == (4, 2)
        assert 400_000 <= gone.size_bytes <= 600_000
        assert gone.words.startswith("4 models and 2 programs, 0.")
        assert gone.agents == 0
        assert list((directory / "models").iterdir()) == []
        assert list((directory / "tools").iterdir()) == []
        assert [item["current"] for item in device.releases.list_all()] == [True]
        assert device.releases.infer("net", "1", [])
        device.releases.deploy(models / "large.tflite", "net", "2", check=lab.unchecked)
    again = cleaning.clean(dataclasses.replace(used, directory=f"{directory}/nowhere"))
    assert again.words == "nothing, 0.0 MB"


def test_clean_frees_agents_that_are_not_at_work(used: DeviceProfile, tmp_path: Path) -> None:
    folder = Path(used.directory) / "agent"
    with Device.open(used) as device:
        for number in range(2):
            (folder / f"edgewright-agent-{number:012x}.pyz").write_bytes(b"x" * 90_000)
        (folder / "edgewright-agent-00.pyz").symlink_to(tmp_path)
        (folder / "of somebody else").write_text("theirs")
        looked = cleaning.look(transports.connect(used), used.directory, "here")
        gone = cleaning.clean(used)
        assert (gone.agents, looked.agents) == (3, 3)
        assert gone.words.startswith("4 models, 2 programs and 3 agents, 0.")
        # What was not needed until now is imported from a file that is still there.
        assert device.releases.infer("net", "1", [])
        left = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
        assert left == [pack_agent().file_name, "of somebody else"]
    assert tmp_path.is_dir()


def test_clean_follows_no_link(used: DeviceProfile, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "diary").write_text("theirs")
    (Path(used.directory) / "models" / "diary").symlink_to(theirs / "diary")
    (Path(used.directory) / "models" / "folder").symlink_to(theirs)
    tools = Path(used.directory) / "tools"
    tools.rename(tools.with_name("other"))
    tools.symlink_to(theirs)
    assert cleaning.clean(used).programs == 0
    assert (theirs / "diary").read_text() == "theirs"


def test_clean_says_what_it_cannot_remove(used: DeviceProfile, tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "rm"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexit 1\n")
    tool.chmod(0o755)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setenv("PATH", str(tool.parent), prepend=":")
        with pytest.raises(DeviceError, match=r"cannot remove models/.* mend that there"):
            cleaning.clean(used)


def test_the_doctor_tells_what_models_take(
    used: DeviceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(profile: DeviceProfile) -> tuple[str, str, str]:
        (check,) = (c for c in doctor.examine(profile).checks if c.name == "models")
        return check.status, check.found, check.advice

    status, found, _ = told(used)
    assert (status, found.partition(" of at")[0]) == ("ok", "5 files, 0 MB")
    # The fifth is the golden model, by which the doctor has looked.
    monkeypatch.setattr("device_agents.care.doctor_agent.KEEP_BYTES", 1000)
    status, _, advice = told(used)
    assert status == "warn"
    assert "`edgewright device clean here`" in advice
    tool = dataclasses.replace(used, runtime="benchmark_model")
    status, found, advice = told(tool)
    assert (status, found[:8]) == ("warn", "5 models")
    assert "`edgewright device clean here`" in advice
    looked = cleaning.look(transports.connect(used), used.directory, "here")
    assert (looked.models, looked.programs) == (5, 2)


def test_the_command(
    used: DeviceProfile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path(used.directory).parent
    (config / "devices").mkdir()
    (config / "devices" / "here.toml").write_text(
        f'transport = "local"\ndirectory = "{used.directory}"\n'
    )
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(config))
    monkeypatch.chdir(config)
    assert main(["device", "clean", "here"]) == 0
    said = capsys.readouterr().out
    # Other tests' agents of this version may be at work on this computer.
    assert re.match(r"here: freed 4 models(, 2 programs and 1 agent| and 2 programs), 0\.", said)
    assert f"in {used.directory}" in said
