"""The page as a whole: one HTML file that works offline.

Unusual: a content security policy inside the page allows only the two scripts that it ships
(by hash) and no connection at all, so that even a string that slipped through escaping could
neither run nor call home.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError
from device_agents.files import write_whole
from pipeline.report.compression import compression_section, drawn_figures
from pipeline.report.figures import figures
from pipeline.report.headline import speed_sentence
from pipeline.report.sections import IN_READING_ORDER, artifacts
from pipeline.report.templating import TEMPLATES

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.store.result import RunResult


def write_report(result: RunResult, path: Path) -> Path:
    """Write the report as one HTML file at `path`, whole or not at all, and return `path`.

    Missing folders are made.

    Raises:
        ConfigError: the path is a folder or cannot be written.
    """
    return write_page(render(result), path)


def write_page(text: str, path: Path, usual: str = "report.html") -> Path:
    """Write a page at `path`, whole or not at all, and return `path`; missing folders are made.

    Raises:
        ConfigError: the path is a folder, where `usual` would be a file, or cannot be written.
    """
    if path.is_dir():
        raise ConfigError(
            f"the report's path {str(path)!r} is a folder; name a file, such as "
            f"{str(path / usual)!r}"
        )
    write_whole(path, text.encode("utf-8", "replace"))
    return path


def render(result: RunResult) -> str:
    """Return the report as HTML text."""
    # plotly writes < and > as \u escapes, so no string ends the element that holds the figure.
    drawn = {name: figure.to_json() for name, figure in figures(result)}
    drawn |= drawn_figures(result.compression)
    headline = speed_sentence(result)
    shared = {"result": result, "headline": headline, "drawn": drawn}
    sections: list[str] = []
    for values in IN_READING_ORDER:
        template = TEMPLATES.get_template(f"{values.__name__}.html")
        sections.append(template.render(shared, **values(result)))
        if values is artifacts and result.compression is not None:
            sections.append(compression_section(result.compression, drawn))
    return whole_page(headline, sections, drawn)


def whole_page(headline: str, sections: list[str], drawn: dict[str, str]) -> str:
    """Return a page of sections as HTML text; its scripts only if figures are drawn, as JSON."""
    scripts = (plotly_script(), _asset("report.js")) if drawn else ()
    return TEMPLATES.get_template("page.html").render(
        headline=headline,
        hashes=" ".join(map(_hash, scripts)),
        style=stylesheet(),
        sections=sections,
        drawn=drawn,
        scripts=scripts,
    )


def plotly_script() -> str:
    """Return plotly.js: the bundle of scatter and bar charts, a quarter of the whole.

    It is plotly-basic.min.js of npm's plotly.js-basic-dist-min (MIT licence), of the version that
    the plotly package would bring whole, compressed with ``gzip -9 -n``.
    """
    packed = files("pipeline.report").joinpath("plotly-basic.min.js.gz").read_bytes()
    return gzip.decompress(packed).decode("utf-8")


def stylesheet() -> str:
    """Return the pages' style sheet."""
    return _asset("report.css")


def _asset(name: str) -> str:
    return files("pipeline.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
