"""What a network is written as, to be measured or deployed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.formats import create

if TYPE_CHECKING:
    from models.number_format import NumberFormat


@dataclass(frozen=True, slots=True)
class Form:
    """A runtime, whose format files have, and a number format: tflite static8, say."""

    runtime: str
    number_format: NumberFormat

    @property
    def suffix(self) -> str:
        """Of its files. Raises ConfigError: no network can be written for this runtime."""
        return create(self.runtime).suffix

    def __str__(self) -> str:
        return f"{self.runtime} {self.number_format}"
