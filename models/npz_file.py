"""Arrays of an .npz file, checked before memory is taken for them.

A megabyte of zip may declare a gigabyte, and an array's header any shape at all; numpy believes
both. Here sizes are bounded, and what an array's header says is held against what is stored.
"""

from __future__ import annotations

import math
import tokenize
import warnings
import zipfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents import bounded
from device_agents.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

LIMIT_BYTES = 4 << 30
_SUFFIX = ".npy"
_ONE_ARRAY = b"\x93NUMPY"
# What numpy and zipfile raise for bytes that are not theirs.
_DAMAGED = (
    *bounded.ZIP_ERRORS,
    *(ArithmeticError, AttributeError, MemoryError, SyntaxError, TypeError, tokenize.TokenError),
)


def read(path: Path, names: Collection[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an .npz file by name: all, or those of `names` that it has.

    Raises:
        Unreadable: it cannot be read (`device_agents.bounded`).
        Undecodable: it is damaged, is no .npz, holds Python objects or too much.
    """
    with bounded.open_file(path, limit_bytes=LIMIT_BYTES) as file:
        size = file.seek(0, 2)
        file.seek(0)
        if file.read(len(_ONE_ARRAY)) == _ONE_ARRAY:
            raise bounded.Undecodable("it is a single array (.npy)")
        try:
            with warnings.catch_warnings(), zipfile.ZipFile(file) as archive:
                warnings.simplefilter("ignore")  # headers of Python 2
                return _arrays(archive, size, names)
        except _DAMAGED as error:
            said = plain(error, limit=200) or type(error).__name__
            raise bounded.Undecodable(f"it is not a readable .npz file ({said})") from error


def _arrays(
    archive: zipfile.ZipFile, size: int, names: Collection[str] | None
) -> dict[str, npt.NDArray[Any]]:
    members = {
        info.filename.removesuffix(_SUFFIX): info
        for info in archive.infolist()
        if info.filename.endswith(_SUFFIX)
    }
    wanted = {name: info for name, info in members.items() if names is None or name in names}
    bounded.refuse_expansion(size, sum(info.file_size for info in wanted.values()))
    for name, info in wanted.items():
        with archive.open(info) as member:
            _check_shape(name, member, info.file_size)
    arrays = {}
    for name, info in wanted.items():
        with archive.open(info) as member:
            arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    return arrays


def _check_shape(name: str, member: IO[bytes], size: int) -> None:
    """Refuse an array whose header asks for other bytes than are stored."""
    version = np.lib.format.read_magic(member)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"array {name!r} is of a version of the format that no array here has")
    shape, _, dtype = read_header(member)
    if dtype.hasobject:
        raise ValueError(f"array {name!r} holds Python objects; write plain numbers")
    declared = math.prod(shape) * dtype.itemsize
    stored = size - member.tell()
    if min(shape, default=0) < 0 or declared != stored:
        raise ValueError(f"array {name!r} declares {declared} bytes and holds {stored}")
