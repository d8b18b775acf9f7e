"""Which file of a model is the fastest, of those that were timed in turns with one of float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_agents.api import Measurement
from models.number_format import FLOAT32

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from device_agents.api import Failure
    from pipeline.evaluate.own_files import OwnFile

    Timed = Mapping[str, Measurement | Failure]


def rank_by_latency(files: Sequence[OwnFile], timed: Timed, runtime: str) -> list[OwnFile]:
    """Return files with the fastest first; one is faster only where its whole interval says so.

    Those of the device's own runtime come first, since others are not timed in turns with them. Of
    files that are as fast as float32 for all that is known, float32 comes first, and a file that
    was written before the one that came.

    Args:
        files: that can be put in use.
        timed: by name, in turns with the float32 file of the runtime, or the model as it came.
        runtime: of the device.
    """

    def place(file: OwnFile) -> tuple[bool, float, bool, bool]:
        ratio = _sure_ratio(timed.get(file.name))
        return file.runtime != runtime, ratio, file.number_format != str(FLOAT32), file.is_original

    return sorted(files, key=place)


def describe_fastest(files: Sequence[OwnFile], timed: Timed, runtime: str) -> str:
    """Say by how much the first of ranked files is faster, or that none is faster than float32."""
    told = [
        f"{file.name} {figures}"
        for file in files
        if file.runtime == runtime and (figures := _figures(timed.get(file.name)))
    ]
    if not files or not told:
        return ""
    best = files[0]
    against = f"in turns with one of float32: {', '.join(told)}"
    if _sure_ratio(timed.get(best.name)) >= 1.0:
        return f"no file shows to be faster than {best.name}, {against}"
    return f"the fastest file is {best.name}, {against}"


def _sure_ratio(found: Measurement | Failure | None) -> float:
    """Return the ratio of a file that is surely faster or slower; 1 of any other."""
    if not isinstance(found, Measurement) or found.ratio is None or found.ratio_ci95 is None:
        return 1.0
    low, high = found.ratio_ci95
    return found.ratio if high < 1 or low > 1 else 1.0


def _figures(found: Measurement | Failure | None) -> str:
    if not isinstance(found, Measurement) or found.ratio is None or found.ratio_ci95 is None:
        return ""
    low, high = found.ratio_ci95
    return f"{found.ratio:.2f} of its latency ({low:.2f} to {high:.2f})"
