from __future__ import annotations

import gzip
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from device_agents.errors import ConfigError
from pipeline.data import DATASETS, DataError, load_dataset
from pipeline.data.api import resize

if TYPE_CHECKING:
    from pathlib import Path

FRACTIONS = (0.6, 0.2, 0.2)


def write_npz(path: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    np.savez(path, images=images, labels=labels)
    return path


def pictures(count: int = 30, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 9, 7, 3), np.uint8), np.arange(count) % classes


def load_npz(path: Path, seed: int = 0):  # noqa: ANN201
    return load_dataset("npz", {"path": str(path)}, resolution=8, fractions=FRACTIONS, seed=seed)


def test_digits_are_split_by_class_and_the_split_is_fixed() -> None:
    digits = load_dataset("digits", {}, resolution=32, fractions=FRACTIONS, seed=0)
    assert digits.input == (32, 32, 1)
    assert (digits.classes, len(digits.train), len(digits.validation), len(digits.test)) == (
        10,
        1079,
        359,
        359,
    )
    for split in (digits.train, digits.validation, digits.test):
        shares = np.bincount(split.labels) / len(split)
        assert np.abs(shares - 0.1).max() < 0.01
    again = load_dataset("digits", {}, resolution=32, fractions=FRACTIONS, seed=0)
    other = load_dataset("digits", {}, resolution=32, fractions=FRACTIONS, seed=1)
    assert again.digest() == digits.digest() != other.digest()


def test_no_image_is_in_two_splits(tmp_path: Path) -> None:
    images, labels = pictures()
    images[:] = np.arange(30, dtype=np.uint8)[:, None, None, None]
    data = load_npz(write_npz(tmp_path / "d.npz", images, labels))
    seen = [float(i[0, 0, 0]) for s in (data.train, data.validation, data.test) for i in s.images]
    assert len(seen) == len(set(seen)) == 30


@pytest.mark.parametrize("size", [4, 8, 13, 32])
def test_resize_is_bilinear_with_half_pixel_centres(size: int) -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    want = functional.interpolate(torch.from_numpy(images), size=(size, size), mode="bilinear")
    assert np.allclose(resize(images, size), want.numpy(), atol=1e-5)


def test_npz_scales_bytes_and_moves_channels_first(tmp_path: Path) -> None:
    data = load_npz(write_npz(tmp_path / "d.npz", *pictures()))
    assert data.input == (8, 8, 3)
    assert data.classes == 3
    assert -1 <= data.train.images.min() < data.train.images.max() <= 1


def test_idx_reads_gzipped_files(tmp_path: Path) -> None:
    images, labels = pictures()
    gray = images[..., 0]
    (tmp_path / "i.gz").write_bytes(
        gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", *gray.shape) + gray.tobytes())
    )
    (tmp_path / "l").write_bytes(
        bytes([0, 0, 8, 1]) + struct.pack(">I", 30) + labels.astype(np.uint8).tobytes()
    )
    options = {"images": str(tmp_path / "i.gz"), "labels": str(tmp_path / "l")}
    data = load_dataset("idx", options, resolution=9, fractions=FRACTIONS, seed=0)
    assert data.input == (9, 9, 1)
    (tmp_path / "l").write_bytes((tmp_path / "l").read_bytes()[:-1])
    with pytest.raises(DataError, match="cut short or damaged"):
        load_dataset("idx", options, resolution=9, fractions=FRACTIONS, seed=0)
    (tmp_path / "l").write_bytes(b"hello")
    with pytest.raises(DataError, match="not an IDX file"):
        load_dataset("idx", options, resolution=9, fractions=FRACTIONS, seed=0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda i, _l: (i[:0], np.zeros(0, int)), "holds no images"),
        (lambda i, _l: (i, np.zeros(5, int)), "30 images but 5 labels"),
        (lambda i, _l: (i, np.zeros(30, int)), "class 0 has 30 images"),
        (lambda i, l: (i, np.where(l == 2, 9, l)), "class 2 has 0 images"),
        (lambda i, l: (i, l - 1), "label -1"),
        (lambda i, l: (i.astype(np.float32) * np.nan, l), "NaN or infinite"),
        (lambda i, l: (i, l.astype(np.float32)), "must be"),
        (lambda i, l: (i[0], l), "must be|images but"),
    ],
)
def test_unusable_data_is_one_sentence(tmp_path: Path, change, sentence: str) -> None:  # noqa: ANN001
    path = write_npz(tmp_path / "d.npz", *change(*pictures()))
    with pytest.raises(DataError, match=sentence):
        load_npz(path)


def test_damaged_npz_is_one_sentence(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz", *pictures())
    whole = path.read_bytes()
    for content in (b"", b"not a zip", whole[:200], whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a readable"):
            load_npz(path)
    np.savez(path, pictures=np.zeros(3))
    with pytest.raises(DataError, match="has no array"):
        load_npz(path)
    with pytest.raises(DataError, match="no file"):
        load_npz(tmp_path / "nothing.npz")


def test_unknown_data_set_and_option_name_the_known() -> None:
    assert DATASETS.names() == ["digits", "idx", "npz"]
    with pytest.raises(ConfigError, match="no data set 'digit' known; have digits"):
        load_dataset("digit", {}, resolution=8, fractions=FRACTIONS, seed=0)
    with pytest.raises(ConfigError, match="no option 'pth'; known: path"):
        load_dataset("npz", {"pth": "x"}, resolution=8, fractions=FRACTIONS, seed=0)
