"""Agents of several versions take turns on a device: which of their files stay."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_agents import packing

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agents.session import Session
    from profiles.schema import DeviceProfile


@pytest.fixture
def connected(
    local: Callable[..., DeviceProfile],
    open_session: Callable[..., Session],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Session]:
    """Connect as a host whose edgewright is of another version."""
    genuine = packing.agent_bytes()

    def connect(version: int, *flags: str) -> Session:
        buffer = io.BytesIO(genuine)
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(zipfile.ZipInfo(f"version-{version}"), b"")
        monkeypatch.setattr(packing, "agent_bytes", buffer.getvalue)
        session = open_session(local(), *flags)
        assert session.hello["agent_sha256"] == packing.pack_agent().sha256
        return session

    return connect


def files(profile: DeviceProfile) -> set[str]:
    return {path.name for path in Path(profile.directory, "agent").glob("*.pyz")}


def test_the_three_used_last_stay(
    connected: Callable[..., Session], local: Callable[..., DeviceProfile]
) -> None:
    names = {}
    for version in (1, 2, 3, 1, 4):
        connected(version).close()
        names[version] = packing.pack_agent().file_name
        # As on a board without a clock of its own: what comes next seems to come years before.
        for path in Path(local().directory, "agent").glob("*.pyz"):
            os.utime(path, (found := path.stat().st_mtime + 1e8, found))
    assert files(local()) == {names[3], names[1], names[4]}
    connected(2).close()
    assert files(local()) == {names[1], names[4], names[2]}


def test_one_that_is_at_work_stays_whoever_comes(
    connected: Callable[..., Session], local: Callable[..., DeviceProfile], tmp_path: Path
) -> None:
    first = connected(1, "--no-fork")
    name = packing.pack_agent().file_name
    for version in (2, 3, 4, 5):
        connected(version).close()
    assert name in files(local())
    assert len(files(local())) == 4
    # Its children are started from the file.
    model = tmp_path / "null.json"
    model.write_text('{"edgewright_null": 1}')
    how = {"runtime": "null", "threads": 1, "cpus": [], "invokes": 1, "deadline_s": 20.0}
    assert first.call("memory", timeout_s=30, sha256=first.push(model), **how)["peak_bytes"]
    first.close()
    connected(6).close()
    assert name not in files(local())
    assert len(files(local())) == 3
