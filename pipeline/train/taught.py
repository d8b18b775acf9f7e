"""What teachers give for the samples of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from models.graph import Graph
    from pipeline.train.imitation import Goal, Teachers
    from pipeline.train.lessons import Lessons

KEPT_BYTES = 2**28
"""What teachers give is computed once and kept if it is no more, else anew for each batch."""


@dataclass(frozen=True, slots=True)
class Taught:
    """What teachers give for samples: asked each time, or all of it asked once and kept."""

    teachers: Teachers
    kept: dict[str, torch.Tensor] | None

    @classmethod
    def of(
        cls,
        teachers: Teachers,
        goal: Goal,
        graph: Graph,
        lessons: Lessons,
        *,
        device: torch.device,
        size: int,
        varied: bool,
    ) -> Taught:
        """Ask teachers for all samples, if what they give takes little memory.

        Args:
            teachers: who are asked.
            goal: names what is imitated.
            graph: of the one that learns.
            lessons: the samples.
            device: where teachers run.
            size: of batches.
            varied: whether samples are others each time, so that nothing can be kept.
        """
        values = sum(math.prod(graph.shape(name)) for name in goal.names)
        # What has no row for each sample cannot be chosen by samples.
        rows_of_samples = all(graph.shape(name)[:1] == (1,) for name in goal.names)
        if varied or not rows_of_samples or 4 * values * len(lessons) > KEPT_BYTES:
            return cls(teachers, None)
        parts = [
            teachers(batch(lessons.inputs, rows, device))
            for rows in np.array_split(np.arange(len(lessons)), -(-len(lessons) // size))
        ]
        return cls(teachers, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    def __call__(
        self, inputs: Mapping[str, torch.Tensor], rows: npt.NDArray[Any]
    ) -> dict[str, torch.Tensor]:
        """Return the teachers' tensors of a batch: the inputs of these rows of the samples."""
        if self.kept is None:
            return self.teachers(inputs)
        return {name: values[torch.from_numpy(rows)] for name, values in self.kept.items()}


def batch(
    inputs: Mapping[str, npt.NDArray[Any]], rows: npt.NDArray[Any], device: torch.device
) -> dict[str, torch.Tensor]:
    """Return some of the samples on a device."""
    return {name: torch.from_numpy(values[rows]).to(device) for name, values in inputs.items()}
