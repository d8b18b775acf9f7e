"""Chains of passes in the store: gone on with after a kill, known again, done anew where new."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from device_agents.errors import TargetError
from models.lower import lower
from models.model import Model, random_model
from models.spec import ArchSpec
from pipeline.cli.main import main
from pipeline.compress.api import Lessons, Needs
from pipeline.compress.judging import Judge
from pipeline.compress.passes import create
from pipeline.compress.passes.prune import Prune
from pipeline.compress.remembered import Memory
from pipeline.compress.stepwise import Step, compress
from pipeline.data import TASKS
from pipeline.formats import create as create_format
from pipeline.formats.subjects import ModelSubject
from pipeline.store import Store
from pipeline.store.memo import Memo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.compress.api import Pass, Use

SPEC = "12x12x3:same:conv_k3_s2_o16:conv_k3_s1_o24:fc5"
CHAIN = ("net.npz", "prune:ratio=0.25", "prune:ratio=0.5", "quantize:static8")
WORDS = ("compress", *CHAIN, "--data", "data.npz", "--json")

KILLED = """
import sys
from pipeline.cli.main import main
from pipeline.compress.passes.prune import Prune

apply = Prune.apply

def told(self, what, needs):
    print("doing", self.options.ratio, flush=True)
    if self.options.ratio == 0.5:
        sys.stdin.read()  # in the middle of it, until it is killed
    return apply(self, what, needs)

Prune.apply = told
main(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    random_model(lower(ArchSpec.parse(SPEC)), rng).save("net.npz")
    images = rng.standard_normal((40, 12, 12, 3), np.float32)
    np.savez("data.npz", input=images, labels=np.arange(40) % 5)


def run(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    Path("net-compressed.tflite").unlink(missing_ok=True)
    code = main([*WORDS, *more])
    out, err = capsys.readouterr()
    assert code == 0, err
    told: dict[str, Any] = json.loads(out)
    return told


def remembered(told: dict[str, Any]) -> list[bool]:
    return [step["remembered"] for step in told["steps"][1:]]


def count_prunings(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the ratios of the prunings that are done from now on."""
    done: list[float] = []
    apply = Prune.apply

    def counted(self: Prune, what: Model, needs: Needs) -> Model:
        done.append(self.options.ratio)
        return apply(self, what, needs)

    monkeypatch.setattr(Prune, "apply", counted)
    return done


def test_a_chain_that_was_killed_goes_on_with_what_was_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, *WORDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as child:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(2)] == ["doing 0.25\n", "doing 0.5\n"]
        child.kill()
    assert not Path("net-compressed.tflite").exists()

    done = count_prunings(monkeypatch)
    assert remembered(run(capsys)) == [True, False, False]
    assert done == [0.5]
    made = Path("net-compressed.tflite").read_bytes()

    told = run(capsys)
    assert remembered(told) == [True, True, True]
    assert done == [0.5], "what is known is not done again"
    assert Path("net-compressed.tflite").read_bytes() == made
    again = run(capsys, "--fresh")
    assert remembered(again) == [False, False, False]
    assert done == [0.5, 0.25, 0.5]
    assert again["history"] == told["history"]
    assert Path("net-compressed.tflite").read_bytes() == made
    told = run(capsys, "--report", "page.html")
    assert Path("page.html").read_text().count('data-figure="figure-compression-') == 2
    assert remembered(told) == [True, True, True], "what was done afresh is known from then"
    assert done == [0.5, 0.25, 0.5]


def test_chains_that_begin_alike_share_their_passes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys)
    done = count_prunings(monkeypatch)
    Path("net-compressed.tflite").unlink()
    words = ["compress", *CHAIN[:3], "quantize:dynamic8", "--data", "data.npz", "--json"]
    assert main(words) == 0
    assert remembered(json.loads(capsys.readouterr().out)) == [True, True, False]
    assert main(["compress", *CHAIN[:2], "-o", "one.tflite"]) == 0
    assert "remembered, and not done again: prune:ratio=0.25" in capsys.readouterr().err
    assert done == []
    assert main(["compress", *CHAIN[:2], "-o", "two.tflite", "--store", "another"]) == 0
    assert done == [0.25]
    assert Path("one.tflite").read_bytes() == Path("two.tflite").read_bytes()


@dataclass(frozen=True, slots=True)
class TaughtOptions:
    """Options of `Taught`."""

    epochs: int = 4


class Taught:
    """Adds a number an epoch to a bias, and can be interrupted after one."""

    name = "taught"
    version = 1
    takes: type = Model
    uses: frozenset[Use] = frozenset({"calibration", "training"})
    quantizes = False
    Options: type = TaughtOptions
    epochs_done: ClassVar[list[int]] = []

    def __init__(self, options: TaughtOptions = TaughtOptions(), stop_at: int = 99) -> None:
        self.options = options
        self.stop_at = stop_at

    def apply(self, what: Model, needs: Needs) -> Model:
        lessons = needs.require_lessons(self.name)
        kept = lessons.checkpoints("taught")
        assert kept is not None
        last = what.graph.outputs[0]
        weight, bias = what.weights[last]
        state = kept.load()
        first = 0
        if state is not None:
            first, bias = int(state["epoch"]), np.asarray(state["bias"], np.float32)
        for epoch in range(first, self.options.epochs):
            if epoch == self.stop_at:
                raise KeyboardInterrupt
            bias = (bias + np.float32(0.5)).astype(np.float32)
            self.epochs_done.append(epoch)
            kept.save({"epoch": np.asarray(epoch + 1), "bias": bias})
        weights = {**what.weights, last: (weight, bias)}
        return replace(what, weights=weights, history=(*what.history, "taught"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


def made_needs() -> Needs:
    rng = np.random.default_rng(1)
    inputs = {"input": rng.standard_normal((8, 12, 12, 3), np.float32)}
    task = TASKS.load("classification")()
    teacher = random_model(lower(ArchSpec.parse(SPEC)), rng)
    return Needs(inputs=inputs, lessons=Lessons(inputs, np.arange(8) % 5, task, (teacher,)))


def put_through(one: Pass, needs: Needs, store: Store, **how: Any) -> tuple[Step, ...]:
    model = Model.load("net.npz")
    subject = ModelSubject("net", model)
    task, agreement = (TASKS.load(name)() for name in ("classification", "agreement"))
    inputs = {"input": np.load("data.npz")["input"][:8, None]}
    judge = Judge(subject, create_format("tflite"), inputs, None, task, agreement)
    memory = Memory.of(Memo(store), model, fresh=False)
    return compress(model, [(one.name, one)], needs, judge, memory=memory, **how)


def test_a_training_within_a_pass_goes_on_from_its_last_epoch(store: Store) -> None:
    Taught.epochs_done.clear()
    needs = made_needs()
    with pytest.raises(KeyboardInterrupt):
        put_through(Taught(stop_at=2), needs, store)
    assert Taught.epochs_done == [0, 1]
    made = put_through(Taught(), needs, store)[-1]
    assert (Taught.epochs_done, made.remembered) == ([0, 1, 2, 3], False)
    again = put_through(Taught(), needs, store)[-1]
    assert (Taught.epochs_done, again.remembered) == ([0, 1, 2, 3], True)
    assert again.model.digest() == made.model.digest()
    assert again.model.history == made.model.history
    rows = [one for one in store.artifacts.folder.glob("??/*") if one.is_file()]
    assert len(rows) == 1, "no state is left of a training that is done"


@pytest.mark.parametrize(
    "changed",
    ["inputs", "calibration", "truths", "teachers", "seed", "options", "version", "nothing"],
)
def test_a_pass_is_done_again_for_anything_that_it_depends_on(store: Store, changed: str) -> None:
    needs, one = made_needs(), Taught()
    assert needs.lessons is not None
    assert needs.inputs is not None
    put_through(one, needs, store)
    louder = {name: values * 2 for name, values in needs.inputs.items()}
    lessons: dict[str, Any] = {
        "inputs": {"inputs": louder},
        "truths": {"truths": None},
        "teachers": {"teachers": ()},
        "seed": {"seed": 1},
    }
    needs = replace(
        needs,
        lessons=replace(needs.lessons, **lessons.get(changed, {})),
        inputs=louder if changed == "calibration" else needs.inputs,
    )
    if changed == "options":
        one = Taught(TaughtOptions(epochs=5))
    if changed == "version":
        one.version = 2
    assert put_through(one, needs, store)[-1].remembered == (changed == "nothing")


def test_what_may_be_lost_is_part_of_quantising_alone(store: Store) -> None:
    needs = made_needs()
    prune, quantize = create("prune", ratio=0.5), create("ptq", images=8)
    for one in (prune, quantize):
        assert not put_through(one, needs, store)[-1].remembered
        known = put_through(one, needs, store, max_drop=100.0)[-1].remembered
        assert known == (one is prune)
        assert put_through(one, needs, store, max_drop=100.0)[-1].remembered


def test_each_pass_may_have_a_limit_of_its_own(store: Store) -> None:
    needs, prune = made_needs(), create("prune", ratio=0.9, least=0)
    with pytest.raises(TargetError, match=r"after prune the model has lost .* more than 0; cut"):
        put_through(prune, needs, store, limits=[0.0])
    assert len(put_through(prune, needs, store, limits=[None], max_drop=0.0)) == 2
