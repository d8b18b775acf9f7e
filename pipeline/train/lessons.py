"""What a network learns from: samples with their truths, and networks that teach."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.errors import ConfigError
from pipeline.data.api import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from models.graph import Graph
    from models.model import Model
    from pipeline.data.task import Task
    from pipeline.train.checkpoints import Checkpoints

_CHECKED_ROWS = 1024


def _quiet(_words: str) -> None:
    """Tell nobody."""


def _kept_nowhere(_name: str) -> Checkpoints | None:
    return None


@dataclass(frozen=True, slots=True)
class Lessons:
    """What is learnt from.

    Attributes:
        inputs: samples by the names of the graph's inputs, shaped as it says but for N samples in
            place of the batch dimension of 1; nothing is judged on them.
        truths: (N, …) of the task, for the first output; None where there are none, and only a
            teacher is imitated.
        task: what counts as good, with its losses.
        teachers: networks in real numbers with the inputs of the one that learns, usually the
            model as it came; their outputs are averaged.
        seed: of every random draw.
        checkpoints: gives a place for a training's state by the name of the training, so that it
            goes on where it was killed; None where nothing is kept.
        tell: is told how far it is.
    """

    inputs: Mapping[str, npt.NDArray[Any]]
    truths: npt.NDArray[Any] | None
    task: Task
    teachers: tuple[Model, ...] = ()
    seed: int = 0
    checkpoints: Callable[[str], Checkpoints | None] = _kept_nowhere
    tell: Callable[[str], object] = _quiet

    def __len__(self) -> int:
        """Return the number of samples."""
        return max(map(len, self.inputs.values()), default=0)

    def check(self, graph: Graph) -> None:
        """Refuse what a network cannot learn from.

        Raises:
            ConfigError: other inputs than the graph's, fewer than two samples, numbers that are
                none, or truths that its first output cannot be held against.
        """
        needed = {tensor.name: tensor.shape[1:] for tensor in graph.inputs}
        given = {name: values.shape[1:] for name, values in self.inputs.items()}
        if given != needed or {len(values) for values in self.inputs.values()} != {len(self)}:
            shapes = {name: values.shape for name, values in self.inputs.items()}
            raise ConfigError(
                f"the samples to learn from have the shapes {shapes}; the network needs "
                f"{ {name: ('N', *shape) for name, shape in needed.items()} }, each with the same N"
            )
        if len(self) < 2:
            raise ConfigError(
                f"a network cannot learn from {len(self)} sample{'s' * (len(self) != 1)}; give two "
                "or more, and some hundreds to gain by it"
            )
        for name, values in self.inputs.items():
            if values.dtype != np.dtype(graph.dtype(name)):
                raise ConfigError(
                    f"the samples to learn from are {values.dtype} in input {name!r}; the network "
                    f"needs {graph.dtype(name)}"
                )
            if (row := _first_not_finite(values)) is not None:
                raise ConfigError(
                    f"the samples to learn from hold NaN or infinite numbers in input {name!r}, "
                    f"first in sample {row}; leave that sample out"
                )
        if self.truths is not None:
            self._check_truths(self.truths, graph.shape(graph.outputs[0]))

    def _check_truths(self, truths: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
        """Hold truths against the shape of the output that is to be like them."""
        if len(truths) != len(self):
            raise ConfigError(
                f"there are {len(self)} samples to learn from and {len(truths)} truths"
            )
        kind, sample = self.task.truths, truths.shape[1:]
        numbers = f"truths {truths.dtype} of the shape {('N', *sample)}"
        if kind in ("classes", "masks"):
            fits = truths.dtype.kind in "iu" and len(sample) == (2 if kind == "masks" else 0)
            counted = truths[truths != IGNORED] if kind == "masks" else truths
            classes = shape[-1]
            if kind == "classes" and prod(shape[:-1]) != 1:
                fits = False  # one row of scores for each sample
            if not fits or (kind == "masks" and len(shape) != 4):
                raise ConfigError(
                    f"{numbers} are no classes that an output of the shape {shape} can learn; "
                    "choose another task, or leave the truths out to imitate the teacher alone"
                )
            if classes < 2 or (len(counted) and not 0 <= counted.min() <= counted.max() < classes):
                most = f"{counted.min()} to {counted.max()}" if len(counted) else "none"
                raise ConfigError(
                    f"the truths are classes {most} and the output of the shape {shape} tells "
                    f"{classes} apart{', and learning needs two' * (classes < 2)}; leave the "
                    "truths out to imitate the teacher alone"
                )
        elif shape[:1] != (1,) or prod(sample) != prod(shape[1:]):
            raise ConfigError(f"{numbers} cannot be learnt by an output of the shape {shape}")
        elif _first_not_finite(truths) is not None:
            raise ConfigError(
                f"truth {_first_not_finite(truths)} of those to learn from is NaN or infinite"
            )


def _first_not_finite(values: npt.NDArray[Any]) -> int | None:
    """Return the first sample with a number that is none; None where all are good."""
    if values.dtype.kind != "f":
        return None
    for start in range(0, len(values), _CHECKED_ROWS):
        rows = values[start : start + _CHECKED_ROWS]
        finite = np.isfinite(rows).reshape(len(rows), -1).all(1)
        if not finite.all():
            return start + int(np.argmin(finite))
    return None
