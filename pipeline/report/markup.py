"""Numbers as text, and text made safe for a page and for plotly.

What is not known (None, not finite) reads as an en dash, never as a made-up figure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

from device_agents.plain_text import SENTENCE_CHARS, plain

DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"
NBSP = "\N{NO-BREAK SPACE}"

_SHA256 = re.compile(r"[0-9a-f]{64}")


def esc(value: object, *, limit: int = SENTENCE_CHARS) -> Markup:
    """Escape a value for an element or a quoted attribute; `Markup` passes, None is a dash.

    What no reader sees but a terminal or a page obeys is gone, and what is too long is cut.
    """
    if isinstance(value, Markup):
        return value
    text = DASH if value is None else escape(plain(value, limit=limit), quote=True)
    return Markup(text)  # noqa: S704  # escaped above


def plot_text(value: object, limit: int = 240) -> str:
    """Escape a value for plotly, which reads <b> and &lt; but not every entity of HTML."""
    text = plain(DASH if value is None else value)
    return escape(
        text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}", quote=False
    )


def finite(value: float | None) -> float | None:
    """Return the value, or None where there is no number to show."""
    return None if value is None or not math.isfinite(value) else float(value)


def number(value: float | None, digits: int = 3) -> str:
    """Return at least `digits` significant digits: 1,234, 4.56, 0.0123, 4.10e\N{MINUS SIGN}6."""
    if (known := finite(value)) is None:
        return DASH
    if known == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(known)))
    if places > 3 + digits:
        mantissa, _, exponent = f"{known:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(exponent)}".replace("-", MINUS)
    return f"{known:,.{max(0, places)}f}".replace("-", MINUS)


def unit(value: float | None, name: str, digits: int = 3) -> str:
    """Return the number with its unit, or a dash alone."""
    return DASH if finite(value) is None else number(value, digits) + NBSP + name


def percent(share: float | None, places: int = 2) -> str:
    """Return a share in 0..1 as a percentage."""
    known = finite(share)
    return DASH if known is None else f"{100 * known:.{places}f}{NBSP}%".replace("-", MINUS)


def interval(bounds: Sequence[float] | None, digits: int = 4) -> str:
    """Return a 95 % interval as "[low, high]"."""
    if bounds is None or len(bounds) != 2 or any(finite(b) is None for b in bounds):
        return DASH
    return f"[{number(bounds[0], digits)}, {number(bounds[1], digits)}]"


def count(value: float | None) -> str:
    """Return a large count short: 950, 12.3 k, 4.56 M."""
    known = finite(value)
    if known is None:
        return DASH
    for limit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(known) >= limit:
            return number(known / limit) + NBSP + name
    return f"{known:,.0f}"


def size(value: float | None) -> str:
    """Return bytes short, in binary units."""
    known = finite(value)
    if known is None:
        return DASH
    for limit, name in ((2**20, "MiB"), (2**10, "KiB")):
        if known >= limit:
            return number(known / limit) + NBSP + name
    return f"{known:,.0f}{NBSP}B"


def duration(seconds: float | None) -> str:
    """Return a time span as a person says it: 8.2 s, 4 min 05 s, 2 h 10 min."""
    known = finite(seconds)
    if known is None or known < 0:
        return DASH
    if known < 60:
        return unit(known, "s", 2)
    minutes, rest = divmod(round(known), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min{NBSP}{rest:02d}{NBSP}s"
    return f"{minutes // 60}{NBSP}h{NBSP}{minutes % 60:02d}{NBSP}min"


def is_sha256(value: object) -> bool:
    """Return whether a value is a SHA-256, in hexadecimal digits."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def flatten(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as ("outer.inner", text) pairs, in order."""
    pairs: list[tuple[str, str]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            pairs += flatten(value, f"{name}.")
        elif isinstance(value, list | tuple):
            pairs.append((name, ", ".join(map(str, value)) or DASH))
        else:
            pairs.append((name, DASH if value is None else str(value)))
    return pairs
