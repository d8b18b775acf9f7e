"""An answer of the wrong shape is a sentence, whatever a device sends in the agent's name."""

from __future__ import annotations

from typing import Any

import pytest

from device_agents.errors import AgentError
from device_agents.measure.answers import check, check_reading, check_run

GOOD: dict[str, Any] = {
    "package": "null",
    "version": "1",
    "load_ns": 1,
    "warmups": [{"ns": 5, "settled": True}],
    "blocks": [[0, [10, 11]], [1, [7]]],
    "invokes_per_sample": [1, 1],
    "step_ns": 0,
    "clock_khz": None,
    "core_max_khz": None,
    "fastest_max_khz": None,
    "partitions": None,
    "ops": {},
    "delegate": "",
    "delegated_share": None,
    "left": {},
    "settings": {},
    "inputs": [[{"name": "x", "shape": [1, 4]}], []],
    "peak_rss_bytes": 0,
}


def test_the_agents_own_answer_passes_unchanged() -> None:
    assert check_run("pi", GOOD) == GOOD


@pytest.mark.parametrize("name", sorted(GOOD))
@pytest.mark.parametrize("value", ["missing", object(), "1e999"])
def test_every_wrong_part_is_named(name: str, value: object) -> None:
    bad = {key: item for key, item in GOOD.items() if key != name or value != "missing"}
    if value != "missing":
        bad[name] = value
    if isinstance(value, str) and isinstance(GOOD[name], str) and value != "missing":
        assert check_run("pi", bad) == bad
        return
    with pytest.raises(AgentError, match=rf"'pi' answered bench with no usable {name}"):
        check_run("pi", bad)


@pytest.mark.parametrize(
    "blocks",
    [[], [[1, [5]]], [[0, []]], [[0, [1.5]]], [[0, [-1]]], [[2, [1]]], [[0]], [None], [[0, "ab"]]],
)
def test_blocks_without_samples_of_the_model_are_refused(blocks: list[Any]) -> None:
    with pytest.raises(AgentError, match="no usable blocks"):
        check_run("pi", {**GOOD, "blocks": blocks})


@pytest.mark.parametrize("counts", [[], [1], [1, 0], [1, 2.0], [1, True]])
def test_samples_of_so_many_invokes_each(counts: list[Any]) -> None:
    with pytest.raises(AgentError, match="no usable invokes_per_sample"):
        check_run("pi", {**GOOD, "invokes_per_sample": counts})


@pytest.mark.parametrize("blocks", [[[0, [0, 0, 9]]], [[0, [5]], [1, [0]]]])
def test_no_figure_of_a_clock_that_stood_still(blocks: list[Any]) -> None:
    with pytest.raises(AgentError, match="'pi': 0 ms: the model is too quick for its clock"):
        check_run("pi", {**GOOD, "blocks": blocks})


INTERVAL: dict[str, Any] = {
    "start_ns": 0,
    "took_ns": 9,
    "invokes": 1,
    "samples_ns": [9],
    "soc_celsius": None,
    "clock_khz": 1,
    "throttled": None,
}
WHO: dict[str, Any] = {"package": "null", "version": "1"}
RAN: dict[str, Any] = {**WHO, "inputs": [[{"name": "x", "shape": [1, 4]}]]}
OTHERS: dict[str, dict[str, Any]] = {
    "canary": {"ns": 5, "idle_ns": 4},
    "memory": RAN | dict.fromkeys(("before_bytes", "loaded_bytes", "peak_bytes", "model_bytes"), 1),
    "profile": RAN | {"ops": [{"name": "a", "kind": "b", "where": "", "samples_ns": [1]}]},
    "sustain": RAN
    | {"delegate": "", "delegated_share": 0.5, "left": {}, "settings": {}}
    | {"stopped": False, "intervals": [INTERVAL]},
}


@pytest.mark.parametrize(("op", "key"), [(op, key) for op, good in OTHERS.items() for key in good])
def test_other_answers_are_checked_too(op: str, key: str) -> None:
    good = OTHERS[op]
    assert check("pi", op, good) == good
    for bad in (
        {k: v for k, v in good.items() if k != key},
        good | {key: object()},
    ):
        with pytest.raises(AgentError, match=rf"'pi' answered {op} with no usable {key}"):
            check("pi", op, bad)


@pytest.mark.parametrize(
    ("op", "bad"),
    [
        ("canary", {"ns": 0}),
        ("profile", {"ops": []}),
        ("profile", {"ops": [None]}),
        ("profile", {"inputs": []}),
        ("profile", {"inputs": [[{"name": "x", "shape": [1.5]}]]}),
        ("memory", {"inputs": [[{"shape": [1]}]]}),
        ("sustain", {"intervals": []}),
        ("sustain", {"intervals": [{**INTERVAL, "samples_ns": []}]}),
        ("sustain", {"intervals": [{**INTERVAL, "took_ns": "9"}]}),
    ],
)
def test_empty_parts_are_unusable(op: str, bad: dict[str, Any]) -> None:
    with pytest.raises(AgentError, match="no usable"):
        check("pi", op, OTHERS[op] | bad)


def test_a_reading_tells_what_it_tells() -> None:
    found = check_reading("pi", {"soc_celsius": 50, "boot_id": "a", "of_a_newer_agent": []})
    assert (found.soc_celsius, found.boot_id, found.throttled) == (50, "a", None)
    for name, value in {
        "soc_celsius": "hot",
        "throttled": 0.5,
        "boot_id": 7,
        "fan_percent": [],
    }.items():
        with pytest.raises(AgentError, match=rf"answered sensors with no usable {name}"):
            check_reading("pi", {name: value})
