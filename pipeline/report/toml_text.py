"""A recipe back as TOML text, so that the report holds a file that runs the same run again.

The standard library reads TOML and does not write it. Only what a recipe can hold is written:
strings, numbers, booleans, dates, lists and tables; None means absent and is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(data: Mapping[str, Any]) -> str:
    """Return TOML that `tomllib` reads back as `data` without its None values."""
    return "\n".join(_lines(data, ())).strip() + "\n"


def _lines(data: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines: list[str] = []
    for name, value in data.items():
        if value is not None and not isinstance(value, Mapping):
            lines.append(f"{_key(name)} = {_value(value)}")
    for name, value in data.items():
        if isinstance(value, Mapping):
            here = (*path, name)
            lines += ["", f"[{'.'.join(map(_key, here))}]", *_lines(value, here)]
    return lines


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def _string(text: str) -> str:
    # JSON's escapes are TOML's too, except that TOML also wants DEL escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)  # nan, inf and -inf are TOML too
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(v) for v in value if v is not None)}]"
    if isinstance(value, Mapping):
        pairs = (f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)
        return "{" + ", ".join(pairs) + "}"
    return _string(str(value))
