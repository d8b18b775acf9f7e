"""A CSV of labels: file,label or file,value,value…, with or without a head, and with a `split`."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from device_agents.plain_text import plain
from pipeline.data.api import DataError
from pipeline.data.pictures.decode import is_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.data.api import Truths
    from pipeline.data.pictures.files import Files

PART_OF = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("val", "valid", "validation"), 1),
    **dict.fromkeys(("test", "testing"), 2),
}
"""What people call a split -> its number in `pipeline.data.api.PARTS`."""

_SUFFIX = ".csv"
_SPLITS = ("split", "part", "set", "subset")


@dataclass(frozen=True, slots=True)
class Table:
    """The lines of a CSV whose pictures are there.

    Attributes:
        names: of pictures.
        labels: as texts, one for each.
        numbers: (N, k) float32; (N, 0) where they are not asked for.
        parts: what each is for, as numbers of `PARTS`; None without such a column.
        skipped: a line for each picture that is not there.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    numbers: npt.NDArray[np.float32]
    parts: tuple[int, ...] | None
    skipped: tuple[str, ...]


def find_table(files: Files) -> str:
    """Return the only CSV at the top of some files; empty if there is none."""
    tables = [n for n in files.names if n.lower().endswith(_SUFFIX) and "/" not in n]
    return tables[0] if len(tables) == 1 else ""


def read_table(files: Files, name: str, truths: Truths) -> Table:
    """Read a CSV that names pictures of the same folder or archive.

    Raises:
        DataError: it cannot be read, names no picture that is there, or a value is none.
    """
    where = f"{files.path / name}"
    lines = _lines(where, files.read(name))
    head = [cell.strip().lower() for cell in lines[0][1]]
    named = not is_picture(head[0])
    rows = lines[1:] if named else lines
    split = next((place for place, cell in enumerate(head) if named and cell in _SPLITS), None)
    there = set(files.names)  # of an archive; a folder is asked for each
    kept: list[tuple[str, list[str], int]] = []
    skipped = []
    for number, cells in rows:
        if len(cells) != len(head):
            raise DataError(
                f"{where}, line {number}: it has {len(cells)} columns and the first line "
                f"{len(head)}"
            )
        picture = cells[0].strip().replace("\\", "/").removeprefix("./")
        if not (picture in there or (not there and files.has(picture))):
            skipped.append(f"{plain(picture, limit=200)}: line {number} names it, it is not there")
            continue
        values = [cell.strip() for i, cell in enumerate(cells) if i not in (0, split)]
        kept.append((picture, values, 0 if split is None else _part(where, number, cells[split])))
    if not kept:
        raise DataError(
            f"{where} names no picture that is there; its first column holds paths from where it "
            f"lies, such as {next(filter(is_picture, files.names), 'pictures/1.jpg')}"
        )
    if truths != "none" and not kept[0][1]:
        raise DataError(f"{where} has no column behind the file's; write file,label")
    numbers = np.zeros((len(kept), 0), np.float32)
    if truths == "numbers":
        numbers = np.array([_numbers(where, picture, v) for picture, v, _ in kept], np.float32)
    return Table(
        tuple(picture for picture, _, _ in kept),
        tuple(values[0] if values else "" for _, values, _ in kept),
        numbers,
        None if split is None else tuple(part for _, _, part in kept),
        tuple(skipped),
    )


def _lines(where: str, content: bytes) -> list[tuple[int, list[str]]]:
    """Return the lines that are not empty, with their numbers."""
    try:
        text = content.decode("utf-8-sig")
        first = text.partition("\n")[0]
        mark = max(",;\t", key=first.count)
        reader = csv.reader(io.StringIO(text), delimiter=mark, strict=True)
        lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where} is no CSV of UTF-8 text ({plain(error, limit=120)})") from error
    if not lines:
        raise DataError(f"{where} is empty; write a line file,label for each picture")
    return lines


def _part(where: str, number: int, cell: str) -> int:
    part = PART_OF.get(cell.strip().lower())
    if part is None:
        raise DataError(
            f"{where}, line {number}: the split {plain(cell, limit=60)!r} is not known; have "
            "train, validation, test"
        )
    return part


def _numbers(where: str, picture: str, values: Sequence[str]) -> list[float]:
    numbers = []
    for value in values:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise DataError(
                f"{where}: the value {plain(value, limit=60)!r} of {picture!r} is no number"
            )
        numbers.append(number)
    return numbers
