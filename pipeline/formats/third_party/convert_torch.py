"""Converts a program of torch.export by litert-torch: a script, run in that library's environment.

Arguments: program.pt2 (with the inputs that it was captured with), the TFLite file to write.
"""

from __future__ import annotations

import json
import sys


def main(argv: list[str]) -> None:
    """Write the file."""
    import litert_torch
    import torch

    program = torch.export.load(argv[0])
    args, kwargs = program.example_inputs
    litert_torch.convert(program.module(), args, sample_kwargs=kwargs).export(argv[1])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        print(json.dumps({"error": said}))  # noqa: T201  # the parent reads it
        raise SystemExit(1) from error
