"""NAS-Bench-201's cells: their notation, live edges, paths and cost, worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.errors import ConfigError
from device_agents.plain_values import from_plain
from pipeline.search.recorded import RECORDED, Recorded
from pipeline.search.recorded.nasbench201 import (
    SEQUENCES,
    Cell,
    NasBench201Space,
    known_ms,
    live_ops,
    load,
    macs,
    path_counts,
)

if TYPE_CHECKING:
    from pathlib import Path

SPACE = NasBench201Space()
NONE, SKIP, SMALL, LARGE, POOL = range(5)
# Edges: 0->1, 0->2, 1->2, 0->3, 1->3, 2->3.
CHAIN = (LARGE, NONE, SMALL, NONE, NONE, POOL)  # 0 -> 1 -> 2 -> 3
DETOUR = (LARGE, NONE, NONE, SKIP, NONE, LARGE)  # 0->1 leads nowhere, 2->3 comes from nowhere
TWINS = ((LARGE, NONE, NONE, NONE, SKIP, NONE), (SKIP, NONE, NONE, NONE, LARGE, NONE))


def test_the_space_is_listed_and_its_decisions_and_points_are_inverse() -> None:
    assert isinstance(from_plain(RECORDED.load("nasbench201"), {}, "space"), NasBench201Space)
    assert SPACE.size == 5**6
    rng = np.random.default_rng(0)
    for _ in range(50):
        cell = SPACE.sample(rng)
        assert SPACE.decode(SPACE.choices(cell)) == cell
        assert cell in SPACE
    assert Cell((0, 0, 0, 0, 0, 5)) not in SPACE
    assert Cell((0, 0)) not in SPACE


def test_a_cell_is_written_as_the_benchmark_writes_it() -> None:
    assert str(Cell(CHAIN)) == (
        "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|avg_pool_3x3~2|"
    )
    assert len(Cell(CHAIN).digest()) == 16
    assert Cell(CHAIN).digest() != Cell(DETOUR).digest()


def test_only_edges_between_input_and_output_live() -> None:
    assert live_ops(np.array([CHAIN, DETOUR, (NONE,) * 6])).tolist() == [
        list(CHAIN),
        [NONE, NONE, NONE, SKIP, NONE, NONE],
        [NONE] * 6,
    ]


def test_paths_are_counted_by_their_ops_without_skips() -> None:
    counts = path_counts(np.array([CHAIN, DETOUR, *TWINS, (SKIP,) * 6]))

    def paths(row: int) -> dict[tuple[int, ...], float]:
        return {SEQUENCES[i]: float(n) for i, n in enumerate(counts[row]) if n}

    assert paths(0) == {(LARGE, SMALL, POOL): 1}
    assert paths(1) == {(): 1}
    assert paths(2) == paths(3) == {(LARGE,): 1}
    assert paths(4) == {(): 4}


def test_macs_are_those_of_the_layers() -> None:
    stem, classifier = 3 * 3 * 3 * 16 * 32 * 32, 64 * 10
    reductions = (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32) * 16 * 16
    reductions += (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64) * 8 * 8
    edge = 5 * (16 * 16 * 32 * 32 + 32 * 32 * 16 * 16 + 64 * 64 * 8 * 8)
    fixed = stem + reductions + classifier
    assert macs(np.array([(NONE,) * 6, CHAIN])).tolist() == [fixed, fixed + 10 * edge]


def test_features_tell_cells_apart_and_put_equal_functions_near() -> None:
    one, other = (SPACE.features(Cell(ops)) for ops in TWINS)
    far = SPACE.features(Cell((POOL, NONE, NONE, NONE, SKIP, NONE)))
    assert one.shape == (84,)
    assert 0 < np.linalg.norm(one - other) < np.linalg.norm(one - far)


def test_a_table_is_read_by_cell_and_a_missing_column_names_the_known(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    np.savez(path, ops=np.array([CHAIN, DETOUR], np.int8), accuracy=np.array([1.5, 2.5], "f4"))
    recorded: Recorded[Cell] = load(path)
    assert recorded.column("accuracy")[recorded.rows[Cell(DETOUR)]] == 2.5
    with pytest.raises(ConfigError, match="no column 'acuracy'; have accuracy"):
        recorded.column("acuracy")


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.npz cannot be read as NAS-Bench-201 columns"):
        load(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ConfigError, match="has no array 'ops'"):
        load(tmp_path / "other.npz")


def test_latency_is_seen_beside_what_other_devices_take() -> None:
    rng = np.random.default_rng(0)
    cells = [SPACE.decode(tuple(row)) for row in np.ndindex(*SPACE.cardinalities)]
    shuffled = rng.permutation(len(cells)).tolist()  # a table's rows are in an order of their own
    columns = {name: rng.lognormal(size=len(cells)) for name in ("ms_new", "ms_a", "ms_b", "c10")}
    recorded = Recorded({cells[at]: row for row, at in enumerate(shuffled)}, columns)
    space = NasBench201Space(known_ms(recorded, "new"))
    assert list(space.known_ms) == ["ms_a", "ms_b"]
    cell = cells[12_345]
    seen = space.latency_features(cell)
    assert len(seen) == len(SPACE.features(cell)) + 2
    logs = np.log(np.maximum(columns["ms_a"], 0.05))
    assert seen[-2] == pytest.approx((logs[recorded.rows[cell]] - logs.mean()) / logs.std())
    assert np.array_equal(space.features(cell), SPACE.features(cell))
    assert np.array_equal(SPACE.latency_features(cell), SPACE.features(cell))
