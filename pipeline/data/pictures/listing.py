"""What a folder or archive of pictures says of them: classes, numbers or masks, and what for.

Classes are folders, or the second column of a CSV; numbers are the columns of a CSV; masks are
PNGs beside the pictures or in a folder of their own. Folders train, val (validation) and test, or
a CSV's column `split`, say what each picture is for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.plain_text import plain
from pipeline.data.api import PARTS, DataError, Truths
from pipeline.data.pictures.decode import is_picture
from pipeline.data.pictures.files import Files, open_beside, open_files
from pipeline.data.pictures.table import PART_OF, find_table, read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

_IMAGE_FOLDERS = ("image", "images", "imgs", "pictures", "jpegimages")
_MASK_FOLDERS = ("mask", "masks", "annotations", "labels", "segmentationclass")
_MASK_ENDS = ("_mask", "-mask", ".mask")


@dataclass(frozen=True, slots=True)
class Listed:
    """Pictures by name, none of them opened yet.

    Attributes:
        files: that hold them.
        names: of the pictures.
        labels: int64 classes (N,) or float32 numbers (N, k); None where there are none.
        masks: the name of each picture's mask; empty where there are none.
        classes: what each class is called, in order.
        parts: (N,) numbers of `PARTS`; None where nothing says what a picture is for.
        skipped: a line for each picture that was left out.
    """

    files: Files
    names: tuple[str, ...]
    labels: npt.NDArray[Any] | None = None
    masks: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    parts: npt.NDArray[np.int64] | None = None
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.names)

    def take(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> Listed:
        """Return some of the pictures."""
        chosen = [int(row) for row in rows]
        return replace(
            self,
            names=tuple(self.names[row] for row in chosen),
            labels=None if self.labels is None else self.labels[chosen],
            masks=tuple(self.masks[row] for row in chosen) if self.masks else (),
            parts=None if self.parts is None else self.parts[chosen],
        )

    def without(self, broken: Callable[[str], str]) -> Listed:
        """Return it without the pictures of which `broken` gives a reason, which are named."""
        reasons = [
            broken(name) or (broken(self.masks[row]) if self.masks else "")
            for row, name in enumerate(self.names)
        ]
        kept = self.take([row for row, why in enumerate(reasons) if not why])
        lines = (f"{name}: {why}" for name, why in zip(self.names, reasons, strict=True) if why)
        return replace(kept, skipped=(*self.skipped, *lines))


def list_pictures(path: Path, truths: Truths, classes: Sequence[str] = ()) -> Listed:
    """List the pictures of a folder, an archive or a CSV.

    Args:
        path: of it.
        truths: what is asked for with them.
        classes: what the classes are called, where that is known: their order then counts.

    Raises:
        DataError: it is none, holds no picture, or does not say what is asked for.
    """
    if path.name.lower().endswith(".csv"):
        files, table = open_beside(path), path.name
    else:
        files = open_files(path)
        table = find_table(files) if truths in ("classes", "numbers") else ""
    if table:
        rows = read_table(files, table, truths)
        listed = Listed(files, rows.names, skipped=rows.skipped, parts=_parts(rows.parts))
        if truths == "numbers":
            return replace(listed, labels=rows.numbers)
        return listed if truths == "none" else _with_classes(path, listed, rows.labels, classes)
    pictures = [name for name in files.names if is_picture(name)]
    if not pictures:
        raise DataError(f"{path} holds no picture; pictures end in .jpg, .jpeg, .png or .webp")
    if truths == "masks":
        return _with_masks(path, files, pictures)
    if truths == "numbers":
        raise DataError(
            f"{path} holds pictures and no numbers; give a CSV with the columns file,value and a "
            "line for each picture"
        )
    below, parts = _split_off(pictures)
    listed = Listed(files, tuple(pictures), parts=_parts(parts))
    if truths == "none":
        return listed
    folders = [name.parts[0] if len(name.parts) > 1 else "" for name in below]
    if "" in folders:
        stray = pictures[folders.index("")]
        raise DataError(
            f"{path}: the picture {plain(stray, limit=200)!r} lies in no folder of a class; put "
            "each class into a folder of its own, or give a CSV with the columns file,label"
        )
    return _with_classes(path, listed, folders, classes)


def _split_off(names: Sequence[str]) -> tuple[list[PurePosixPath], list[int] | None]:
    """Return paths below folders that all have in common and train, val, test; and which it is."""
    paths = [PurePosixPath(name) for name in names]
    while (first := paths[0].parts[0]) and all(
        len(path.parts) > 2 and path.parts[0] == first for path in paths
    ):
        paths = [PurePosixPath(*path.parts[1:]) for path in paths]
    heads = {path.parts[0].lower() for path in paths if len(path.parts) > 1}
    if not heads <= PART_OF.keys() or len(heads) < 2 or any(len(p.parts) < 2 for p in paths):
        return paths, None
    parts = [PART_OF[path.parts[0].lower()] for path in paths]
    return [PurePosixPath(*path.parts[1:]) for path in paths], parts


def _parts(found: Sequence[int] | None) -> npt.NDArray[np.int64] | None:
    return None if found is None else np.array(found, np.int64)


def _with_classes(
    path: Path, listed: Listed, labels: Sequence[str], known: Sequence[str]
) -> Listed:
    """Number the classes: in the order that is known, else by number or by name."""
    found = set(labels)
    if set(known) >= found:
        names = list(known)
    elif all(name.isdecimal() for name in found):
        names = sorted(found, key=int)
    else:
        names = sorted(found)
    if len(names) < 2:
        raise DataError(
            f"{path} holds pictures of one class only, {names[0]!r}; each class has a folder of "
            "its own, or a label of its own in a CSV"
        )
    number = {name: place for place, name in enumerate(names)}
    numbers = np.array([number[label] for label in labels], np.int64)
    return replace(listed, labels=numbers, classes=tuple(names))


def _with_masks(path: Path, files: Files, names: Sequence[str]) -> Listed:
    """Pair pictures with masks, by folder and name."""
    stems = {name.rpartition(".")[0] for name in names if not name.lower().endswith(".png")}
    masks: dict[tuple[str, ...], str] = {}
    images: dict[tuple[str, ...], str] = {}
    for name in names:
        at = PurePosixPath(name)
        folders = [part.lower() for part in at.parts[:-1]]
        png = at.suffix.lower() == ".png"
        marked = at.stem.lower().endswith(_MASK_ENDS) or not set(folders).isdisjoint(_MASK_FOLDERS)
        is_mask = png and (marked or name.rpartition(".")[0] in stems)
        (masks if is_mask else images)[_pair_key(at)] = name
    pairs = [(image, masks[key]) for key, image in images.items() if key in masks]
    if not pairs:
        raise DataError(
            f"{path} holds no pictures with masks; put masks as PNG beside the pictures, named "
            "like them or with _mask behind, or into folders images/ and masks/"
        )
    alone = tuple(f"{image}: it has no mask" for key, image in images.items() if key not in masks)
    return Listed(
        files,
        tuple(image for image, _ in pairs),
        masks=tuple(mask for _, mask in pairs),
        parts=_parts(_parts_anywhere(image for image, _ in pairs)),
        skipped=alone,
    )


def _pair_key(at: PurePosixPath) -> tuple[str, ...]:
    stem = at.stem
    for end in _MASK_ENDS:
        stem = stem[: -len(end)] if stem.lower().endswith(end) else stem
    kept = (f for f in at.parts[:-1] if f.lower() not in (*_IMAGE_FOLDERS, *_MASK_FOLDERS))
    return (*kept, stem)


def _parts_anywhere(names: Iterable[str]) -> list[int] | None:
    """Return which of train, val, test each lies in, at any depth: images/train, train/images."""
    found = [
        [
            PART_OF[part.lower()]
            for part in PurePosixPath(name).parts[:-1]
            if part.lower() in PART_OF
        ]
        for name in names
    ]
    every = all(len(parts) == 1 for parts in found)
    return [parts[0] for parts in found] if every and len({p[0] for p in found}) > 1 else None


def has_parts(listed: Listed) -> bool:
    """Tell whether pictures for training are told from others, and there are both."""
    if listed.parts is None:
        return False
    training = listed.parts == PARTS.index("train")
    return bool(training.any() and not training.all())


def choose_part(listed: Listed, part: str) -> Listed:
    """Return the pictures for train, validation or test; all where nothing says what they are for.

    Where there is none for validation those for testing serve, and the other way about.
    """
    if listed.parts is None:
        return listed
    wanted = PARTS.index(part)
    for number in (wanted, *((2, 0) if wanted == 1 else (1, 0) if wanted == 2 else (1, 2))):
        rows = np.flatnonzero(listed.parts == number)
        if len(rows):
            return listed.take(rows)
    return listed
