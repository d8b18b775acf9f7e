"""What a compression pass is, and what it may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from device_agents.errors import ConfigError
from pipeline.train.lessons import Lessons

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

__all__ = ["LEARNING", "Lessons", "Needs", "Pass", "Use"]

Use = Literal["calibration", "ranking", "training"]
"""What a pass may use samples for: to see values of activations; to rank what it cuts by the loss
of lessons; or to learn from these, which changes weights."""

LEARNING: frozenset[Use] = frozenset({"ranking", "training"})
"""Uses of `Needs.lessons`."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What passes may ask for beside the network itself.

    Attributes:
        images: (N, C, H, W) float32, prepared like training images; None where there are none.
        inputs: samples of any model's inputs, by their names in the graph, shaped as it says but
            for N samples in place of the batch dimension of 1; None where there are none.
        lessons: what is learnt from; None where nothing can be.
    """

    images: npt.NDArray[np.float32] | None = None
    inputs: Mapping[str, npt.NDArray[Any]] | None = None
    lessons: Lessons | None = None

    def require_images(self, who: str) -> npt.NDArray[np.float32]:
        """Return the images. Raises ConfigError, with the pass that needs them, if there are none.

        `who` is the name of the pass.
        """
        if self.images is None:
            raise ConfigError(
                f"{who} needs images to calibrate on; give --data RECIPE, whose training images "
                "are used"
            )
        return self.images

    def require_lessons(self, who: str) -> Lessons:
        """Return what is learnt from. Raises ConfigError, with the pass, if there is nothing."""
        if self.lessons is None:
            raise ConfigError(
                f"{who} takes samples to learn from, and there are none; give --data FOLDER "
                "of pictures, or an .npz with an array for each input"
            )
        return self.lessons


class Pass(Protocol):
    """Makes a network smaller or faster, and says so in its history.

    One file in `pipeline/compress/passes`, found by listing: a class built from its options, the
    frozen dataclass `Options`, which all have defaults. Invariants: what it is given stays as it
    is; the same input, options and needs give the same result; the result's history has a line
    more, which tells what was done, or that there was nothing to do.
    """

    name: str
    version: int
    """Counted up when the same options come to mean something else: steps that hold its results
    are done again."""

    takes: type
    """`Network`, `Model` or `ModelFile` (`device_agents.model_files`)."""

    uses: frozenset[Use]
    """Which samples of `Needs` it cannot do without."""

    quantizes: bool
    """Whether numbers are codes afterwards: nothing that changes them comes behind it, and its
    options have a `scheme`, the number format."""

    Options: type

    @property
    def options(self) -> Any:
        """Its options, of the class `Options`."""

    def apply(self, what: Any, needs: Needs) -> Any:
        """Return the same kind as it takes, or the next: Network, Model, ModelFile.

        Raises:
            ConfigError: it lacks what it needs, or cannot do this network; one sentence.
        """
