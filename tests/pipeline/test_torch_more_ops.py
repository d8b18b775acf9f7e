"""Ops of torch that are several of ours, or whose meaning hangs on what stands around them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from models.execute import execute_all
from models.layout import settle
from models.model import Model
from pipeline.compress.passes.ptq import calibrate_all
from pipeline.formats import create
from pipeline.formats.api import Unsupported
from pipeline.formats.files import describe_file, run_inputs
from pipeline.formats.torch.program import capture
from pipeline.formats.torch.translate import translate
from tests.pipeline.test_torch_ops import MAP, SERIES, captured, check

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")


def _written(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, 1::2] *= 3
    y[x < 0] = 0.5
    y[:, [0, 3]] = y[:, [2, 2]]
    return y


FUNCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "looked up at places of its own": lambda x: (
        x.gather(1, x.argmax(1, keepdim=True)),
        x.take_along_dim(x.argmin(3, keepdim=True), 3),
        x[:, [0, 2], :, [1, 3]],
    ),
    "written at places": lambda x: (
        _written(x),
        torch.zeros_like(x).scatter(1, x.argmax(1, keepdim=True), 1.0),
        functional.fold(functional.unfold(x, 2), (6, 10), 2),
    ),
    "views": lambda x: (x.unfold(3, 4, 2), x.unfold(2, 3, 3), x.diagonal(dim1=2, dim2=3)),
    "circular": lambda x: functional.pad(x, (1, 2, 3, 0), mode="circular"),
    "functions": lambda x: (
        *(x.trunc(), x.frac(), x.fmod(0.7), torch.div(x, 0.3, rounding_mode="trunc")),
        *(x.sinh(), x.cosh(), x.asinh(), (x * 0.1).atanh()),
        *(x.erfc(), x.round(decimals=1), torch.hypot(x, x + 1), torch.copysign(x, -x)),
        *((x.abs() + 1.1).acosh(), (x * 0.3).tan(), x.norm(p=3, dim=1), x.isnan(), x.any(1)),
    ),
    "pools of parts that overlap": lambda x: (
        functional.adaptive_max_pool2d(x, (4, 7)),
        functional.avg_pool2d(x, 2, divisor_override=3),
    ),
    "wide numbers in between": lambda x: ((x.double() * 2).float(), x.double() + 1),
    "single numbers": lambda x: (x.mean(), x.argmax(), x.flatten(1).norm()),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_compute_what_torch_computes(name: str) -> None:
    check(FUNCTIONS[name], MAP)


def computed(module: Callable[[torch.Tensor], Any], x: torch.Tensor) -> Any:
    """Return what the read network computes of these values, its first output."""
    model = translate(captured(module, tuple(x.shape)).program, "net")
    assert isinstance(model, Model)
    return execute_all(model, {model.graph.inputs[0].name: x.numpy()})[model.graph.outputs[0]]


def test_a_remainder_of_what_nearly_divides_is_torchs() -> None:
    x = torch.tensor([[1.0, 0.3, -1.0, -0.3, 0.7]])
    np.testing.assert_allclose(computed(lambda x: x.fmod(0.1), x), x.fmod(0.1), atol=1e-6)


def test_an_extreme_is_the_other_one_of_what_is_no_number() -> None:
    x = torch.tensor([[1.0, np.nan, -2.0]])
    for extreme in (torch.fmax, torch.fmin):
        given = partial(extreme, other=torch.tensor([[np.nan, 3.0, 0.5]]))
        np.testing.assert_array_equal(computed(given, x), given(x))


def test_computed_places_may_be_counted_from_the_end() -> None:
    x = torch.tensor([[1.0, -1.0], [2.0, 5.0], [-3.0, 7.0]])

    def looked_up(x: torch.Tensor) -> torch.Tensor:
        places = x[:, 0].argmin(0, keepdim=True) - 4  # -2 of three rows, -1 of two columns
        return x[places, places + 1]

    np.testing.assert_array_equal(computed(looked_up, x), looked_up(x))


def test_queries_may_share_keys() -> None:
    def attend(x: torch.Tensor) -> torch.Tensor:
        shared = x[:, :2]
        return functional.scaled_dot_product_attention(x, shared, shared, enable_gqa=True)

    check(attend, MAP)


def test_what_resizes_by_matrices_leaves_no_transpose() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(8, 4, 3), nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            small = functional.adaptive_avg_pool2d(self.first(x), (3, 5))
            return self.last(functional.interpolate(small, (7, 9), mode="bicubic"))

    model = check(Pyramid(), MAP)
    assert "transpose" not in {op.kind for op in model.graph.ops}


def test_a_small_mask_does_not_turn_a_map() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.conv(x).masked_fill(mask == 0, -torch.inf).softmax(1)

    shapes = {"x": (1, 3, 6, 10), "mask": (1, 1, 6, 10)}
    found = translate(capture(Masked(), shapes, "net").program, "net")
    assert not isinstance(found, Unsupported)
    assert "transpose" not in {op.kind for op in settle(found).graph.ops}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_width_are_read(dtype: torch.dtype) -> None:
    check(nn.Conv2d(8, 4, 3).to(dtype), MAP)


def test_a_mask_beside_tokens_is_integers() -> None:
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 4)

        def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return (self.table(tokens) * mask[..., None]).sum(1)

    found = capture(Text(), {"tokens": (1, 5), "mask": (1, 5)}, "net")
    assert [x.dtype for x in found.inputs] == [torch.int64, torch.int64]


def test_what_values_decide_is_named_once() -> None:
    found = translate(captured(lambda x: x[x > 0] * 2 + 1, MAP).program, "net")
    assert isinstance(found, Unsupported)
    assert [op.why for op in found.ops] == ["how much it gives depends on values"]


def test_scores_that_a_mask_hides_leave_codes_to_the_others(tmp_path: Path) -> None:
    hidden = torch.ones(8, 8).triu(1).bool()

    def attend(x: torch.Tensor) -> torch.Tensor:
        scores = (x @ x.transpose(1, 2)).masked_fill(hidden, -torch.inf)
        return scores.softmax(-1) @ x

    model = check(attend, SERIES)
    rng = np.random.default_rng(0)
    (name,) = (tensor.name for tensor in model.graph.inputs)
    x = rng.standard_normal((8, *model.graph.inputs[0].shape[1:])).astype(np.float32)
    path = tmp_path / "net.tflite"
    path.write_bytes(create("tflite").write(calibrate_all(model, {name: x})))
    (end,) = describe_file(path).inputs
    (made,) = run_inputs(path, {end.name: x[:, None]}).values()
    (layout,) = (output.layout for output in model.outputs)
    user = x.transpose(0, 2, 1) if model.inputs[0].layout == "NCL" else x
    expected = torch.stack([attend(torch.from_numpy(one)[None]) for one in user]).numpy()
    if layout == "NCL":
        expected = expected.transpose(0, 1, 3, 2)
    error = np.square(made - expected).mean()
    assert 10 * np.log10(np.square(expected).mean() / error) > 20
