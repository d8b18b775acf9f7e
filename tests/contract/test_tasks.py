"""What every task promises; a new file in pipeline/data/tasks is tested once it has a case here.

A case makes truths and outputs that say them, of whatever a task takes, and spoils outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pipeline.data import TASKS

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from pipeline.data.task import Task

    Array = npt.NDArray[Any]

SAMPLES, CLASSES = 60, 4


@dataclass(frozen=True)
class Case:
    """How a task is tried.

    Attributes:
        make: seed -> truths, and outputs that say every one of them.
        spoil: outputs -> outputs of which nothing is right.
        constants: truths -> the constant answers of which the best is what guessing reaches.
        shares: whether the score is the share of right answers, of which the best is 1.
    """

    make: Callable[[int], tuple[Array, Array]]
    spoil: Callable[[Array], Array]
    constants: Callable[[Array], list[Array]]
    shares: bool = True


def _logits(truth: Array, rng: np.random.Generator) -> Array:
    """Return logits (…, classes) whose largest is the true one."""
    outputs = rng.standard_normal((*truth.shape, CLASSES)).astype(np.float32)
    np.put_along_axis(outputs, truth[..., None], outputs.max() + 1, -1)
    return outputs


def _one_hot(truth: Array) -> list[Array]:
    eye = np.eye(CLASSES, dtype=np.float32)
    return [np.broadcast_to(row, (*truth.shape, CLASSES)) for row in eye]


def make_classes(seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, SAMPLES)
    return truth, _logits(truth, rng)


def make_maps(seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, (SAMPLES, 5, 7))
    return truth, _logits(truth, rng)


def make_numbers(seed: int) -> tuple[Array, Array]:
    truth = np.random.default_rng(seed).standard_normal((SAMPLES, 3)).astype(np.float32)
    return truth, truth.copy()


CASES = {
    "classification": Case(make_classes, np.negative, _one_hot),
    "segmentation": Case(make_maps, np.negative, _one_hot, shares=False),
    "regression": Case(
        make_numbers,
        lambda outputs: outputs + 10,
        lambda truth: [np.broadcast_to(m, truth.shape) for m in (np.median(truth, 0), 0.5)],
        shares=False,
    ),
    "agreement": Case(
        make_numbers,
        np.negative,
        lambda truth: [np.broadcast_to(truth.mean(0), truth.shape)],
        shares=False,
    ),
}


@pytest.fixture(params=TASKS.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def task(name: str) -> Task:
    made: Task = TASKS.load(name)()
    return made


@pytest.fixture
def case(name: str) -> Case:
    assert name in CASES, f"write a case for the task {name!r} in {__file__}"
    return CASES[name]


def test_outputs_that_say_the_truth_score_best_and_fewer_right_ones_less(
    task: Task, case: Case
) -> None:
    truth, outputs = case.make(0)
    best = task.score(outputs, truth)
    assert best == (0.0 if task.metric == "MAE" else 1.0)
    scores = []
    for wrong in (0, 15, 30, 60):
        spoilt = outputs.copy()
        spoilt[:wrong] = case.spoil(spoilt[:wrong])
        scores.append(task.score(spoilt, truth))
        right = task.right(task.answers(spoilt), truth)
        assert right.shape == (SAMPLES,)
        assert right.dtype == np.bool_
        if case.shares:
            assert scores[-1] == pytest.approx(right.mean())
        assert right[wrong:].all()
        assert not right[:wrong].any()
    assert scores[0] == best
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4


def test_a_score_is_shown_in_the_words_of_its_metric(task: Task, case: Case) -> None:
    truth, outputs = case.make(0)
    assert task.metric
    assert task.words(task.score(outputs, truth)) in ("100.00%", "0")
    assert not task.words(task.score(case.spoil(outputs), truth)).startswith("-")


def test_answers_survive_a_store_as_32_bits(task: Task, case: Case) -> None:
    truth, outputs = case.make(0)
    answers = task.answers(outputs)
    assert len(answers) == SAMPLES
    stored = "<f4" if answers.dtype.kind == "f" else "<i4"
    kept = np.frombuffer(answers.astype(stored).tobytes(), stored).reshape(answers.shape)
    assert task.right(kept, truth).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_no_numbers_are_wrong_and_agree_with_nothing(
    task: Task, case: Case, value: float
) -> None:
    truth, outputs = case.make(0)
    broken = outputs.copy()
    broken[7] = value
    right = task.right(task.answers(broken), truth)
    assert not right[7]
    assert right.sum() == SAMPLES - 1
    assert task.score(broken, truth) < task.score(outputs, truth)
    assert task.agreement(broken, broken) < 1.0


def test_outputs_agree_with_themselves_and_less_with_others(task: Task, case: Case) -> None:
    _, outputs = case.make(0)
    assert task.agreement(outputs, outputs) == 1.0
    other = outputs.copy()
    other[: SAMPLES // 2] = case.spoil(other[: SAMPLES // 2])
    assert 0.0 <= task.agreement(other, outputs) < 1.0


def test_guessing_is_what_the_best_constant_answer_scores(task: Task, case: Case) -> None:
    truth, _ = case.make(1)
    scores = [task.score(constant, truth) for constant in case.constants(truth)]
    assert task.guessing(truth) == pytest.approx(max(scores))


def test_the_loss_has_a_gradient_that_raises_the_score(task: Task, case: Case) -> None:
    truth, said = case.make(0)
    labels = torch.from_numpy(truth)
    outputs = torch.zeros(said.shape, requires_grad=True)
    before = task.loss(outputs, labels)
    assert before.shape == ()
    before.backward()
    assert outputs.grad is not None
    moved = outputs.detach() - 0.5 * said.size * outputs.grad
    assert float(task.loss(moved, labels)) < float(before.detach())
    assert task.score(moved.numpy(), truth) > task.score(outputs.detach().numpy(), truth)


def test_imitation_is_least_where_outputs_are_the_teachers(task: Task, case: Case) -> None:
    _, outputs = case.make(0)
    teacher = torch.from_numpy(outputs)
    same = float(task.imitation_loss(teacher, teacher))
    for seed in range(3):
        other = torch.from_numpy(case.make(seed + 1)[1])
        assert float(task.imitation_loss(other, teacher)) > same


def test_nothing_that_is_given_is_changed(task: Task, case: Case) -> None:
    truth, outputs = case.make(0)
    kept = (truth.copy(), outputs.copy())
    answers = task.answers(outputs)
    task.score(outputs, truth)
    task.agreement(outputs, outputs)
    task.right(answers, truth)
    task.guessing(truth)
    assert np.array_equal(truth, kept[0])
    assert np.array_equal(outputs, kept[1])


def test_classes_are_told_by_the_largest_output_alone() -> None:
    task = TASKS.load("classification")()
    truth, outputs = make_classes(0)
    assert task.agreement((outputs * 3).astype(np.float32), outputs) == 1.0
    other = outputs.copy()
    other[: SAMPLES // 2] = -other[: SAMPLES // 2]
    assert task.agreement(other, outputs) == task.agreement(outputs, other)
    smoothed = task.loss(torch.from_numpy(outputs), torch.from_numpy(truth), label_smoothing=0.2)
    plain = task.loss(torch.from_numpy(outputs), torch.from_numpy(truth))
    assert float(smoothed) > float(plain)


def test_a_step_along_the_gradient_of_the_loss_names_every_class() -> None:
    task = TASKS.load("classification")()
    truth, _ = make_classes(0)
    outputs = torch.zeros(SAMPLES, CLASSES, requires_grad=True)
    task.loss(outputs, torch.from_numpy(truth)).backward()
    assert outputs.grad is not None
    assert task.score((outputs.detach() - outputs.grad).numpy(), truth) == 1.0


def test_mean_iou_is_over_the_classes_that_occur_and_pixels_that_count() -> None:
    task = TASKS.load("segmentation")()
    truth = np.array([[[0, 0, 1, 1], [2, 2, 255, 255]]])
    said = np.array([[[0, 1, 1, 1], [2, 2, 0, 3]]])
    # 0: 1 of 2, 1: 2 of 3, 2: 2 of 2; what is said of 255 counts for nothing.
    assert task.score(said, truth) == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)


def test_maps_smaller_than_their_truths_are_enlarged() -> None:
    task = TASKS.load("segmentation")()
    small, outputs = make_maps(0)
    truth = small.repeat(2, 1).repeat(3, 2)
    assert task.score(outputs, truth) == 1.0


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (-3.0, 3.0)], ids=["sigmoid", "logits"])
def test_one_channel_tells_foreground_from_background(low: float, high: float) -> None:
    task = TASKS.load("segmentation")()
    truth = np.random.default_rng(0).integers(0, 2, (4, 6, 6))
    outputs = np.where(truth[..., None] == 1, high, low).astype(np.float32)
    assert task.score(outputs, truth) == 1.0


def test_the_mean_absolute_error_is_in_the_unit_of_the_labels() -> None:
    task = TASKS.load("regression")()
    truth = np.array([[1.0], [2.0], [4.0]], np.float32)
    assert task.score(truth[:, 0] + 0.5, truth) == pytest.approx(-0.5)
    assert task.words(-0.5) == "0.5"
