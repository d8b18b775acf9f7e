"""Train, validation and test: the data set's own, or drawn with the proportions of the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.data.api import PARTS, DataError, Dataset, Split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.data.api import Array, Held, Loaded

Rows = npt.NDArray[np.intp]


def check(name: str, loaded: Loaded) -> None:
    """Refuse what no network can be trained on or tried with. Raises DataError."""
    images, labels = loaded.images, loaded.labels
    if len(images.shape) != 4 or 0 in images.shape:
        raise DataError(
            f"data set {name!r} holds no images (array of shape {images.shape}); "
            "it must hold (N, C, H, W) with none of them 0"
        )
    if len(images) != len(labels):
        raise DataError(f"data set {name!r} holds {len(images)} images but {len(labels)} labels")
    if isinstance(images, np.ndarray) and not np.isfinite(images).all():
        raise DataError(f"data set {name!r} holds pixels that are NaN or infinite")
    if not isinstance(labels, np.ndarray):
        return
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise DataError(f"data set {name!r} holds labels that are NaN or infinite")
    if labels.dtype.kind != "f":
        _check_classes(name, labels, own_parts=loaded.parts is not None)


def _check_classes(name: str, labels: Array, *, own_parts: bool) -> None:
    if labels.min() < 0:
        raise DataError(f"data set {name!r} holds the label {labels.min()}; labels start at 0")
    if labels.max() >= len(labels):  # before they are counted, which takes memory for each class
        raise DataError(
            f"data set {name!r} holds the label {labels.max()} but only {len(labels)} images; "
            "number the classes from 0 without gaps"
        )
    counts = np.bincount(labels)
    if len(counts) < 2 or counts.min() < (1 if own_parts else 3):
        few = int(np.argmin(counts))
        raise DataError(
            f"data set {name!r}: class {few} has {counts[few]} images; "
            "every class from 0 up needs at least 3, one for each split, and there must be two"
        )


def split(
    name: str,
    loaded: Loaded,
    *,
    fractions: tuple[float, float, float],
    rng: np.random.Generator,
) -> Dataset:
    """Split into train, validation and test.

    Splits of the data set's own are kept; one that it lacks is drawn from its training images.
    Drawn ones have the class proportions of the whole, where there are classes.

    Args:
        name: of the data set.
        loaded: at the size of the network, and checked.
        fractions: of train, validation and test, adding up to 1.
        rng: draws.

    Raises:
        DataError: the fractions leave a class, or the data set's own splits leave nothing, to
            train on.
    """
    rows = _own(name, loaded.parts) if loaded.parts is not None else {}
    if missing := [part for part in PARTS if part not in rows]:
        whole = rows.get("train", np.arange(len(loaded.labels)))
        shares = {part: fractions[PARTS.index(part)] for part in missing if part != "train"}
        rows = {**rows, **_draw(name, whole, loaded.labels, shares, rng)}
    every = Split(loaded.images, loaded.labels)
    train, validation, test = (every.take(rows[part]) for part in PARTS)
    return Dataset(
        name,
        loaded.outputs or _count_outputs(loaded.labels),
        train,
        validation,
        test,
        loaded.classes,
        loaded.feed,
        loaded.skipped,
    )


def _count_outputs(labels: Array | Held) -> int:
    """Return how many classes there are, or numbers of each image."""
    if not isinstance(labels, np.ndarray):
        return 0
    if labels.dtype.kind == "f":
        return labels.shape[1] if labels.ndim > 1 else 1
    return int(labels.max()) + 1


def _own(name: str, parts: npt.NDArray[np.int64]) -> dict[str, Rows]:
    rows = {part: np.flatnonzero(parts == number) for number, part in enumerate(PARTS)}
    found = {part: chosen for part, chosen in rows.items() if len(chosen)}
    if "train" not in found:
        raise DataError(
            f"data set {name!r} has images for {' and '.join(found)} and none for training; name "
            "a folder train, or none of the three"
        )
    return found


def _draw(
    name: str,
    whole: Rows,
    labels: Array | Held,
    shares: dict[str, float],
    rng: np.random.Generator,
) -> dict[str, Rows]:
    """Draw test and validation, in this order, out of rows; what is left is for training."""
    parts: dict[str, list[int]] = {"test": [], "validation": [], "train": []}
    for label, group in _groups(whole, labels):
        rows = rng.permutation(group)
        counts = {p: max(1, round(shares[p] * len(rows))) for p in parts if p in shares}
        if sum(counts.values()) >= len(rows):
            (first, some), *others = reversed(counts.items())
            more = "".join(f" and {part} {count}" for part, count in others)
            whose = "there are" if label is None else f"class {label} has"
            raise DataError(
                f"data set {name!r}: {whose} {len(rows)} images, of which {first} takes "
                f"{some}{more}, so none is left to train on; lower "
                "data.split.validation and data.split.test or add images"
            )
        start = 0
        for part, count in counts.items():
            parts[part].extend(rows[start : start + count].tolist())
            start += count
        parts["train"].extend(rows[start:].tolist())
    return {
        part: np.sort(rows) for part, rows in parts.items() if part in shares or part == "train"
    }


def _groups(whole: Rows, labels: Array | Held) -> Sequence[tuple[int | None, Rows]]:
    """Return the rows of each class; all together where there are no classes."""
    if not isinstance(labels, np.ndarray) or labels.dtype.kind == "f" or not labels.any():
        return [(None, whole)]
    own = labels[whole]
    return [(label, whole[own == label]) for label in range(int(labels.max()) + 1)]
