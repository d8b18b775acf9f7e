"""Fixtures of the virtual ARM devices: one of each serves all tests, on images built once."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest

from scripts.lab.images import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from scripts.lab.icount import Guest
    from scripts.lab.userland import Userland

_Device = TypeVar("_Device")


@contextmanager
def started(running: AbstractContextManager[_Device]) -> Iterator[_Device]:
    """Start a virtual device; where this computer cannot, skip the test."""
    with ExitStack() as stack:
        try:
            device = stack.enter_context(running)
        except LabError as error:
            pytest.skip(f"no virtual device here: {error}")
        yield device


def add_profile(config: Path, name: str, device: Userland | Guest, **changes: object) -> None:
    """Write the device's profile into the folder of a user's configuration."""
    folder = config / "devices"
    folder.mkdir(parents=True, exist_ok=True)
    values = {**device.profile_values(), **changes}
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    (folder / f"{name}.toml").write_text("".join(lines))
