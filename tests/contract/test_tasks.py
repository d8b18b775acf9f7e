"""What every task promises; a new file in pipeline/data/tasks is tested without a word.

Truths, and outputs that say them, are made for whatever a task takes: classification's are classes
and logits. A task of another kind adds its own way to `truths_and_outputs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pipeline.data import TASKS

if TYPE_CHECKING:
    import numpy.typing as npt

    from pipeline.data.task import Task

SAMPLES, CLASSES = 60, 4


def truths_and_outputs(seed: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return truths (N,), and outputs (N, classes) that say every one of them."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, SAMPLES)
    outputs = rng.standard_normal((SAMPLES, CLASSES)).astype(np.float32)
    outputs[np.arange(SAMPLES), truth] = outputs.max(1) + 1
    return truth, outputs


@pytest.fixture(params=TASKS.names())
def task(request: pytest.FixtureRequest) -> Task:
    made: Task = TASKS.load(request.param)()
    return made


def test_outputs_that_say_the_truth_score_1_and_fewer_right_ones_less(task: Task) -> None:
    truth, outputs = truths_and_outputs()
    assert task.score(outputs, truth) == 1.0
    scores = []
    for wrong in (0, 15, 30, 60):
        spoilt = outputs.copy()
        spoilt[:wrong] = -spoilt[:wrong]
        scores.append(task.score(spoilt, truth))
        right = task.right(task.answers(spoilt), truth)
        assert right.shape == (SAMPLES,)
        assert right.dtype == np.bool_
        assert scores[-1] == pytest.approx(right.mean())
        assert right[wrong:].all()
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < scores[0]


def test_answers_survive_a_store_as_32_bits(task: Task) -> None:
    truth, outputs = truths_and_outputs()
    answers = task.answers(outputs)
    assert len(answers) == SAMPLES
    kept = np.frombuffer(answers.astype("<i4").tobytes(), "<i4").astype(np.int64)
    assert task.right(kept, truth).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_no_numbers_are_wrong_and_agree_with_nothing(
    task: Task, value: float
) -> None:
    truth, outputs = truths_and_outputs()
    broken = outputs.copy()
    broken[7, truth[7]] = value
    right = task.right(task.answers(broken), truth)
    assert not right[7]
    assert right.sum() == SAMPLES - 1
    assert task.score(broken, truth) == pytest.approx(1 - 1 / SAMPLES)
    assert task.agreement(broken, broken) < 1.0


def test_outputs_agree_with_themselves_and_with_what_says_the_same(task: Task) -> None:
    _, outputs = truths_and_outputs()
    assert task.agreement(outputs, outputs) == 1.0
    assert task.agreement((outputs * 3).astype(np.float32), outputs) == 1.0
    other = outputs.copy()
    other[: SAMPLES // 2] = -other[: SAMPLES // 2]
    assert task.agreement(other, outputs) < 1.0
    assert task.agreement(other, outputs) == task.agreement(outputs, other)


def test_guessing_is_what_the_best_constant_answer_scores(task: Task) -> None:
    truth = np.array([0] * 30 + [1] * 20 + [2] * 10)
    constant = np.zeros((len(truth), 3), np.float32)
    scores = []
    for answer in range(3):
        said = constant.copy()
        said[:, answer] = 1.0
        scores.append(task.score(said, truth))
    assert task.guessing(truth) == pytest.approx(max(scores))


def test_the_loss_has_a_gradient_that_raises_the_score(task: Task) -> None:
    truth, _ = truths_and_outputs()
    labels = torch.from_numpy(truth)
    outputs = torch.zeros(SAMPLES, CLASSES, requires_grad=True)
    before = task.loss(outputs, labels)
    assert before.shape == ()
    before.backward()
    assert outputs.grad is not None
    moved = outputs.detach() - SAMPLES * outputs.grad
    assert float(task.loss(moved, labels)) < float(before.detach())
    assert task.score(moved.numpy(), truth) == 1.0
    smoothed = task.loss(moved, labels, label_smoothing=0.2)
    assert float(smoothed) > float(task.loss(moved, labels))


def test_imitation_is_least_where_outputs_are_the_teachers(task: Task) -> None:
    _, outputs = truths_and_outputs()
    teacher = torch.from_numpy(outputs)
    same = float(task.imitation_loss(teacher, teacher))
    for seed in range(3):
        other = torch.from_numpy(truths_and_outputs(seed + 1)[1])
        assert float(task.imitation_loss(other, teacher)) > same


def test_nothing_that_is_given_is_changed(task: Task) -> None:
    truth, outputs = truths_and_outputs()
    kept: tuple[Any, ...] = (truth.copy(), outputs.copy())
    answers = task.answers(outputs)
    task.score(outputs, truth)
    task.agreement(outputs, outputs)
    task.right(answers, truth)
    task.guessing(truth)
    assert np.array_equal(truth, kept[0])
    assert np.array_equal(outputs, kept[1])
