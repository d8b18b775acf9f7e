"""Parts of a computation side by side: in order, on one thread each, and nothing left behind."""

from __future__ import annotations

import pytest
import torch

from models.side_by_side import map_side_by_side


def test_results_come_in_order_and_each_is_computed_on_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = list(map_side_by_side(lambda n: (n * n, torch.get_num_threads()), range(20)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert found == [(n * n, 1) for n in range(20)]


def test_what_goes_wrong_is_raised_and_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        list(map_side_by_side(lambda n: 1 / n, [2, 1, 0, 4]))
    assert torch.get_num_threads() == before
