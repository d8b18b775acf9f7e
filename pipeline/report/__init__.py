"""One HTML file that shows what a run found.

To add a section: a function in `sections` that returns the values it shows, its place in
`sections.IN_READING_ORDER`, and a template of the function's name in `templates/`. A template also
has `result` (a `RunResult`), `headline`, `drawn` (the names of the figures there are), the macros
of `templates/parts.html` as `parts`, and numbers as text by the filters of `templating`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.report.model_page import write_model_report
from pipeline.report.page import write_report
from pipeline.store.model_result import ModelResult

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.store.result import RunResult

__all__ = ["write_any_report", "write_report"]


def write_any_report(result: RunResult | ModelResult, path: Path) -> Path:
    """Write the page of a result, of a search or of a user's own model; return `path`.

    Raises:
        ConfigError: the path is a folder or cannot be written.
    """
    if isinstance(result, ModelResult):
        return write_model_report(result, path)
    return write_report(result, path)
