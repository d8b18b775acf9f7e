"""Modules of torch, read into our graph: captured by torch.export in a process of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.formats.torch.read import SUFFIXES, names_module, read

if TYPE_CHECKING:
    from models.model import Model
    from pipeline.formats.api import ReadOptions, Unsupported


class Torch:
    """Reads modules that code makes, programs of torch.export, and pickles that are trusted."""

    name = "torch"
    suffixes = SUFFIXES

    def reads(self, source: str) -> bool:
        """Tell whether a text names code: ``package.module:callable``, ``file.py:callable``."""
        return names_module(source)

    def read(self, source: str, options: ReadOptions) -> Model | Unsupported:
        """Read a module into our graph (see `read.read`)."""
        return read(source, options)
