"""An answer of the wrong shape is a sentence, whatever a device sends in the agent's name."""

from __future__ import annotations

from typing import Any

import pytest

from device_agents.errors import AgentError
from device_agents.measure.answers import checked_run

GOOD: dict[str, Any] = {
    "package": "null",
    "version": "1",
    "load_ns": 1,
    "warmups": [{"ns": 5, "settled": True}],
    "blocks": [[0, [10, 11]], [1, [7]]],
    "clock_khz": None,
    "partitions": None,
    "ops": {},
    "delegate": "",
    "delegated_share": None,
    "left": {},
    "settings": {},
    "peak_rss_bytes": 0,
}


def test_the_agents_own_answer_passes_unchanged() -> None:
    assert checked_run("pi", GOOD) == GOOD


@pytest.mark.parametrize("name", sorted(GOOD))
@pytest.mark.parametrize("value", ["missing", object(), "1e999"])
def test_every_wrong_part_is_named(name: str, value: object) -> None:
    bad = {key: item for key, item in GOOD.items() if key != name or value != "missing"}
    if value != "missing":
        bad[name] = value
    if isinstance(value, str) and isinstance(GOOD[name], str) and value != "missing":
        assert checked_run("pi", bad) == bad
        return
    with pytest.raises(AgentError, match=rf"'pi' answered bench with no usable {name}"):
        checked_run("pi", bad)


@pytest.mark.parametrize(
    "blocks",
    [[], [[1, [5]]], [[0, []]], [[0, [1.5]]], [[0, [-1]]], [[2, [1]]], [[0]], [None], [[0, "ab"]]],
)
def test_blocks_without_samples_of_the_model_are_refused(blocks: list[Any]) -> None:
    with pytest.raises(AgentError, match="no usable blocks"):
        checked_run("pi", {**GOOD, "blocks": blocks})
