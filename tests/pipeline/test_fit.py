"""Training of graphs: what it learns from, what it refuses, and that it goes on where it was."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from device_agents.api import Failure
from device_agents.errors import ConfigError
from models.execute import execute_all
from models.fold import random_weights
from models.graph import GraphBuilder
from models.graph_module import GraphModule
from models.model import Model
from models.ops import BatchNorm, Conv, Dense, Reshape
from models.ops.activating import Softmax
from models.ops.reducing import Mean
from pipeline.compress.api import Needs
from pipeline.compress.passes import create
from pipeline.data.tasks.agreement import Agreement
from pipeline.data.tasks.classification import Classification
from pipeline.data.tasks.regression import Regression
from pipeline.data.tasks.segmentation import Segmentation
from pipeline.train.devices import choose_device
from pipeline.train.fit import FitOptions, Fitted, fit
from pipeline.train.imitation import Goal, learnt_tensors
from pipeline.train.lessons import Lessons
from tests.kept_states import Kept, Stop

if TYPE_CHECKING:
    from models.graph import Graph

SHORT = FitOptions(epochs=3, batch_size=16, learning_rate=0.05, distillation=0.0)


def drawn(graph: Graph, seed: int = 0) -> Model:
    """Random weights, and a normalisation as training begins with it."""
    weights = dict(random_weights(graph, np.random.default_rng(seed)))
    for constant in graph.constants:
        one = constant.name.endswith(("scale", "variance"))
        weights[constant.name] = ((np.ones if one else np.zeros)(constant.shape, np.float32),)
    return Model(graph, weights)


def classifier(seed: int = 0) -> Model:
    """Pictures to shares of three classes, with a normalisation whose statistics move."""
    net = GraphBuilder()
    at = net.input("picture", (1, 8, 8, 3))
    at = net.op("conv", "conv", [at], Conv(kernel=(3, 3), out=6))
    held = [net.constant(f"bn.{one}", (6,)) for one in ("scale", "shift", "mean", "variance")]
    at = net.op("batchnorm", "bn", [at, *held], BatchNorm(), act="relu")
    at = net.op("mean", "pool", [at], Mean(keepdims=False))
    at = net.op("dense", "scores", [at], Dense(3))
    net.op("softmax", "shares", [at], Softmax(1))
    return drawn(net.graph(), seed)


def pictures(count: int = 96, *, seed: int = 1) -> tuple[np.ndarray[Any, Any], Any]:
    """Pictures of three classes, told by the channel that is brightest."""
    rng = np.random.default_rng(seed)
    truths = rng.integers(3, size=count)
    images = rng.standard_normal((count, 8, 8, 3), np.float32)
    images += 1.5 * np.eye(3, dtype=np.float32)[truths][:, None, None]
    return images, truths


def lessons(**changes: Any) -> Lessons:
    images, truths = pictures()
    return replace(Lessons({"picture": images}, truths, Classification()), **changes)


def accuracy(model: Model) -> float:
    images, truths = pictures(300, seed=2)
    shares = execute_all(model, {"picture": images})["shares"]
    return float((shares.argmax(1) == truths).mean())


def test_it_learns_from_truths_and_its_statistics_move() -> None:
    module = GraphModule(classifier())
    shares: list[float] = []
    options = replace(SHORT, epochs=10)
    found = fit(module, lessons(), options, after_step=shares.append)
    assert isinstance(found, Fitted)
    assert found.samples == 96
    assert found.loss < found.loss_before / 2
    assert not found.taught
    assert accuracy(classifier()) < 0.6
    assert accuracy(module.model()) > 0.9
    assert shares == [step / 60 for step in range(1, 61)]
    assert np.abs(module.model().weights["bn.mean"][0]).max() > 0.05


@pytest.mark.parametrize("changes", [{}, {"augment": 0.5}, {"features": ("bn",)}])
def test_a_training_that_was_ended_goes_on_to_the_same_bits(changes: dict[str, Any]) -> None:
    options = replace(SHORT, distillation=0.5, **changes)

    whole, parted = Kept(), Kept(stop=1)
    module = GraphModule(classifier())
    given = lessons(teachers=(classifier(seed=5),), checkpoints=lambda _: whole)
    expected = fit(module, given, options)
    for stop in (1, 2, 3):
        parted.stop = stop
        again = GraphModule(classifier())
        with pytest.raises(Stop):
            fit(again, replace(given, checkpoints=lambda _: parted), options)
    again = GraphModule(classifier())
    assert fit(again, replace(given, checkpoints=lambda _: parted), options) == expected
    assert again.model().digest() == module.model().digest()


def test_a_training_of_one_step_teaches() -> None:
    module = GraphModule(classifier())
    before = {name: one.detach().clone() for name, one in module.named_parameters()}
    options = replace(SHORT, epochs=1, batch_size=96)
    assert isinstance(fit(module, lessons(), options), Fitted)
    still = [name for name, one in module.named_parameters() if torch.equal(one, before[name])]
    assert not still


def test_without_truths_the_mean_of_the_teachers_is_imitated() -> None:
    teachers = (classifier(seed=5), classifier(seed=6))
    module = GraphModule(classifier())
    options = replace(SHORT, epochs=20, temperature=2.0)
    found = fit(module, lessons(truths=None, teachers=teachers), options)
    assert isinstance(found, Fitted)
    assert found.taught
    assert found.loss < found.loss_before / 3


def test_the_loss_of_imitation_is_the_papers() -> None:
    """KL(teacher, network) at T, times T squared, by hand (Hinton et al. 2015, section 2)."""
    rng = np.random.default_rng(0)
    ours, theirs = rng.standard_normal((2, 5, 4)).astype(np.float32)
    goal = Goal(Classification(), ("x",), scores=True, temperature=3.0)
    found = goal.loss({"x": torch.from_numpy(ours)}, None, {"x": torch.from_numpy(theirs)})
    p, q = (np.exp(x / 3) / np.exp(x / 3).sum(1, keepdims=True) for x in (theirs, ours))
    assert float(found) == pytest.approx(9 * (p * np.log(p / q)).sum(1).mean(), rel=1e-5)


def test_features_come_closer_to_the_teachers() -> None:
    teacher, rows = classifier(seed=5), pictures()[0]

    def unlike(model: Model) -> float:
        seen: dict[str, Any] = {}
        for one in (model, teacher):
            found: dict[str, Any] = {}
            execute_all(one, {"picture": rows}, lambda name, x, to=found: to.update({name: x}))  # type: ignore[misc]
            seen[str(one is teacher)] = found["bn"]
        return float((seen["True"] - seen["False"]).square().mean())

    module = GraphModule(classifier())
    given = lessons(truths=None, teachers=(teacher,))
    options = replace(SHORT, epochs=10, features=("bn",))
    assert isinstance(fit(module, given, options), Fitted)
    assert unlike(module.model()) < unlike(classifier()) / 2


def two_ends() -> Model:
    """Two vectors in, two out, of any meaning."""
    net = GraphBuilder()
    left, right = net.input("left", (1, 4)), net.input("right", (1, 4))
    both = net.op("add", "both", [left, right])
    hidden = net.op("dense", "hidden", [both], Dense(16), act="relu")
    net.op("dense", "first", [hidden], Dense(2))
    net.op("dense", "second", [hidden], Dense(5))
    return drawn(net.graph("first", "second"))


def test_any_inputs_and_outputs_are_learnt() -> None:
    rng = np.random.default_rng(3)
    left, right = rng.standard_normal((2, 64, 4)).astype(np.float32)
    truths = np.stack([(left + right).sum(1), left[:, 0] + right[:, 0]], 1)
    given = Lessons({"left": left, "right": right}, truths, Regression())
    module = GraphModule(two_ends())
    found = fit(module, given, replace(SHORT, epochs=30))
    assert isinstance(found, Fitted)
    assert found.loss < found.loss_before / 5
    taught = replace(given, truths=None, teachers=(module.model(),), task=Classification())
    found = fit(GraphModule(two_ends()), taught, replace(SHORT, epochs=30))
    assert isinstance(found, Fitted)
    assert found.loss < found.loss_before / 3


def test_a_last_softmax_is_left_out_of_losses() -> None:
    assert learnt_tensors(classifier().graph) == ("scores",)
    assert learnt_tensors(two_ends().graph) == ("first", "second")


def nan_at(values: Any, row: int) -> Any:
    values = values.copy()
    values[row].flat[0] = np.nan
    return values


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "one sample": (
        {"inputs": {"picture": pictures(1)[0]}, "truths": pictures(1)[1]},
        {},
        "cannot learn from 1 sample; give two or more",
    ),
    "NaN": (
        {"inputs": {"picture": nan_at(pictures()[0], 7)}},
        {},
        r"hold NaN or infinite numbers in input 'picture', first in sample 7",
    ),
    "another shape": (
        {"inputs": {"picture": pictures()[0][:, 1:]}},
        {},
        r"have the shapes \{'picture': \(96, 7, 8, 3\)\}; the network needs .*'N', 8, 8, 3",
    ),
    "another type": (
        {"inputs": {"picture": pictures()[0].astype(np.float64)}},
        {},
        "are float64 in input 'picture'; the network needs float32",
    ),
    "fewer truths": ({"truths": np.zeros(3, int)}, {}, "96 samples to learn from and 3 truths"),
    "a class too many": (
        {"truths": np.full(96, 3)},
        {},
        r"classes 3 to 3 and the output of the shape \(1, 3\) tells 3 apart",
    ),
    "numbers": ({"truths": np.zeros((96, 3), np.float32)}, {}, "are no classes that an output"),
    "nobody": ({"truths": None}, {}, "no truths and no teacher to imitate"),
    "features of nobody": ({}, {"features": ("bn",)}, "features bn and no teacher"),
    "an unknown feature": (
        {"teachers": (classifier(),)},
        {"features": ("bnn",)},
        "the network has no op 'bnn' to match; it has bn",
    ),
    "another teacher": ({"teachers": (two_ends(),)}, {"distillation": 1.0}, "outputs have the"),
    "smoothing of no classes": (
        {"truths": None, "teachers": (classifier(),)},
        {"label_smoothing": 0.1},
        "label_smoothing is a share of truths that are classes, and there are none",
    ),
    "another device": ({}, {"device": "mps"}, "no device 'mps' on this machine; it has cpu"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_learnt_is_refused(case: str) -> None:
    changes, options, sentence = REFUSED[case]
    if case == "another device" and torch.backends.mps.is_available():
        changes, options, sentence = {}, {"device": "cuda"}, "no device 'cuda'"
    with pytest.raises(ConfigError, match=sentence):
        fit(GraphModule(classifier()), lessons(**changes), replace(SHORT, **options))


def test_a_training_that_diverges_is_a_failure_with_a_sentence() -> None:
    module = GraphModule(classifier())

    def break_it(share: float) -> None:
        if share > 0.5:
            module.layer_weights()["scores"].fill_(np.nan)

    found = fit(module, lessons(), SHORT, after_step=break_it)
    assert isinstance(found, Failure)
    assert found.reason == (
        "training diverged in epoch 2 (loss nan); lower the learning rate, now 0.05"
    )
    broken = classifier()
    weight, bias = broken.weights["scores"]
    broken = replace(broken, weights={**broken.weights, "scores": (weight * np.nan, bias)})
    found = fit(GraphModule(broken), lessons(), SHORT)
    assert isinstance(found, Failure)
    assert "before anything is learnt" in found.reason


def test_auto_takes_what_is_here() -> None:
    here = choose_device("auto").type
    assert here == "cpu" or getattr(torch, here).is_available()


def test_the_pass_keeps_zeros_and_says_what_it_did() -> None:
    before = classifier()
    weight, bias = before.weights["conv"]
    thinned = weight * (np.abs(weight) > np.median(np.abs(weight)))
    before = replace(before, weights={**before.weights, "conv": (thinned, bias)})
    step = create("finetune", epochs=2, batch_size=16, learning_rate=0.05)
    given = Needs(lessons=lessons(teachers=(classifier(),)))
    after = step.apply(before, given)
    assert (after.weights["conv"][0][thinned == 0] == 0).all()
    assert (after.weights["conv"][0][thinned != 0] != thinned[thinned != 0]).all()
    done = after.history[-1]
    assert done.startswith("finetuned 2 epochs on 96 samples by truths and its teacher: loss ")
    assert done.endswith(f"; {(thinned == 0).sum()} weights that were zero stay zero")
    quantised = create("small_weights").apply(classifier(), Needs())
    with pytest.raises(ConfigError, match="a model in dynamic8 is not trained"):
        step.apply(quantised, given)
    with pytest.raises(ConfigError, match="finetune takes samples to learn from, and there"):
        step.apply(before, Needs())


def test_maps_are_learnt_by_their_truths() -> None:
    net = GraphBuilder()
    at = net.input("x", (1, 4, 4, 1))
    net.op("conv", "same", [at], Conv(out=1))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, 4, 4, 1), np.float32)
    module = GraphModule(drawn(net.graph()))
    found = fit(module, Lessons({"x": x}, 2 * x, Agreement()), replace(SHORT, epochs=20))
    assert isinstance(found, Fitted)
    assert found.loss < 0.05 * found.loss_before


def test_pictures_are_not_turned_away_from_truths_that_lie_on_them() -> None:
    net = GraphBuilder()
    net.op("conv", "same", [net.input("x", (1, 4, 4, 1))], Conv(out=2))
    x, masks = np.zeros((8, 4, 4, 1), np.float32), np.zeros((8, 4, 4), np.int64)
    model, options = drawn(net.graph()), replace(SHORT, batch_size=4, augment=0.5)
    for truths, task in ((masks, Segmentation()), (np.zeros((8, 4, 4, 2)), Agreement())):
        with pytest.raises(ConfigError, match="would not be turned with them; leave it out"):
            fit(GraphModule(model), Lessons({"x": x}, truths, task), options)
    taught = Lessons({"x": x}, None, Segmentation(), teachers=(model,))
    assert isinstance(fit(GraphModule(model), taught, options), Fitted)


def rows_of_one_sample() -> Model:
    """A network that gives two rows of each sample, so that its samples run one by one."""
    net = GraphBuilder()
    at = net.op("reshape", "parted", [net.input("x", (1, 8))], Reshape((2, 4)))
    net.op("dense", "rows", [at], Dense(3))
    return drawn(net.graph())


def test_a_network_of_several_rows_for_each_sample_learns_from_its_teacher() -> None:
    teacher = rows_of_one_sample()
    weight, bias = teacher.weights["rows"]
    start = replace(teacher, weights={**teacher.weights, "rows": (-weight, bias)})
    x = np.random.default_rng(0).standard_normal((32, 8), np.float32)
    given = Lessons({"x": x}, None, Regression(), teachers=(teacher,))
    found = fit(GraphModule(start), given, replace(SHORT, epochs=10, batch_size=8))
    assert isinstance(found, Fitted)
    assert found.loss < found.loss_before / 2
    for truths, task in ((np.zeros(32, np.int64), Classification()), (x[:, :3], Regression())):
        with pytest.raises(ConfigError, match=r"truths .* output of the shape \(2, 3\)"):
            fit(GraphModule(start), replace(given, truths=truths, task=task), SHORT)
