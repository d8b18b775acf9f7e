"""What each layer loses a network, level by level, as a picture: an SVG that stands alone."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from device_agents.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.compress.sweep import Curve, Sweep

_MOST_ROWS = 80
_ROW, _CELL = 20, 46
_LEFT, _PARAMETERS = 320, 90
_NAME_CHARS = 42
_WORST = 20.0
"""Points from which on a cell has the full colour."""

_TITLES = {
    "sparsity": "sparser: share of the weights that are 0",
    "bits": "coarser: bits of the weights",
    "width": "narrower: share of the channels that stay",
}
_INK, _SOFT, _EDGE = "#222", "#666", "#0072B2"


def draw(found: Sweep, title: str, *, page: bool) -> str:
    """Return a map with a row for each layer and a cell for each level, for each thing changed.

    A cell is the darker the more points are lost, and says how many; one that is tolerated has a
    line below it. `page`: as an HTML page of its own.
    """
    parts: list[str] = []
    y = 60
    for of in dict.fromkeys(curve.of for curve in found.curves):
        curves = [curve for curve in found.curves if curve.of == of]
        parts += _map(_TITLES[of], curves[:_MOST_ROWS], y)
        y += 58 + _ROW * min(len(curves), _MOST_ROWS)
    levels = max((len(curve.points) for curve in found.curves), default=0)
    width, height = _LEFT + _PARAMETERS + _CELL * levels + 130, y
    head = f"{plain(title, limit=80)}: {found.metric} {found.value:.4f} on {found.samples} samples"
    told = (
        f"points of {found.metric} lost with one layer changed alone; a line below: no more than "
        f"{found.max_drop:g}"
    )
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    text = f'font-family="system-ui, sans-serif" font-size="12" fill="{_INK}"'
    svg = "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {text}>',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            f'<text x="12" y="22" font-size="15">{escape(head)}</text>',
            f'<text x="12" y="42" fill="{_SOFT}">{escape(told)}</text>',
            *parts,
            "</svg>\n",
        ]
    )
    if not page:
        return svg
    start = '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
    return f"{start}<title>{escape(plain(title, limit=80))}: sensitivity</title>\n{svg}</html>\n"


def _map(title: str, curves: Sequence[Curve], top: int) -> list[str]:
    levels = list(dict.fromkeys(point.level for curve in curves for point in curve.points))
    parts = [f'<text x="12" y="{top + 22}" font-size="13">{escape(title)}</text>']
    heads = [(_LEFT + _PARAMETERS - 10, "parameters")]
    heads += [(_x(place) + _CELL - 8, f"{level:g}") for place, level in enumerate(levels)]
    heads.append((_x(len(levels)) + 80, "redundant"))
    parts += [
        f'<text x="{x}" y="{top + 42}" text-anchor="end" fill="{_SOFT}">{words}</text>'
        for x, words in heads
    ]
    for row, curve in enumerate(curves):
        parts += _row(curve, levels, top + 48 + _ROW * row)
    return parts


def _row(curve: Curve, levels: Sequence[float], y: int) -> list[str]:
    name = plain(curve.layer, limit=1000)
    shown = name if len(name) <= _NAME_CHARS else f"…{name[1 - _NAME_CHARS :]}"
    right = [(_LEFT - 8, escape(shown)), (_LEFT + _PARAMETERS - 10, f"{curve.parameters:,}")]
    right.append((_x(len(levels)) + 80, f"{curve.redundant:,.0f}"))
    parts = [f"<g><title>{escape(name)} ({escape(curve.kind)})</title>"]
    parts += [f'<text x="{x}" y="{y + 14}" text-anchor="end">{words}</text>' for x, words in right]
    tolerated = curve.tolerated is not None
    for point in curve.points:
        x = _x(levels.index(point.level))
        share = min(max(point.lost_points / _WORST, 0.0), 1.0)
        ink = "white" if share > 0.5 else _INK
        parts.append(
            f'<rect x="{x}" y="{y}" width="{_CELL - 2}" height="{_ROW - 2}" '
            f'fill="{_colour(share)}"/>'
            f'<text x="{x + _CELL - 8}" y="{y + 14}" text-anchor="end" fill="{ink}">'
            f"{point.lost_points:.1f}</text>"
        )
        if tolerated:
            parts.append(
                f'<rect x="{x}" y="{y + _ROW - 4}" width="{_CELL - 2}" height="2" fill="{_EDGE}"/>'
            )
        tolerated = tolerated and point.level != curve.tolerated
    return [*parts, "</g>"]


def _x(place: int) -> int:
    return _LEFT + _PARAMETERS + _CELL * place


def _colour(share: float) -> str:
    """Return white to a dark orange, that of the palette of the report."""
    red, green, blue = (round(255 + share * (full - 255)) for full in (0xB3, 0x4A, 0x00))
    return f"#{red:02x}{green:02x}{blue:02x}"
