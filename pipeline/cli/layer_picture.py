"""What each layer of a quantised network costs, as a picture: an SVG that stands alone."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from device_agents.plain_text import plain

if TYPE_CHECKING:
    from pipeline.compress.sensitivity import LayerLoss, Sensitivity

_BARS = 40
_ROW = 20
_LEFT, _WIDTH, _RIGHT = 330, 420, 150
_TOP = 64
_NAME_CHARS = 40

# Okabe and Ito's, told apart by colour-blind readers, as in the report.
_WEIGHTS, _OUTPUT, _INK, _GRID = "#D55E00", "#0072B2", "#222", "#ddd"


def draw_layers(found: Sensitivity, title: str) -> str:
    """Return an SVG with a bar for each layer, the costliest on top.

    A bar is the share of the whole loss; its first part is what the layer's weights make, the rest
    what its rounded output makes.
    """
    layers = found.layers[:_BARS]
    largest = max((layer.share for layer in layers), default=0.0) or 1.0
    width, height = _LEFT + _WIDTH + _RIGHT, _TOP + _ROW * len(layers) + 30
    head = f"{plain(title, limit=80)}: {found.sqnr_db:.1f} dB SQNR on {found.samples} samples"
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    text = f'font-family="system-ui, sans-serif" font-size="12" fill="{_INK}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {text}>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="12" y="22" font-size="15">{escape(head)}</text>',
        _key(12, _WEIGHTS, "by its weights"),
        _key(130, _OUTPUT, "by its rounded output"),
        '<text x="300" y="46">of the whole loss; at the right SQNR with it alone rounded</text>',
        *(f'<line x1="{_LEFT}" y1="{_TOP}" x2="{_LEFT}" y2="{height - 24}" stroke="{_GRID}"/>',),
        *(_bar(layer, place, largest) for place, layer in enumerate(layers)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _key(x: int, colour: str, words: str) -> str:
    return (
        f'<rect x="{x}" y="36" width="12" height="12" fill="{colour}"/>'
        f'<text x="{x + 17}" y="46">{words}</text>'
    )


def _bar(layer: LayerLoss, place: int, largest: float) -> str:
    y = _TOP + _ROW * place
    length = _WIDTH * layer.share / largest
    weights = length * layer.weight_share
    name = plain(layer.name, limit=1000)
    shown = name if len(name) <= _NAME_CHARS else f"…{name[1 - _NAME_CHARS :]}"
    told = f"{layer.share:.1%}, {layer.alone_db:.1f} dB"
    return (
        f"<g><title>{escape(name)} ({escape(layer.kind)}): {layer.low:.3g} to {layer.high:.3g}, "
        f"step {layer.scale:.3g}</title>"
        f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(shown)}</text>'
        f'<rect x="{_LEFT}" y="{y + 3}" width="{weights:.1f}" height="14" fill="{_WEIGHTS}"/>'
        f'<rect x="{_LEFT + weights:.1f}" y="{y + 3}" width="{length - weights:.1f}" height="14" '
        f'fill="{_OUTPUT}"/>'
        f'<text x="{_LEFT + length + 6:.1f}" y="{y + 14}">{told}</text></g>'
    )
