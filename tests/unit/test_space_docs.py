"""The recipes in docs/spaces.md are those of spaces that can be built."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from pipeline.search import space as spaces

PAGE = Path(__file__).parents[2] / "docs" / "spaces.md"
SNIPPETS = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_every_snippet_builds_a_space(snippet: str) -> None:
    search = tomllib.loads(snippet)["search"]
    space = spaces.create(search["space"], input=(48, 48, 3), classes=10, **search["space_options"])
    assert space.sample(np.random.default_rng(0)) in space


def test_the_page_shows_every_space() -> None:
    shown = {tomllib.loads(snippet)["search"]["space"] for snippet in SNIPPETS}
    assert shown == set(spaces.SPACES.names())
