"""1,797 handwritten digits, 8x8, bundled in scikit-learn (UCI, test part of Alpaydin & Kaynak)."""

from __future__ import annotations

import warnings
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.api import DataError, Loaded, refuse_truths

if TYPE_CHECKING:
    from pipeline.data.api import Truths

_SIZE = 8
_INK = 16
"""Of the darkest pixel."""


@dataclass(frozen=True, slots=True)
class Digits:
    """No options."""

    def load(self, truths: Truths = "classes") -> Loaded:
        """Return images (1797, 1, 8, 8) in -1..1 and labels 0..9.

        Raises:
            DataError: scikit-learn is not installed, or does not hold them any more; or the task
                asks for other than classes.
        """
        refuse_truths("digits", truths)
        # Read without importing scikit-learn, which would take every run two seconds.
        found = find_spec("sklearn")
        if found is None or found.origin is None:
            raise DataError("the digits are scikit-learn's; install scikit-learn")
        path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "loadtxt: input contained no data")
                rows = np.loadtxt(path, delimiter=",", dtype=np.int64)  # pixels, then the label
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path} cannot be read ({error}); pip install --force-reinstall scikit-learn"
            ) from None
        if rows.ndim != 2 or rows.shape[1] != _SIZE**2 + 1:
            raise DataError(
                f"{path} is not the table of 8x8 images that was known; install another "
                "scikit-learn"
            )
        images = rows[:, :-1].reshape(-1, 1, _SIZE, _SIZE)
        return Loaded((images / (_INK / 2) - 1).astype(np.float32), rows[:, -1])
