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
from string import Template
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError
from device_agents.files import write_whole
from pipeline.report import sections
from pipeline.report.figures import figures
from pipeline.report.headline import speed_sentence
from pipeline.report.markup import Html, esc

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.store.result import RunResult


def write_report(result: RunResult, path: Path) -> Path:
    """Write the report as one HTML file at `path`, whole or not at all, and return `path`.

    Missing folders are made.

    Raises:
        ConfigError: the path is a folder or cannot be written.
    """
    if path.is_dir():
        raise ConfigError(
            f"the report's path {str(path)!r} is a folder; name a file, such as "
            f"{str(path / 'report.html')!r}"
        )
    content = render(result).encode("utf-8", "replace")
    write_whole(path, content)
    return path


def render(result: RunResult) -> str:
    """Return the report as HTML text."""
    drawn = figures(result)
    names = frozenset(name for name, _ in drawn)
    # plotly writes < and > as \u escapes, so no string ends the element that holds the figure.
    data = "\n".join(
        f'<script type="application/json" id="figure-{name}">{figure.to_json()}</script>'
        for name, figure in drawn
    )
    content = (
        sections.header(result),
        sections.tiles(result),
        sections.scatter(result, names),
        sections.search_progress(result, names),
        sections.artifacts(result),
        sections.op_costs(result, names),
        sections.conditions(result),
        sections.device_time(result),
        sections.deployed(result),
        _NOSCRIPT,
    )
    plotly, script = plotly_script(), _asset("report.js")
    return Template(_asset("page.html")).substitute(
        title=esc(f"edgewright: {speed_sentence(result)}"),
        style=_asset("report.css"),
        script_hashes=" ".join(_hash(s) for s in (plotly, script)),
        content="\n".join(content),
        data=data,
        plotly=plotly,
        script=script,
    )


_NOSCRIPT = Html(
    '<noscript><p class="absent">The figures need JavaScript; text and tables do '
    "without.</p></noscript>"
)


def plotly_script() -> str:
    """Return plotly.js: the bundle of scatter and bar charts, a quarter of the whole.

    It is plotly-basic.min.js of npm's plotly.js-basic-dist-min (MIT licence), of the version that
    the plotly package would bring whole, compressed with ``gzip -9 -n``.
    """
    packed = files("pipeline.report").joinpath("plotly-basic.min.js.gz").read_bytes()
    return gzip.decompress(packed).decode("utf-8")


def _asset(name: str) -> str:
    return files("pipeline.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
