"""One HTML file that shows what a run found.

To add a section: a function in `sections` that returns the values it shows, its place in
`sections.IN_READING_ORDER`, and a template of the function's name in `templates/`. A template also
has `result` (a `RunResult`), `headline`, `drawn` (the names of the figures there are), the macros
of `templates/parts.html` as `parts`, and numbers as text by the filters of `templating`.
"""

from pipeline.report.page import write_report

__all__ = ["write_report"]
