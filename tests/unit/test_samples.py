from __future__ import annotations

import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from device_agents.errors import ConfigError
from models.graph import GraphBuilder
from models.model import Input, Model, random_model
from models.ops import Conv
from pipeline.data.api import DataError
from pipeline.data.pictures.values import Values
from pipeline.data.samples import End, ends_of, samples
from pipeline.formats.ends import FileEnds, TensorFormat
from pipeline.formats.samples import sample_ends

if TYPE_CHECKING:
    from pathlib import Path

PICTURE = End("x", (1, 6, 4, 3), layout="NHWC", also="image")
FEW = (End("sound", (1, 8)), End("rate", (), "int64"))


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_classes(folder: Path, each: int = 4) -> None:
    """Write pictures of one colour, which tells each from all others."""
    for number, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            pixels = np.full((12, 8, 3), 40 * index + number, np.uint8)
            (folder / name / f"{index}.png").write_bytes(png(pixels))


def pack(folder: Path, target: Path) -> Path:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path in files:
                archive.write(path, path.relative_to(folder))
    else:
        with tarfile.open(target, "w:gz" if target.suffix == ".gz" else "w") as archive:
            for path in files:
                archive.add(path, path.relative_to(folder))
    return target


@pytest.mark.parametrize("kind", ["", "set.zip", "set.tar", "set.tar.gz"])
def test_pictures_of_class_folders_become_inputs_with_their_classes(
    tmp_path: Path, kind: str
) -> None:
    write_classes(tmp_path / "set")
    path = pack(tmp_path / "set", tmp_path / kind) if kind else tmp_path / "set"
    found = samples(path, [PICTURE])
    assert found.inputs["x"].shape == (8, 6, 4, 3)
    assert found.inputs["x"].dtype == np.float32
    assert found.labels is not None
    assert found.labels.tolist() == [0] * 4 + [1] * 4
    assert found.classes == ("cat", "dog")
    wanted = np.array([0, 40, 80, 120, 1, 41, 81, 121]) / 127.5 - 1
    assert np.allclose(found.inputs["x"], wanted[:, None, None, None])


def test_pixels_are_fed_as_the_model_says_in_its_layout_and_colours(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("a", "b"):
        pixels = np.broadcast_to(np.array([10, 20, 30], np.uint8), (5, 5, 3))
        (tmp_path / name / "1.png").write_bytes(png(np.ascontiguousarray(pixels)))
    values = Values((1.0, 2.0, 3.0), (0.5, 1.0, 2.0), "BGR")
    end = End("x", (1, 3, 5, 5), layout="NCHW", values=values)
    found = samples(tmp_path, [end]).inputs["x"]
    assert found.shape == (2, 3, 5, 5)
    assert found[0, :, 0, 0].tolist() == [14.5, 18.0, 14.0]


def test_the_classes_of_a_model_count_in_its_order(tmp_path: Path) -> None:
    write_classes(tmp_path, 1)
    found = samples(tmp_path, [PICTURE], classes=("dog", "bird", "cat"))
    assert found.labels is not None
    assert found.labels.tolist() == [2, 0]
    assert found.classes == ("dog", "bird", "cat")


def test_so_many_are_evenly_spread(tmp_path: Path) -> None:
    write_classes(tmp_path)
    found = samples(tmp_path, [PICTURE], most=4)
    assert len(found) == 4
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 1, 1]


def test_own_splits_tell_pictures_apart(tmp_path: Path) -> None:
    for part, each in (("train", 4), ("val", 2), ("test", 3)):
        write_classes(tmp_path / part, each)
    counts = [
        len(samples(tmp_path, [PICTURE], part=part)) for part in ("train", "validation", "test")
    ]
    assert counts == [8, 4, 6]


def test_a_broken_picture_is_named_and_left_out(tmp_path: Path) -> None:
    write_classes(tmp_path)
    (tmp_path / "cat" / "2.png").write_bytes(b"hello")
    whole = (tmp_path / "dog" / "1.png").read_bytes()
    (tmp_path / "dog" / "1.png").write_bytes(whole[: len(whole) // 2])
    found = samples(tmp_path, [PICTURE])
    assert len(found) == 6
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert "2 files left out" in found.words
    assert "cat/2.png: it is no JPEG" in found.words
    assert "dog/1.png" in found.words


def test_pictures_without_classes_have_no_labels(tmp_path: Path) -> None:
    write_classes(tmp_path / "set")
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted((tmp_path / "set").rglob("*.png"))):
        (flat / f"{number}.png").write_bytes(path.read_bytes())
    found = samples(flat, [PICTURE])
    assert found.labels is None
    assert len(found) == 8


def test_a_csv_gives_labels_or_numbers(tmp_path: Path) -> None:
    write_classes(tmp_path)
    table = tmp_path / "labels.csv"
    table.write_text("file,label\ncat/0.png,cat\ndog/3.png,dog\ncat/9.png,cat\n")
    found = samples(table, [PICTURE])
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1]
    assert "cat/9.png: line 4 names it, it is not there" in found.words
    table.write_text("cat/0.png,0.5,1\ndog/3.png,-2,3e1\n")
    numbers = samples(table, [PICTURE], truths="numbers").labels
    assert numbers is not None
    assert numbers.tolist() == [[0.5, 1.0], [-2.0, 30.0]]


def test_an_npz_has_an_array_for_each_input(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, sound=np.ones((5, 8)), rate=np.int32(16000), labels=np.arange(5))
    found = samples(path, FEW)
    assert list(found.inputs) == ["sound", "rate"]
    assert found.inputs["sound"].dtype == np.float32
    assert found.inputs["rate"].tolist() == [16000] * 5
    assert found.inputs["rate"].dtype == np.int64
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 3, 4]


def test_an_npz_may_use_either_name_and_either_layout(tmp_path: Path) -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 6, 4, 3))
    builder.op("conv", "c", [x], Conv(kernel=(1, 1), out=2))
    model = random_model(builder.graph(), np.random.default_rng(0))
    named = Model(model.graph, model.weights, inputs=(Input("pixels"),))
    images = np.random.default_rng(0).standard_normal((2, 3, 6, 4)).astype(np.float32)
    path = tmp_path / "data.npz"
    for name in ("pixels", "x"):
        for array in (images, images.transpose(0, 2, 3, 1)):
            np.savez(path, **{name: array})
            found = samples(path, ends_of(named)).inputs["x"]
            assert np.array_equal(found, images.transpose(0, 2, 3, 1))
    np.savez(path, x=images[:, None].transpose(0, 1, 3, 4, 2))  # each with its batch dimension
    assert np.array_equal(samples(path, ends_of(named)).inputs["x"], images.transpose(0, 2, 3, 1))
    np.savez(path, pictures=images)  # of the only input, whatever it is called
    assert np.array_equal(samples(path, ends_of(named)).inputs["x"], images.transpose(0, 2, 3, 1))
    np.savez(path, images)  # without a name
    assert np.array_equal(samples(path, ends_of(named)).inputs["x"], images.transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"sound": np.ones((5, 7)), "rate": 1}, "'sound' has the shape [5, 7]; the model needs (N"),
        ({"sounds": np.ones((5, 8)), "rate": 1}, "no such input; did you mean 'sound'? "),
        (
            {"sound": np.ones((5, 8))},
            "no array for the input 'rate'; its inputs are sound and rate",
        ),
        ({"sound": np.full((2, 8), np.nan), "rate": 1}, "16 numbers that are NaN or infinite"),
        ({"sound": np.ones((5, 8)), "rate": np.ones(3, int)}, "different numbers of samples"),
        ({"sound": np.ones((5, 8)), "rate": 0.5}, "holds numbers that are no int64"),
        ({"sound": np.full((1, 8), "a"), "rate": 1}, "is of the type <U1"),
    ],
    ids=["shape", "name", "missing", "nan", "counts", "fraction", "text"],
)
def test_what_does_not_fit_is_said_in_one_sentence(
    tmp_path: Path, arrays: dict[str, np.ndarray], said: str
) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError) as caught:
        samples(path, FEW)
    assert said in str(caught.value)
    assert "data.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pictures_for_what_is_no_picture_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path)
    with pytest.raises(DataError, match=r"sound \[1, 8\], rate \[\], which is not one picture"):
        samples(tmp_path, FEW)
    with pytest.raises(DataError, match=r"--input-shape x=1xNxNx3"):
        samples(tmp_path, [End("x", (1, -1, -1, 3), layout="NHWC")])


@pytest.mark.parametrize("name", ["none", "none.zip", "none.csv", "none.npz", "none.toml"])
def test_what_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"none"):
        samples(tmp_path / name, [PICTURE])


def test_an_archive_whose_names_lead_out_of_it_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "set")
    content = (tmp_path / "set" / "cat" / "0.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "slip.zip", "w") as archive:
        archive.writestr("cat/0.png", content)
        archive.writestr("../../dog/0.png", content)
    with tarfile.open(tmp_path / "slip.tar", "w") as tar:
        info = tarfile.TarInfo("/dog/0.png")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    for name in ("slip.zip", "slip.tar"):
        with pytest.raises(DataError, match="leads out of the archive"):
            samples(tmp_path / name, [PICTURE])


def test_a_recipe_gives_the_images_of_its_data(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('name = "own"\n[data]\nname = "digits"\nresolution = 8\n')
    found = samples(path, [End("x", (1, 16, 16, 1), layout="NHWC")], part="train", most=20)
    assert found.inputs["x"].shape == (20, 16, 16, 1)
    assert found.labels is not None
    assert len(set(found.labels.tolist())) > 5


def test_a_file_is_given_pixels_as_its_codes_and_a_batch_dimension(tmp_path: Path) -> None:
    write_classes(tmp_path)
    codes = TensorFormat("x", "int8", (1, 6, 4, 3), 0.5, -8)
    file = FileEnds("NHWC", (codes,), (TensorFormat("y", "int8", (1, 2), 1.0, 0),))
    ends = sample_ends(file)
    given = samples(tmp_path, ends).whole(ends)
    encoded = file.encode(given)["x"]
    assert encoded.shape == (8, 1, 6, 4, 3)
    assert (encoded[:, 0, 0, 0, 0].astype(int) + 128).tolist() == [0, 40, 80, 120, 1, 41, 81, 121]


@pytest.mark.parametrize(
    ("shape", "usual", "layout"),
    [
        ((1, 3, 8, 8), "NHWC", "NCHW"),
        ((1, 8, 8, 3), "NCHW", "NHWC"),
        ((1, 3, 8, 3), "NCHW", "NCHW"),
        ((-1, -1, -1, 1), "NCHW", "NHWC"),
    ],
)
def test_the_axis_of_colours_is_found(shape: tuple[int, ...], usual: str, layout: str) -> None:
    floats = TensorFormat("x", "float32", shape)
    assert sample_ends(FileEnds(usual, (floats,), (floats,)))[0].layout == layout
