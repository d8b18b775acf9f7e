"""What a user gives with --data, as inputs of a model: to calibrate, to compare, to score.

Pictures (a folder, an archive, a CSV of labels) for a model that reads one picture; an .npz with
an array for each input, or a recipe, for any.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from device_agents import bounded
from pipeline.data import load_data
from pipeline.data.api import DataError
from pipeline.data.pictures.decode import BrokenPicture, Frame, decode, decode_mask
from pipeline.data.pictures.files import SUFFIXES as ARCHIVES
from pipeline.data.pictures.listing import choose_part, has_parts, list_pictures
from pipeline.data.pictures.values import Values
from pipeline.data.sample_arrays import read_arrays
from pipeline.recipe.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from models.model import Model
    from pipeline.data.api import Truths
    from pipeline.data.pictures.listing import Listed

Array = npt.NDArray[Any]
Part = Literal["train", "validation", "test"]

_NAMED_MOST = 3


@dataclass(frozen=True, slots=True)
class End:
    """An input as samples are made for it.

    Attributes:
        name: what samples of it are called.
        shape: whole, with the batch dimension if it has one; -1 for what is left open.
        dtype: numpy's name; float32 for an input of codes, which are given as real values.
        layout: of `shape` where that is a picture's: NHWC or NCHW.
        also: another name by which users know it.
        values: how pixels become what it is fed; None where nothing is known of that.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: str = ""
    also: str = ""
    values: Values | None = None

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample: without a batch dimension of 1 or of any length."""
        return self.shape[1:] if self.shape and self.shape[0] in (1, -1) else self.shape


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs of a model, with their truths if those are known.

    Attributes:
        inputs: by the names of the ends, in their order: (N, …) with `End.sample_shape` behind N.
        labels: (N,) classes, (N, k) numbers, (N, H, W) maps of classes; None without any.
        classes: what the classes are called, in order; empty where that is not known.
        skipped: a line for each file that was left out, with its name and why.
        guessed: whether nobody said how pixels become what the model is fed (`End.values`).
        parted: whether the source tells samples to learn from and samples to judge by apart; where
            it does not, every part of it is all of it.
    """

    inputs: dict[str, Array]
    labels: Array | None = None
    classes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = field(default=())
    guessed: bool = False
    parted: bool = False

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(next(iter(self.inputs.values())))

    def whole(self, ends: Sequence[End]) -> dict[str, Array]:
        """Return the inputs (N, *shape) with the batch dimension of 1 of each end that has one."""
        return {
            end.name: array if end.sample_shape == end.shape else array[:, None]
            for end, array in zip(ends, self.inputs.values(), strict=True)
        }

    @property
    def words(self) -> str:
        """What was left out, in a sentence; empty if nothing was."""
        if not self.skipped:
            return ""
        named = "; ".join(self.skipped[:_NAMED_MOST])
        more = len(self.skipped) - _NAMED_MOST
        return f"{len(self.skipped)} files left out: {named}" + (
            f"; {more} more" if more > 0 else ""
        )


def ends_of(model: Model) -> tuple[End, ...]:
    """Return the inputs of a model as its graph has them, known by their names in files too."""
    return tuple(
        End(
            name=tensor.name,
            shape=tensor.shape,
            dtype=tensor.dtype,
            layout="NHWC" if len(tensor.shape) == 4 else "",
            also=end.name,
            values=Values.of(end),
        )
        for tensor, end in zip(model.graph.inputs, model.inputs, strict=True)
    )


def samples(
    path: Path,
    ends: Sequence[End],
    *,
    truths: Truths = "classes",
    part: Part = "validation",
    most: int | None = None,
    classes: Sequence[str] = (),
) -> Samples:
    """Read samples for a model's inputs.

    Args:
        path: a folder, an archive (.zip, .tar, .tar.gz) or a CSV of pictures, an .npz of arrays,
            or a recipe (.toml), whose [data] is taken.
        ends: the model's inputs (`ends_of` a model).
        truths: what the task holds outputs against; pictures without classes have none.
        part: which pictures are taken where train/, val/ and test/ tell them apart.
        most: take so many, evenly spread; all if there are fewer or it is None.
        classes: what the model's outputs are called, if that is known.

    Raises:
        ConfigError: one sentence: what cannot be read, an input that does not exist, a wrong shape
            or type, a number that is none.
    """
    if path.suffix.lower() == ".npz":
        return Samples(*read_arrays(path, ends, most))
    if path.suffix.lower() == ".toml":
        return _of_recipe(path, ends, part, most)
    known = (*ARCHIVES, ".csv", ".npz", ".toml")
    if not bounded.is_folder(path) and not path.name.lower().endswith(known):
        if not bounded.is_file(path):
            raise DataError(
                f"no data {str(path)!r}; give a folder of pictures or an .npz of arrays"
            )
        raise DataError(
            f"{path} is no data that is known: give a folder, one of {', '.join(known)}"
        )
    return _of_pictures(path, ends, truths, part, most, classes)


def _of_recipe(path: Path, ends: Sequence[End], part: Part, most: int | None) -> Samples:
    recipe = Recipe.load(path)
    end = _picture_end(path, ends)
    dataset = load_data(recipe.need_data("--data"), seed=recipe.seed).at(_picture_size(end))
    split = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}[part]
    rows = np.linspace(0, len(split) - 1, min(most or len(split), len(split))).astype(int)
    images = split.images[rows]
    fed = images if end.layout == "NCHW" else images.transpose(0, 2, 3, 1)
    return Samples({end.name: np.ascontiguousarray(fed)}, split.labels[rows], parted=True)


def _of_pictures(
    path: Path,
    ends: Sequence[End],
    truths: Truths,
    part: Part,
    most: int | None,
    classes: Sequence[str],
) -> Samples:
    end = _picture_end(path, ends)
    height, width, channels = _picture_size(end)
    frame = Frame(height, width, grey=channels == 1)
    values = end.values or (Values(colours="grey") if channels == 1 else Values())
    try:
        listed = list_pictures(path, truths, classes)
    except DataError:
        if truths != "classes":
            raise
        listed = list_pictures(path, "none")
    parted = has_parts(listed)
    listed = choose_part(listed, part)
    kept, pixels, masks, skipped = _decoded(listed, frame, most)
    if not pixels:
        raise DataError(f"{path}: none of its {len(listed)} pictures can be read; {skipped[0]}")
    fed = values.feed(np.stack(pixels))  # (N, C, H, W)
    fed = fed if end.layout == "NCHW" else np.ascontiguousarray(fed.transpose(0, 2, 3, 1))
    fed = fed.reshape(len(fed), *end.sample_shape) if -1 not in end.sample_shape else fed
    labels = np.stack(masks).astype(np.int64) if masks else None
    if listed.labels is not None:
        labels = listed.labels[kept]
    left_out = (*listed.skipped, *skipped)
    return Samples(
        {end.name: fed},
        labels,
        listed.classes,
        left_out,
        guessed=end.values is None,
        parted=parted,
    )


def _decoded(
    listed: Listed, frame: Frame, most: int | None
) -> tuple[list[int], list[Array], list[Array], list[str]]:
    """Decode pictures evenly spread over those there are; what is broken is named and skipped."""
    count = len(listed) if most is None else min(most, len(listed))
    kept, pixels, masks, skipped = [], [], [], []
    for row in np.linspace(0, len(listed) - 1, count).astype(int).tolist():
        name = listed.names[row]
        try:
            picture = decode(listed.files.read(name), frame)
            if listed.masks:
                name = listed.masks[row]
                masks.append(decode_mask(listed.files.read(name), frame))
        except BrokenPicture as error:
            skipped.append(f"{name}: {error}")
            continue
        kept.append(row)
        pixels.append(picture)
    return kept, pixels, masks, skipped


def _picture_end(path: Path, ends: Sequence[End]) -> End:
    """Return the only input if it is a picture."""
    shapes = ", ".join(f"{end.name} {list(end.shape)}" for end in ends)
    if len(ends) != 1 or len(ends[0].shape) not in (3, 4) or not _is_picture(ends[0]):
        raise DataError(
            f"{path} holds pictures, and the model reads {shapes}, which is not one picture of 1 "
            "or 3 channels; give an .npz with an array for each input"
        )
    return ends[0]


def picture_size(path: Path, ends: Sequence[End]) -> tuple[int, int, int]:
    """Return (height, width, channels) of the only input; `path` is for the sentence.

    Raises:
        DataError: there are other inputs, or that is no picture or of an open size.
    """
    return _picture_size(_picture_end(path, ends))


def _is_picture(end: End) -> bool:
    channels = end.shape[1 if end.layout == "NCHW" else -1]
    return channels in (1, 3) and end.dtype in ("float32", "float16", "uint8")


def _picture_size(end: End) -> tuple[int, int, int]:
    size = end.shape[-3:]
    height, width, channels = (size[1], size[2], size[0]) if end.layout == "NCHW" else size
    if min(height, width) < 1:
        raise DataError(
            f"the model leaves the size of its input {end.name!r} open ({list(end.shape)}); pin it "
            f"with --input-shape {end.name}={'x'.join('N' if n < 0 else str(n) for n in end.shape)}"
        )
    return height, width, channels
