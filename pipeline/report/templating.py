"""The templates of `templates/`, and the macros of its parts.html for tables made in Python.

Unusual: everything that a template writes goes through `esc` first, so a string of a recipe or of a
device is cleaned, cut and escaped without being told to; a name that a template misspells is an
error.
"""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.report import markup

_FILTERS = (markup.count, markup.duration, markup.percent, markup.size, markup.unit)

TEMPLATES = Environment(
    loader=PackageLoader("pipeline.report"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=markup.esc,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters.update({function.__name__: function for function in _FILTERS})
TEMPLATES.tests["sha256"] = markup.is_sha256
parts: Any = TEMPLATES.get_template("parts.html").module
TEMPLATES.globals["parts"] = parts
