"""Your own pictures: a folder, zip or tar of class folders, or a CSV of labels, numbers or masks.

JPEG, PNG and WebP. Splits in folders train, val (validation) and test are kept. A broken picture
is named and left out; the others are decoded when they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from device_agents.errors import ConfigError
from device_agents.plain_values import bounds
from models.model import Input
from pipeline.data.api import IGNORED, DataError, Loaded, user_path
from pipeline.data.pictures.decode import BrokenPicture, Fit, Frame, decode_mask, examine, size_of
from pipeline.data.pictures.held import WHITE, hold_masks, hold_pictures
from pipeline.data.pictures.listing import list_pictures
from pipeline.data.pictures.values import Values

if TYPE_CHECKING:
    from pipeline.data.api import Truths
    from pipeline.data.pictures.held import Masked
    from pipeline.data.pictures.listing import Listed


@dataclass(frozen=True, slots=True)
class Images:
    """Options of the data set.

    Attributes:
        path: of a folder, an archive (.zip, .tar, .tar.gz) or a CSV.
        fit: crop: the middle of each picture, in the network's proportions; stretch: all of it.
        share: of a picture's height or width that a crop keeps; networks for ImageNet are often
            tried with 0.875.
        colours: RGB, BGR or grey; empty: grey where every picture is, else RGB.
        mean: of each channel or one for all; a network is fed (pixel - mean) * scale, of pixels
            0..255. Without mean and scale: -1..1.
        scale: likewise.
        classes: their names in the order of the network's outputs; empty: sorted.
    """

    path: str
    fit: Fit = "crop"
    share: float = field(default=1.0, metadata=bounds(above=0, high=1))
    colours: Literal["", "RGB", "BGR", "grey"] = ""
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()

    def load(self, truths: Truths = "classes") -> Loaded:
        """List the pictures and check that they are whole; none is decoded yet.

        Raises:
            DataError: there are none, or they do not have what the task asks for.
        """
        path = user_path(self.path)
        listed = list_pictures(path, truths, self.classes)
        kinds: dict[str, bool] = {}
        listed = listed.without(lambda name: _problem(listed, name, kinds))
        if not len(listed):
            raise DataError(f"{path}: no picture of it can be read; {listed.skipped[0]}")
        colours = self.colours or ("grey" if all(kinds[n] for n in listed.names) else "RGB")
        values = self._values(colours)
        width, height = size_of(listed.files.read(listed.names[0]))
        frame = Frame(height, width, colours == "grey", self.fit, self.share)
        images = hold_pictures(listed.files, listed.names, frame, values)
        labels, outputs = listed.labels, 0
        feed = Input(mean=values.mean, scale=values.scale, colours=colours)
        rest = (listed.parts, listed.classes)
        if truths == "masks":
            masked, outputs = _count_classes(listed)
            masks = hold_masks(listed.files, listed.masks, frame, masked)
            return Loaded(images, masks, *rest, outputs, feed, listed.skipped)
        if labels is None:
            labels = np.zeros(len(listed), np.int64)
        return Loaded(images, labels, *rest, outputs, feed, listed.skipped)

    def _values(self, colours: str) -> Values:
        channels = 1 if colours == "grey" else 3
        if bool(self.mean) != bool(self.scale):
            raise ConfigError(
                "data set 'images': data.options has one of mean and scale; give both: a network "
                "is fed (pixel - mean) * scale"
            )
        if not self.mean:
            return Values(colours=colours)
        for key, values in (("mean", self.mean), ("scale", self.scale)):
            if len(values) not in (1, channels) or not np.isfinite(values).all():
                raise ConfigError(
                    f"data set 'images': data.options.{key} = {list(values)} must be one number or "
                    f"{channels}, one for each channel"
                )
        return Values(self.mean, self.scale, colours)


def _problem(listed: Listed, name: str, kinds: dict[str, bool]) -> str:
    """Return what is wrong with a picture; keep whether it is grey."""
    try:
        kinds[name] = examine(listed.files.read(name))
    except BrokenPicture as error:
        return str(error)
    except DataError as error:
        return f"it cannot be read ({error})"
    return ""


def _count_classes(listed: Listed) -> tuple[Masked, int]:
    """Return how masks say their classes, and how many there are."""
    seen: set[int] = set()
    for name in listed.masks:
        try:
            seen.update(np.unique(decode_mask(listed.files.read(name))).tolist())
        except BrokenPicture as error:
            raise DataError(f"{listed.files.path}: the mask {name!r} is none: {error}") from error
    if seen == {0, WHITE}:
        return "black and white", 2
    classes = max(seen - {IGNORED}, default=0) + 1
    if classes < 2:
        raise DataError(
            f"{listed.files.path}: its masks name one class only; a mask's values are the numbers "
            "of classes, 0 for the background, or black and white"
        )
    return "numbers", classes
