"""The page of a chain of passes on its own: the section that a run's page has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.report.compression import compression_section, drawn_figures
from pipeline.report.page import whole_page, write_page

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.store.compression import Compression


def write_compression_report(found: Compression, path: Path) -> Path:
    """Write the page at `path`, whole or not at all, and return `path`.

    Raises:
        ConfigError: the path is a folder or cannot be written.
    """
    drawn = drawn_figures(found)
    text = whole_page(f"{found.source}, compressed", [compression_section(found, drawn)], drawn)
    return write_page(text, path, "compression.html")
