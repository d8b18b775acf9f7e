"""A model file: exported, and verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from models.number_format import NumberFormat
    from pipeline.formats.figures import Verification


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One exported and verified file.

    Attributes:
        network: winner | baseline | another name of a network within the run.
        format: tflite | onnx.
        number_format: of its tensors.
        input: size of the images it reads: (height, width, channels).
        verification: against torch and its own arithmetic, on the validation images.
    """

    network: str
    format: str
    number_format: NumberFormat
    input: tuple[int, int, int]
    path: Path
    sha256: str
    bytes: int
    verification: Verification

    @property
    def accuracy(self) -> float:
        """Accuracy (0..1) of the file on the validation split."""
        if self.verification.accuracy is None:
            raise ValueError(f"{self.path.name} was verified without labels")
        return self.verification.accuracy
