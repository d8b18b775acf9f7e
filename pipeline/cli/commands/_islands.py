"""What layers that stay in float32 cost in milliseconds, beside codes throughout and float32."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.model import Model
    from pipeline.cli.commands._compress_device import Timing
    from pipeline.evaluate.two_files import TwoFiles
    from pipeline.formats.api import Format
    from pipeline.formats.ends import Array
    from pipeline.formats.subjects import Subject


@dataclass(frozen=True, slots=True)
class Islands:
    """A file of codes with some layers in float32, timed in turns with two others.

    Attributes:
        device: on which.
        count: ops that were left in float32 so that less is lost.
        beside_codes: with codes throughout; None where no op was left.
        beside_float: with the model in float32.
    """

    device: str
    count: int
    beside_codes: TwoFiles | None
    beside_float: TwoFiles

    @property
    def sentences(self) -> list[str]:
        """Say what the layers cost, and whether the file is any faster than float32."""
        said = []
        if self.beside_codes is not None:
            found = self.beside_codes
            low, high = found.ratio_ci95
            more_ms = found.second_ms - found.first_ms
            said.append(
                f"the {self.count} ops in float32 cost {more_ms:.4f} ms on {self.device}: "
                f"{found.second_ms:.4f} against {found.first_ms:.4f} ms with codes throughout, "
                f"ratio {found.ratio:.3f}, 95 % interval {low:.3f} to {high:.3f}"
            )
        found = self.beside_float
        low, high = found.ratio_ci95
        figures = (
            f"{found.second_ms:.4f} against {found.first_ms:.4f} ms, ratio {found.ratio:.3f}, "
            f"95 % interval {low:.3f} to {high:.3f}"
        )
        if low > 1:
            said.append(
                f"the file is slower than the model in float32 on {self.device} ({figures}): "
                "deploy that one there"
            )
        elif high < 1:
            said.append(f"it is faster than the model in float32 on {self.device} ({figures})")
        else:
            said.append(
                f"it does not show to be faster than the model in float32 on {self.device} "
                f"({figures})"
            )
        doubted = [one for one in (self.beside_codes, self.beside_float) if one and one.reasons]
        said += [f"a measurement is {one.verdict}: {'; '.join(one.reasons)}" for one in doubted]
        return said

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        codes = self.beside_codes
        return {
            "device": self.device,
            "ops_in_float32": self.count,
            "beside_static": None if codes is None else asdict(codes),
            "beside_float32": asdict(self.beside_float),
        }


def time_islands(
    timing: Timing,
    format_: Format,
    models: tuple[Model, Model | None, Model],
    samples: tuple[Subject, Mapping[str, Array]],
    count: int,
) -> Islands:
    """Time a file with layers in float32 in turns with one without, and with one of float32 alone.

    Args:
        timing: where, and how.
        format_: of the files.
        models: in float32; in codes throughout, None where that is the third; as it is written.
        samples: inputs, of which the first is run, and the model whose names they go by.
        count: ops that were left.

    Raises:
        DeviceError: the device cannot be reached, or cannot run one of them.
    """
    from pipeline.cli.commands._compress_device import time_pairs

    subject, inputs = samples
    first = {name: values[:1] for name, values in inputs.items()}
    real, codes, mixed = models
    pairs = [(real, mixed)] if codes is None else [(real, mixed), (codes, mixed)]
    beside_float, *rest = time_pairs(timing, format_, pairs, subject, first)
    return Islands(timing.profile.name, count, rest[0] if rest else None, beside_float)
