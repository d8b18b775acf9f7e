"""The report in a real browser: figures are drawn, nothing complains, nothing is fetched.

Needs Chromium ($CHROMIUM or one on PATH); continuous integration installs it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.report import write_report
from tests.pipeline.report_fixture import hostile_result, make_result

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

SCRIPT = Path(__file__).parents[2] / "scripts" / "report_picture.py"


def _load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_picture", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


picture = _load_script()
BROWSER = picture.find_browser()
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium found on PATH or at $CHROMIUM; install chromium to run"
)


class Elements(HTMLParser):
    """Every element that the browser holds, with its attributes; scripts' text is not parsed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, {k: v or "" for k, v in attrs}))

    def having(self, name: str) -> list[dict[str, str]]:
        return [a for _, a in self.all if name in a.get("class", "").split()]


@dataclass(frozen=True, slots=True)
class Visit:
    """What the browser made of a page."""

    elements: Elements
    console: list[str]
    requests: list[str]


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Visit]:
    """Return a function that loads a page and reports its elements, console and requests."""

    def load(page: Path, *options: str) -> Visit:
        log = tmp_path_factory.mktemp("net") / "net.json"
        done = picture.browse(
            BROWSER,
            page,
            "--enable-logging=stderr",
            f"--log-net-log={log}",
            "--dump-dom",
            *options,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return Visit(Elements(done.stdout), console, _requests(json.loads(log.read_text())))

    return load


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_result(), tmp_path_factory.mktemp("report") / "report.html")


@needs_browser
def test_figures_are_drawn_without_complaint_or_request(
    visit: Callable[..., Visit], report: Path
) -> None:
    result = make_result()
    seen = visit(report, "--window-size=1200,1400", "--blink-settings=preferredColorScheme=1")
    assert seen.console == []
    assert seen.requests == []
    root = next(attributes for tag, attributes in seen.elements.all if tag == "html")
    assert root["data-drawn"] == "4"
    # A scatter of progress and one of accuracy: each candidate that has both figures, twice.
    known = sum(c.latency_ms is not None for c in result.candidates)
    assert len(seen.elements.having("point")) > 2 * known
    assert len(seen.elements.having("scatterlayer")) >= 2
    assert len(seen.elements.having("bars")) >= 6
    assert "rgb(213, 94, 0)" in _fills(seen)  # --winner in the light theme


@needs_browser
def test_dark_theme_recolours_the_figures(visit: Callable[..., Visit], report: Path) -> None:
    seen = visit(report, "--window-size=1200,1400", "--blink-settings=preferredColorScheme=0")
    assert seen.console == []
    fills = _fills(seen)
    assert "rgb(255, 138, 69)" in fills
    assert "rgb(213, 94, 0)" not in fills


@needs_browser
def test_figures_fit_a_narrow_window(visit: Callable[..., Visit], report: Path) -> None:
    seen = visit(report, "--window-size=500,900")  # the narrowest that Chromium opens
    widths = [float(a["width"]) for a in seen.elements.having("main-svg")]
    assert widths
    assert 300 < min(widths) <= max(widths) < 500


@needs_browser
def test_hostile_strings_neither_run_nor_load(visit: Callable[..., Visit], tmp_path: Path) -> None:
    seen = visit(write_report(hostile_result(), tmp_path / "report.html"))
    assert seen.console == []
    assert seen.requests == []
    tags = {tag for tag, _ in seen.elements.all}
    assert "img" not in tags
    assert not [a for _, a in seen.elements.all if any(name.startswith("on") for name in a)]


@needs_browser
def test_the_watch_sees_complaints_and_requests(
    visit: Callable[..., Visit], tmp_path: Path
) -> None:
    """The tests above would be worthless if this one failed."""
    page = tmp_path / "bad.html"
    page.write_text("<script>undefined_name()</script><img src='http://127.0.0.1:9/x.png'>")
    seen = visit(page)
    assert any("undefined_name" in line for line in seen.console)
    assert seen.requests == ["http://127.0.0.1:9/x.png"]


@needs_browser
def test_an_injected_script_is_refused_by_the_page(
    visit: Callable[..., Visit], report: Path, tmp_path: Path
) -> None:
    page = tmp_path / "tampered.html"
    html = report.read_text(encoding="utf-8")
    page.write_text(
        html.replace("</main>", "<script>document.title='ran'</script></main>"), encoding="utf-8"
    )
    seen = visit(page)
    assert any("Content Security Policy" in line for line in seen.console)


@needs_browser
def test_picture_of_a_report(report: Path, tmp_path: Path) -> None:
    out = tmp_path / "pictures" / "report.png"
    done = _run_script(str(report), str(out), "--width", "900", "--height", "700")
    assert done.returncode == 0, done.stderr
    header = out.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", header[16:]) == (900, 700)


def test_picture_says_what_is_missing(report: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    done = _run_script(str(tmp_path / "none.html"), str(out))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no report at" in done.stderr
    done = _run_script(str(report), str(out), PATH=str(tmp_path), CHROMIUM="")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no Chromium found" in done.stderr
    assert "apt-get install chromium" in done.stderr
    assert not out.exists()


def _run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, **environment},
        check=False,
    )


def _requests(net_log: dict[str, Any]) -> list[str]:
    """Return what the page asked the network for; the browser's own errands have no origin."""
    asked = (event.get("params", {}) for event in net_log["events"])
    urls = {p["url"] for p in asked if p.get("initiator", "not an origin") != "not an origin"}
    return sorted(url for url in urls if re.match(r"(https?|wss?|ftp):", url))


def _fills(seen: Visit) -> str:
    return " ".join(a.get("style", "") for a in seen.elements.having("point"))
