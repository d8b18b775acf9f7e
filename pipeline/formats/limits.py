"""What a file must reach against its network, by number format, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.errors import VerificationError
from models.number_format import DYNAMIC8, FLOAT16, FLOAT32, STATIC8, STATIC16X8
from pipeline.formats.figures import SQNR_LOSS_DB

if TYPE_CHECKING:
    from models.number_format import NumberFormat
    from pipeline.formats.figures import Verification


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file must reach against the network, by number format."""

    typical_sqnr_db: float
    argmax_agreement: float


LIMITS = {
    # Float files reach 80 to 130 dB: anything below 60 is a wrong constant, not rounding.
    FLOAT32: Limits(60.0, 0.99),
    # Small trained nets reach 20 to 35 dB; bad calibration ends at 14.
    STATIC8: Limits(10.0, 0.9),
    # They reach 60, 35 to 42 and 35 to 45: an overflow of halves, or wrong scales, end far below.
    FLOAT16: Limits(40.0, 0.99),
    DYNAMIC8: Limits(15.0, 0.9),
    STATIC16X8: Limits(15.0, 0.9),
}


def check(found: Verification, number_format: NumberFormat, name: str) -> None:
    """Hold figures against the number format's limits. Raises VerificationError with all of them.

    Comparisons are written so that NaN, which compares false with everything, fails.
    """
    limits, beside = LIMITS[number_format], found.integers
    if beside is not None and not beside.agrees:
        raise VerificationError(
            f"{name} ({number_format}) does not compute what its codes mean: on {found.images} "
            f"images its SQNR to the network is {found.sqnr_db:.1f} dB (median image "
            f"{found.typical_sqnr_db:.1f}), that of exact integer arithmetic with the same codes "
            f"{beside.sqnr_db:.1f} dB ({beside.typical_sqnr_db:.1f}; {SQNR_LOSS_DB:g} less are "
            f"allowed); {beside.strayed} images lie farther from it than rounding explains, the "
            f"worst by {beside.farthest_steps:.1f} steps of the output; the file or this runtime's "
            "kernels are at fault, not the quantisation"
        )
    precise = found.typical_sqnr_db >= limits.typical_sqnr_db
    if precise and found.argmax_agreement >= limits.argmax_agreement:
        return
    cause = (
        ""
        if beside is None
        else (
            f"; exact integer arithmetic with the same codes reaches {beside.typical_sqnr_db:.1f} "
            "dB, so the file is right and int8 costs this network too much: calibrate on more "
            "images (quantize.calibration_images), or use float32"
        )
    )
    raise VerificationError(
        f"{name} ({number_format}) does not compute what the network computes: on {found.images} "
        f"images the median SQNR is {found.typical_sqnr_db:.1f} dB (at least "
        f"{limits.typical_sqnr_db:g}), the class agrees on "
        f"{found.argmax_agreement:.1%} (at least {limits.argmax_agreement:.0%}), the largest "
        f"error is {found.max_abs_error:.3g}{cause}"
    )
