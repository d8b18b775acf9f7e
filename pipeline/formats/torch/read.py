"""Reads a module of torch into our graph.

A user names the code that makes the module (``package.module:callable``, ``file.py:callable``) or
a program that torch.export has saved (.pt2). The code runs in a process of its own, with limits
of time and memory. A pickle (.pt, .pth) runs whatever it likes when it is read, so it is not read
unless the user says that it is trusted. No torch in this process.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents import bounded
from device_agents.errors import ConfigError
from models.model import Model
from pipeline.formats.api import UnknownOp, Unsupported
from pipeline.formats.child import ask
from pipeline.formats.torch import pt2
from pipeline.formats.torch.capture import MODEL

if TYPE_CHECKING:
    from pipeline.formats.api import ReadOptions

TIMEOUT_S = 900.0

_CHILD = "pipeline.formats.torch.capture"

_PICKLES = (".pt", ".pth")
SUFFIXES = (".pt2", *_PICKLES)


def names_module(source: str) -> bool:
    """Tell whether a text names code that makes a module: something before and after a colon."""
    place, _, entry = source.rpartition(":")
    if not place or not all(part.isidentifier() for part in entry.split(".")):
        return False
    return place.endswith(".py") or all(part.isidentifier() for part in place.split("."))


def read(source: str, options: ReadOptions, *, timeout_s: float = TIMEOUT_S) -> Model | Unsupported:
    """Read a module into our graph; what was read has been held against it.

    Args:
        source: ``package.module:callable``, ``file.py:callable``, a .pt2, or a pickled module.
        options: the shapes are by the names of forward's arguments, a batch of 1 included; weights
            are a state dict for a named module, of which only tensors are read.
        timeout_s: deadline of the process.

    Returns:
        The network, or the ops that our graph cannot say, each with its place.

    Raises:
        ConfigError: no such file or module, one that is not trusted, an input without a shape,
            a module that fails, or a process that dies or does not end.
    """
    with tempfile.TemporaryDirectory(prefix="edgewright-torch-") as place:
        folder = Path(place)
        reply = _ask(source, options, folder, keep=False, timeout_s=timeout_s)
        if "unknown" in reply:
            return Unsupported(source, tuple(UnknownOp(**op) for op in reply["unknown"]))
        return Model.load(folder / MODEL)


def keep_program(
    source: str, options: ReadOptions, folder: Path, *, timeout_s: float = TIMEOUT_S
) -> None:
    """Leave what torch.export captures of a module in a folder, for a library that converts it.

    `capture.PROGRAM` is the program, `INPUTS` and `OUTPUTS` hold one sample: arrays "0", "1", … in
    the order of the program's. Arguments and errors are those of `read`.
    """
    _ask(source, options, folder, keep=True, timeout_s=timeout_s)


def _ask(
    source: str, options: ReadOptions, folder: Path, *, keep: bool, timeout_s: float
) -> dict[str, Any]:
    _check_source(source, options)
    if options.weights is not None and not bounded.is_file(options.weights):
        raise ConfigError(f"no weights file {options.weights}")
    request = {
        "source": source,
        "shapes": {key: list(shape) for key, shape in options.shapes.items()},
        "weights": None if options.weights is None else str(options.weights),
        "trust": options.trust,
        "keep": keep,
    }
    return ask(_CHILD, request, folder, subject=source, timeout_s=timeout_s)


def _check_source(source: str, options: ReadOptions) -> None:
    """Refuse what is not there, is not trusted or is no source of modules."""
    path = Path(source)
    if path.suffix in SUFFIXES:
        if not bounded.is_file(path):
            raise ConfigError(f"no file {path}")
        if options.weights is not None:
            raise ConfigError(
                f"{path} holds weights of its own; --weights belong to a module that code makes "
                "(file.py:callable)"
            )
        if not options.trust:
            if path.suffix in _PICKLES:
                _refuse_pickle(path)
            pt2.check(path)
    elif not names_module(source):
        raise ConfigError(
            f"{source!r} names no module of torch; name code as package.module:callable or "
            "file.py:callable, or a .pt2 file"
        )
    else:
        place = source.rpartition(":")[0]
        if place.endswith(".py") and not bounded.is_file(Path(place)):
            raise ConfigError(f"no file {place}")


def _refuse_pickle(path: Path) -> None:
    raise ConfigError(
        f"{path} is a pickle, which runs whatever code it holds when it is read; name the module "
        f"that it is of instead (file.py:callable --weights {path}, of which only tensors are "
        "read), or save the module as a .pt2 by torch.export.save; if you trust whoever made the "
        "file, give --trust"
    )
