"""Converts a program of torch.export by litert-torch: a script, run in that library's environment.

Arguments: program.pt2, inputs.npz (arrays "0", "1", … in its order), the TFLite file to write.
"""

from __future__ import annotations

import json
import sys


def main(argv: list[str]) -> None:
    """Write the file."""
    import litert_torch
    import numpy as np
    import torch

    program, inputs, target = argv
    with np.load(inputs, allow_pickle=False) as file:
        sample = tuple(torch.from_numpy(file[str(place)]) for place in range(len(file.files)))
    module = torch.export.load(program).module()
    litert_torch.convert(module, sample).export(target)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        print(json.dumps({"error": said}))  # noqa: T201  # the parent reads it
        raise SystemExit(1) from error
