"""The page of a run of a user's own model: one HTML file that works offline, as a search's is."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from device_agents.bounded import TOML_BYTES
from pipeline.report.compression import compression_section, drawn_figures
from pipeline.report.markup import DASH, esc, flatten, interval, number, percent, unit
from pipeline.report.page import whole_page, write_page
from pipeline.report.tables import Column, table
from pipeline.report.templating import TEMPLATES, parts
from pipeline.report.toml_text import to_toml

if TYPE_CHECKING:
    from pathlib import Path

    from markupsafe import Markup

    from pipeline.store.model_result import ModelFileRow, ModelResult


def write_model_report(result: ModelResult, path: Path) -> Path:
    """Write the page at `path`, whole or not at all, and return `path`.

    Raises:
        ConfigError: the path is a folder or cannot be written.
    """
    return write_page(render_model(result), path)


def render_model(result: ModelResult) -> str:
    """Return the page as HTML text."""
    known = dict(result.device)
    protocol = known.pop("protocol", None)
    device = str(result.device.get("name") or "local")
    drawn = drawn_figures(result.compression)
    section = TEMPLATES.get_template("model.html").render(
        result=result,
        compression=compression_section(result.compression, drawn),
        costs=_costs(result),
        checks=_checks(result),
        failed=[(name, why) for name, why in result.failed.items()],
        source=flatten(dict(result.source)),
        deployed=flatten(dict(result.deployed)),
        device=flatten(known),
        protocol=flatten(protocol if isinstance(protocol, dict) else {"protocol": protocol}),
        versions=sorted(result.versions.items()),
        command=f"edgewright run recipe.toml --device {shlex.quote(device)}",
        recipe=esc(to_toml(result.recipe), limit=TOML_BYTES),
    )
    return whole_page(result.sentence, [section], drawn)


_FILE: Column[ModelFileRow] = Column(
    "file", lambda row: parts.titled(row.name, row.path), text=True
)


def _costs(result: ModelResult) -> Markup:
    """Return size and speed of every file."""
    columns: tuple[Column[ModelFileRow], ...] = (
        _FILE,
        Column("bytes", lambda row: f"{row.bytes:,}"),
        Column("ms", lambda row: number(row.latency_ms)),
        Column("95 % interval", lambda row: interval(row.ci95_ms)),
        Column("in turns with", lambda row: row.beside or DASH, text=True),
        Column("ratio", lambda row: number(row.ratio)),
        Column("95 % interval of it", lambda row: interval(row.ratio_ci95, 3)),
        Column("partitions", lambda row: row.partitions),
        Column("verdict", lambda row: parts.pill(row.verdict, row.reasons), text=True),
    )
    return table(columns, result.files, _in_use(result))


def _checks(result: ModelResult) -> Markup:
    """Return scores and faithfulness of every file."""
    columns: tuple[Column[ModelFileRow], ...] = (
        _FILE,
        Column(f"{result.metric}, here", lambda row: row.score_host),
        Column(f"{result.metric}, device", lambda row: row.score_device),
        Column("SQNR", lambda row: unit(row.sqnr_db, "dB")),
        Column("largest error, of the range", lambda row: percent(row.error_share, 3)),
        Column("SHA-256", lambda row: parts.hashed(row.sha256)),
    )
    return table(columns, result.files, _in_use(result))


def _in_use(result: ModelResult) -> list[int]:
    return [i for i, row in enumerate(result.files) if row is result.in_use]
