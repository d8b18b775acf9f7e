"""Names of classes that come in a TFLite file: lists in an archive that is appended to it."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

from device_agents.bounded import ZIP_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.ops import Shape
    from pipeline.formats.tflite.file import File

_LARGEST_BYTES = 1 << 20
_MOST_MEMBERS = 32

Labels = tuple[str, ...]


def read_labels(file: File, shapes: Sequence[Shape]) -> list[Labels]:
    """Return the names of the classes of each output, none where the file has none for it.

    A list belongs to the first output without one that has as many units as it has lines.
    """
    found: list[Labels] = [()] * len(shapes)
    for labels in _lists(file):
        for place, shape in enumerate(shapes):
            if not found[place] and shape[-1:] == (len(labels),):
                found[place] = labels
                break
    return found


def _lists(file: File) -> list[Labels]:
    if b"PK\5\6" not in bytes(file.content[-(1 << 16) :]):
        return []
    try:
        with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
            members = [item for item in archive.infolist() if item.filename.endswith(".txt")]
            return [_lines(archive, item) for item in members[:_MOST_MEMBERS]]
    except ZIP_ERRORS:  # a file is no worse a model for it
        return []


def _lines(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> Labels:
    with archive.open(item) as member:
        text = member.read(_LARGEST_BYTES + 1)
    if len(text) > _LARGEST_BYTES:
        return ()
    return tuple(text.decode("utf-8", "replace").splitlines())
