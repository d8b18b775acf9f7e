"""The data set `images`: what it reads, what it keeps of it, and what it refuses."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from device_agents.errors import ConfigError
from models.graph import GraphBuilder
from models.model import random_model
from models.ops import Conv
from pipeline.data import Data, DataError, load_data, load_dataset
from pipeline.data.pictures.decode import BrokenPicture, Frame, decode, decode_mask, examine
from pipeline.recipe.recipe import Recipe

FRACTIONS = (0.6, 0.2, 0.2)
CIFAR = Path("../shared/data/cifar10_jpeg")


def load(path: Path, truths: str = "classes", *, resolution: int = 4, seed: int = 0, **options):  # noqa: ANN201, ANN003
    return load_dataset(
        "images",
        {"path": str(path), **options},
        resolution=resolution,
        fractions=FRACTIONS,
        seed=seed,
        truths=truths,  # type: ignore[arg-type]
    )


def encode(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def write(path: Path, image: Image.Image | np.ndarray, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    path.write_bytes(encode(picture, kind))
    return path


def write_classes(folder: Path, each: int = 5, names: tuple[str, ...] = ("cat", "dog")) -> None:
    for number, name in enumerate(names):
        for index in range(each):
            write(folder / name / f"{index}.png", np.full((8, 8, 3), 10 * index + number, np.uint8))


def pixel(content: bytes, *, grey: bool = False) -> list[int]:
    return decode(content, Frame(1, 1, grey))[0, 0].tolist()


RED = (200, 30, 10)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_kind_is_read_in_red_green_blue(kind: str) -> None:
    found = pixel(encode(Image.new("RGB", (8, 8), RED), kind))
    assert np.allclose(found, RED, atol=8)


def test_pixels_of_every_mode_become_bytes() -> None:
    ramp = (np.arange(64, dtype=np.uint16).reshape(8, 8) + 1) * 1000
    half = np.full((8, 8), 32768, np.uint16)
    assert pixel(encode(Image.fromarray(half)), grey=True) == [128]
    assert pixel(encode(Image.fromarray(half))) == [128, 128, 128]
    deep = decode(encode(Image.fromarray(ramp)), Frame(8, 8, grey=True))[..., 0]
    assert np.abs(deep - ramp / 257).max() <= 0.5
    assert pixel(encode(Image.new("RGB", (8, 8), RED).convert("P"))) == pytest.approx(RED, abs=20)
    assert pixel(encode(Image.new("1", (8, 8), 1))) == [255, 255, 255]
    assert pixel(encode(Image.new("L", (8, 8), 77))) == [77, 77, 77]
    assert pixel(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))[0] > 200
    clear = Image.new("RGBA", (8, 8), (*RED, 0))
    assert pixel(encode(clear)) == [255, 255, 255]
    assert pixel(encode(Image.new("LA", (8, 8), (50, 255)))) == [50, 50, 50]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(orientation: int) -> None:
    upright = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    inverse = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    stored = Image.fromarray(np.ascontiguousarray(inverse(upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encode(stored, exif=exif), Frame(4, 6, grey=True))
    assert np.array_equal(found[..., 0], upright)


def test_a_crop_keeps_the_middle_and_stretching_keeps_all() -> None:
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 255
    content = encode(Image.fromarray(wide))
    assert (decode(content, Frame(4, 4, grey=True)) == 255).all()
    assert decode(content, Frame(4, 12, grey=True, fit="stretch"))[0, :, 0].tolist() == [
        *[0] * 4,
        *[255] * 4,
        *[0] * 4,
    ]
    tall = np.zeros((8, 4), np.uint8)
    tall[3:5, 1:3] = 255
    assert (decode(encode(Image.fromarray(tall)), Frame(2, 2, grey=True, share=0.5)) == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_that_is_cut_short_is_found_without_decoding(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    whole = encode(Image.fromarray(noise), kind)
    assert examine(whole) is False
    for length in (0, 3, 20, len(whole) // 2, len(whole) - 40):
        with pytest.raises(BrokenPicture):
            examine(whole[:length])


def test_a_picture_of_too_many_pixels_is_not_decoded() -> None:
    content = encode(Image.new("1", (20_000, 20_000)))
    assert len(content) < 100_000
    for work in (examine, lambda c: decode(c, Frame(8, 8)), decode_mask):
        with pytest.raises(BrokenPicture, match=r"pixels"):
            work(content)


def test_a_colour_profile_or_odd_metadata_is_no_matter() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert pixel(encode(Image.new("RGB", (8, 8), RED), icc_profile=profile)) == list(RED)


def test_class_folders_are_split_by_class_and_broken_pictures_are_named(tmp_path: Path) -> None:
    write_classes(tmp_path, 10)
    (tmp_path / "cat" / "3.png").write_bytes(b"hello")
    (tmp_path / "dog" / "4.jpg").write_bytes(encode(Image.new("RGB", (9, 9)), "JPEG")[:-30])
    data = load(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert data.input == (4, 4, 3)
    assert sorted(line.partition(":")[0] for line in data.skipped) == ["cat/3.png", "dog/4.jpg"]
    counts = [len(part) for part in (data.train, data.validation, data.test)]
    assert sum(counts) == 19
    seen = np.concatenate(
        [np.asarray(part.images)[:, 0, 0, 0] for part in (data.train, data.validation, data.test)]
    )
    assert len(set(seen.tolist())) == 19
    digest = data.digest()
    assert load(tmp_path).digest() == digest != load(tmp_path, seed=1).digest()
    write(tmp_path / "cat" / "1.png", np.full((8, 8, 3), 99, np.uint8))
    assert load(tmp_path).digest() != digest


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "validation", "Test")])
def test_own_splits_are_kept(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name, each in zip(names, (5, 2, 3), strict=True):
        write_classes(tmp_path / name, each)
    data = load(tmp_path)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [10, 4, 6]
    assert load(tmp_path, seed=5).digest() == data.digest()


def test_a_split_that_is_missing_is_drawn_from_the_training_pictures(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", 10)
    write_classes(tmp_path / "test", 3)
    data = load(tmp_path)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [16, 4, 6]
    (tmp_path / "train").rename(tmp_path / "val")
    with pytest.raises(DataError, match="none for training"):
        load(tmp_path)


def test_archives_named_like_splits_are_splits(tmp_path: Path) -> None:
    for name, each in (("train", 6), ("test", 3)):
        write_classes(tmp_path / "made" / name, each)
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for path in sorted((tmp_path / "made" / name).rglob("*.png")):
                archive.write(path, path.relative_to(tmp_path / "made" / name))
    for path in (tmp_path / "made").rglob("*.png"):
        path.unlink()
    data = load(tmp_path)
    assert len(data.test) == 6
    assert len(data.train) + len(data.validation) == 12


def test_numbers_come_from_a_csv(tmp_path: Path) -> None:
    lines = []
    for index in range(12):
        write(tmp_path / f"{index}.png", np.full((6, 6), 20 * index, np.uint8))
        lines.append(f"{index}.png,{index / 2},{-index}")
    table = tmp_path / "numbers.csv"
    table.write_text("\n".join(("file,size,depth", *lines)))
    for path in (tmp_path, table):
        data = load(path, "numbers")
        assert data.classes == 2
        assert data.input == (4, 4, 1)
        images, labels = data.train.arrays()
        value = (images[:, 0, 0, 0] + 1) * 127.5 / 20
        assert np.allclose(labels, np.stack([value / 2, -value], 1), atol=1e-3)
    table.write_text("file,size\n0.png,big\n")
    with pytest.raises(DataError, match=r"the value 'big' of '0.png' is no number"):
        load(tmp_path, "numbers")


@pytest.mark.parametrize("beside", [True, False], ids=["beside", "folders"])
def test_masks_go_with_their_pictures_at_every_size(tmp_path: Path, beside: bool) -> None:  # noqa: FBT001
    for index in range(10):
        mask = np.zeros((8, 8), np.uint8)
        mask[: index % 8 + 1] = 2
        image = np.where(mask[..., None] == 2, np.array(RED), 0).astype(np.uint8)
        if beside:
            write(tmp_path / f"{index}.png", image)
            write(tmp_path / f"{index}_mask.png", mask)
        else:
            write(tmp_path / "images" / f"{index}.png", image)
            write(tmp_path / "masks" / f"{index}.png", mask)
    write(tmp_path / ("alone.jpg" if beside else "images/alone.jpg"), image, "JPEG")
    data = load(tmp_path, "masks", resolution=8)
    assert data.classes == 3
    assert len(data.skipped) == 1
    assert "alone.jpg: it has no mask" in data.skipped[0]
    for size in (8, 4):
        part = data.at((size, size, 3)).train
        images, labels = part.arrays()
        assert labels.shape == (len(part), size, size)
        assert labels.dtype == np.int64
        if size == 8:
            assert np.array_equal(images[:, 0] > 0, labels == 2)


def test_black_and_white_masks_are_classes_0_and_1(tmp_path: Path) -> None:
    for index in range(6):
        mask = np.zeros((8, 8), np.uint8)
        mask[index:] = 255
        write(tmp_path / f"{index}.jpg", np.full((8, 8, 3), 9, np.uint8), "JPEG")
        write(tmp_path / f"{index}.png", mask)
    data = load(tmp_path, "masks", resolution=8)
    assert data.classes == 2
    assert set(np.unique(data.train.arrays()[1])) == {0, 1}


def test_pictures_alone_suffice_where_nothing_is_held_against_labels(tmp_path: Path) -> None:
    for index in range(10):
        write(tmp_path / f"{index}.png", np.full((6, 6, 3), index, np.uint8))
    data = load(tmp_path, "none")
    assert len(data.train) + len(data.validation) + len(data.test) == 10
    with pytest.raises(DataError, match="lies in no folder of a class"):
        load(tmp_path)


def test_how_pixels_are_fed_is_said_in_the_model(tmp_path: Path) -> None:
    write_classes(tmp_path, 6)
    data = load(tmp_path, mean=[1.0, 2.0, 3.0], scale=[0.5], colours="BGR", classes=["dog", "cat"])
    assert data.class_names == ("dog", "cat")
    builder = GraphBuilder()
    builder.op("conv", "c", [builder.input("input", (1, 4, 4, 3))], Conv(kernel=(1, 1), out=2))
    plain = random_model(builder.graph(), np.random.default_rng(0))
    model = data.describe(plain)
    assert model.inputs[0].mean == (1.0, 2.0, 3.0)
    assert model.inputs[0].scale == (0.5,)
    assert model.inputs[0].colours == "BGR"
    assert model.outputs[0].labels == ("dog", "cat")
    model.save(tmp_path / "model.npz")
    assert type(model).load(tmp_path / "model.npz").inputs == model.inputs
    assert data.describe(model).digest() == model.digest() != plain.digest()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mean": [1.0]}, "one of mean and scale; give both"),
        ({"mean": [1.0, 2.0], "scale": [1.0]}, r"mean = \[1.0, 2.0\] must be one number or 3"),
        ({"share": 0.0}, "share"),
        ({"fit": "squeeze"}, "fit"),
        ({"size": 3}, "size"),
    ],
)
def test_options_that_cannot_be_are_refused(
    tmp_path: Path, options: dict[str, object], said: str
) -> None:
    write_classes(tmp_path)
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, **options)


def test_a_recipe_names_task_and_pictures(tmp_path: Path) -> None:
    write_classes(tmp_path / "set", 6)
    path = tmp_path / "own.toml"
    path.write_text(
        'name = "own"\n[data]\nname = "images"\nresolution = 8\n'
        f'options = {{ path = "{tmp_path / "set"}" }}\n'
    )
    recipe = Recipe.load(path)
    data = load_data(recipe.data, seed=0)
    assert isinstance(data, Data)
    assert data.task.metric == "accuracy"
    with pytest.raises(ConfigError, match="holds pictures and no numbers"):
        load_data(Recipe.load(path, ["data.task=regression"]).data, seed=0)
    digits = Recipe.load(path, ["data.name=digits", "data.options={}", "data.task=segmentation"])
    with pytest.raises(ConfigError, match="holds classes, and the task asks for masks"):
        load_data(digits.data, seed=0)


def test_another_process_decodes_for_itself(tmp_path: Path) -> None:
    write_classes(tmp_path, 6)
    data = load(tmp_path)
    before = np.asarray(data.train.images)
    sent = pickle.loads(pickle.dumps(data))  # noqa: S301
    assert len(pickle.dumps(data)) < 20_000
    assert np.array_equal(np.asarray(sent.train.images), before)


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.is_dir(), reason=f"{CIFAR} is not there")
def test_cifar_10_needs_less_than_a_gibibyte() -> None:
    """60,000 pictures: loaded, hashed, all of them decoded and given as floats batch by batch."""
    program = f"""
from pathlib import Path
from pipeline.data import load_dataset
options = {{"path": "{CIFAR}"}}
data = load_dataset("images", options, resolution=32, fractions=(0.8, 0.1, 0.1), seed=0)
data.digest()
total = 0
for part in (data.train, data.validation, data.test):
    for images, labels in part.batches(256):
        assert images.shape[1:] == (3, 32, 32)
        total += len(labels)
print(total, data.classes, len(data.test), len(data.skipped))
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    counts, peak = done.stdout.split("\n")[:2]
    assert counts == "60000 10 10000 0"
    assert int(peak) < 1 << 20  # KiB
