"""What plain values become, and how wrong ones are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from device_agents.errors import ConfigError
from device_agents.plain_values import from_plain


@dataclass(frozen=True)
class Row:
    stride: int
    width: int = 8


@dataclass(frozen=True)
class Options:
    name: str
    rate: float = 0.5
    count: int = 3
    on: bool = False
    rows: tuple[Row, ...] = ()
    size: tuple[int, int] | None = None
    mode: Literal["soft", "hard"] = "soft"


def test_plain_values_become_typed() -> None:
    values = {
        "name": "x",
        "rate": 1,
        "rows": [[2, 16], {"stride": 1}, Row(1, 1)],
        "size": [3, 4],
        "mode": "hard",
        "on": True,
    }
    rows = (Row(2, 16), Row(1, 8), Row(1, 1))
    expected = Options("x", 1.0, 3, on=True, rows=rows, size=(3, 4), mode="hard")
    assert from_plain(Options, values, "thing") == expected
    assert type(from_plain(Options, values, "thing").rate) is float
    assert from_plain(Options, {"name": "x", "size": None}, "thing").size is None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "thing needs the option 'name'"),
        (
            {"name": "x", "rat": 1.0},
            r"thing has no option 'rat'; did you mean 'rate'\? known: ra",
        ),
        ({"name": 3}, "thing, option 'name': 3 is not text"),
        ({"name": "x", "rate": "fast"}, "option 'rate': 'fast' is not a number"),
        ({"name": "x", "count": 1.5}, "option 'count': 1.5 is not a whole number"),
        ({"name": "x", "count": True}, "option 'count': True is not a whole number"),
        ({"name": "x", "rate": True}, "option 'rate': True is not a number"),
        ({"name": "x", "on": 1}, "option 'on': 1 is not true or false"),
        ({"name": "x", "size": [1]}, r"option 'size': \[1\] has 1 items, not 2"),
        ({"name": "x", "rows": 3}, "option 'rows': 3 is not a list"),
        ({"name": "x", "rows": [[1], 3]}, "item 1: 3 is not a table of stride, width"),
        (
            {"name": "x", "rows": [{"strid": 1}]},
            r"item 0 has no option 'strid'; did you mean 'stride'",
        ),
        ({"name": "x", "mode": "firm"}, "option 'mode': 'firm' is not one of 'soft', 'hard'"),
    ],
)
def test_a_wrong_value_is_one_clear_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        from_plain(Options, values, "thing")
