"""What the reader of every recorded space promises, for every file in pipeline/search/recorded.

Its space itself is among those of test_spaces.py.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_agents.errors import ConfigError
from pipeline.search.recorded import RECORDED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Load = Callable[[Path], Any]


@pytest.fixture(params=RECORDED.names())
def load(request: pytest.FixtureRequest) -> Load:
    found: Load = import_module(f"{RECORDED.package}.{request.param}").load
    return found


def refusal(load: Load, path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert "\n" not in sentence
    assert len(sentence) < 500
    return sentence


def asked_for(load: Load, folder: Path) -> Path:
    """Return the file that is to be read: in a folder the one that is missed there, or any."""
    sentence = refusal(load, folder)
    name = sentence.removeprefix(f"{folder}").partition(" ")[0].strip("/:;,")
    return folder / (name or "columns.npz")


def subject(path: Path) -> Path:
    """Return what to give to a reader so that it reads this file."""
    return path if path.name == "columns.npz" else path.parent


def test_what_is_not_there_is_named(load: Load, tmp_path: Path) -> None:
    refusal(load, tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("see the other folder")
    refusal(load, tmp_path / "notes.txt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04cut", b"not an archive", b"\x93NUMPY\x01"])
def test_a_damaged_file_is_named(load: Load, tmp_path: Path, content: bytes) -> None:
    path = asked_for(load, tmp_path)
    path.write_bytes(content)
    refusal(load, subject(path))


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"weights": np.zeros((3, 4))},
        {"ops": np.zeros(4, int)},
        {"ops": np.zeros((3, 2), int)},
        {"ops": np.full((3, 6), "conv")},
        {"ops": np.full((3, 6), -1)},
        {
            f"{layer}.{part}": np.full((3, 3), "x")
            for layer in range(8)
            for part in ("weight", "bias")
        },
    ],
)
def test_arrays_of_something_else_are_refused(
    load: Load, tmp_path: Path, arrays: dict[str, Any]
) -> None:
    path = asked_for(load, tmp_path)
    np.savez(path, **arrays)
    refusal(load, subject(path))


def test_python_objects_in_an_archive_are_not_made(load: Load, tmp_path: Path) -> None:
    class Marker:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path.joinpath("it ran").write_text, ("x",))

    path = asked_for(load, tmp_path)
    np.savez(path, ops=np.array([Marker()], object))
    refusal(load, subject(path))
    assert not (tmp_path / "it ran").exists()
