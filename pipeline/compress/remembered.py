"""Passes and judgements remembered by a store: a chain that was killed goes on where it was.

A pass is keyed by all that its result depends on, so that chains that begin alike share their
steps. Its line of history is kept, the lines before it are those of the model that it is given.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.agent import runtimes
from device_agents.model_files import RUNTIME_OF
from models.model import Model
from pipeline.compress.api import LEARNING
from pipeline.compress.judging import Lost, Worth
from pipeline.formats.subjects import FileSubject, ModelSubject, Remembered
from pipeline.store.memo import Memo, StepKind
from pipeline.train.remembered import StoredCheckpoints

if TYPE_CHECKING:
    from pipeline.compress.api import Lessons, Needs, Pass
    from pipeline.compress.judging import Judge
    from pipeline.formats.subjects import Subject
    from pipeline.train.checkpoints import Checkpoints

PASS = StepKind("compress-pass")
JUDGED = StepKind("judge-model")
SERIES = StepKind("compress-series")


@dataclass(frozen=True, slots=True)
class Made:
    """What a pass gave.

    Attributes:
        model: the network.
        left: ops that it left in float32 so that no more is lost than may be.
        remembered: whether it was done before, and only read again.
    """

    model: Model
    left: tuple[str, ...] = ()
    remembered: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """What a store knows of the passes of one chain.

    Attributes:
        memo: does steps once; None remembers nothing.
        series: counted up where everything is to be done again.
    """

    memo: Memo | None = None
    series: int = 0
    _digests: dict[int, tuple[object, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, memo: Memo, model: Model, *, fresh: bool) -> Memory:
        """Return what is known of a model's passes; nothing if it is to be `fresh`.

        What is done from then on is remembered as any other, and known to whoever comes next.
        """
        series, model_digest = 0, model.digest()

        def started(number: int) -> dict[str, Any]:
            return {"model": model_digest, "series": number}

        while memo.remembers(SERIES, started(series + 1)):
            series += 1
        if fresh:
            series += 1
            memo.once(SERIES, started(series), lambda: ({}, {}))
        return cls(memo, series)

    def make(
        self,
        one: Pass,
        before: Model,
        needs: Needs,
        work: Callable[[Needs], Made],
        *,
        asked: Mapping[str, Any],
    ) -> Made:
        """Return what a pass makes of a model, by doing it unless that is known.

        Args:
            one: the pass.
            before: what it is given.
            needs: samples and lessons; its trainings go on from where they were.
            work: does it.
            asked: what else its result depends on, as JSON values.
        """
        if self.memo is None:
            return work(needs)
        inputs = self._inputs(one, before, needs, asked)
        given, trainings = self._keeping(needs, inputs)
        store, did = self.memo.store, False

        def do() -> tuple[dict[str, Any], dict[str, str]]:
            nonlocal did
            did = True
            made = work(given)
            with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
                made.model.save(Path(folder) / "model.npz")
                kept = store.put_file(Path(folder) / "model.npz")
            return {"left": list(made.left)}, {"model": kept}

        step = self.memo.once(PASS, inputs, do)
        for training in trainings.values():
            self.memo.drop_checkpoints(PASS, training)
        found = Model.load(store.path(step.artifacts["model"]))
        history = (*before.history, *found.history[-1:])
        return Made(replace(found, history=history), tuple(step.result["left"]), not did)

    def judge(self, judge: Judge, model: Model, came: Model) -> Worth:
        """Return what a model's file is worth beside the one that came, unless that is known."""
        if self.memo is None:
            return judge.measure(model)

        def work() -> tuple[dict[str, Any], dict[str, str]]:
            return asdict(judge.measure(model)), {}

        inputs = {**self.describe(judge, came), "candidate": model.digest()}
        found = self.memo.once(JUDGED, inputs, work).result
        return Worth(**{**found, "lost": Lost(**found["lost"])})

    def describe(self, judge: Judge, came: Model) -> dict[str, Any]:
        """Return what a judge's figures depend on beside the candidate, as JSON values."""
        truths = {} if judge.labels is None else {"labels": judge.labels}
        return {
            "model": came.digest(),
            "source": _identify(judge.source),
            "format": judge.format_.name,
            "int8_form": judge.format_.int8_form,
            "runtime": runtimes.find_installed(RUNTIME_OF[judge.format_.name]),
            "samples": self._digest(judge.inputs),
            "labels": self._digest(judge.labels) if truths else "",
            "task": type(judge.task).__name__,
            **({"packs": True} if judge.packs else {}),
            **self._again(),
        }

    def _inputs(
        self, one: Pass, before: Model, needs: Needs, asked: Mapping[str, Any]
    ) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            "model": before.digest(),
            "pass": one.name,
            "version": one.version,
            "options": _plain(one.options),
            **asked,
            **self._again(),
        }
        if "calibration" in one.uses:
            inputs["samples"] = self._digest(needs.inputs or needs.images)
        if one.uses & LEARNING and needs.lessons is not None:
            inputs["lessons"] = self._describe_lessons(needs.lessons)
        return inputs

    def _again(self) -> dict[str, int]:
        return {"series": self.series} if self.series else {}

    def _describe_lessons(self, lessons: Lessons) -> dict[str, Any]:
        """Return all that lessons teach; where their state is kept and who is told do not count."""
        return {
            one.name: self._digest(getattr(lessons, one.name))
            for one in fields(lessons)
            if one.name not in {"checkpoints", "tell"}
        }

    def _keeping(
        self, needs: Needs, inputs: dict[str, Any]
    ) -> tuple[Needs, dict[str, dict[str, Any]]]:
        """Return needs whose trainings keep their state, and the keys of those that do, by name."""
        trainings: dict[str, dict[str, Any]] = {}
        memo, lessons = self.memo, needs.lessons
        if lessons is None or memo is None:
            return needs, trainings

        def keep(name: str) -> Checkpoints:
            trainings[name] = {**inputs, "training": name}
            return StoredCheckpoints(memo, PASS, trainings[name])

        return replace(needs, lessons=replace(lessons, checkpoints=keep)), trainings

    def _digest(self, value: object) -> str:
        """Return a hash of samples or of what is learnt from; of the same object once."""
        known = self._digests.get(id(value))
        if known is None or known[0] is not value:
            known = self._digests[id(value)] = (value, _digest(value))
        return known[1]


def _digest(value: object) -> str:
    """Return a 16-digit hash of arrays, models, tasks and plain values, and of many of them."""
    sha = hashlib.sha256()
    if isinstance(value, np.ndarray):
        sha.update(f"{value.dtype}:{value.shape};".encode())
        sha.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Model):
        sha.update(value.digest().encode())
    elif isinstance(value, Mapping):
        for name in sorted(value):
            sha.update(f"{name}:{_digest(value[name])};".encode())
    elif isinstance(value, tuple | list):
        sha.update(";".join(map(_digest, value)).encode())
    elif value is None or isinstance(value, str | int | float | bool):
        sha.update(repr(value).encode())
    else:
        plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else {}
        sha.update(f"{type(value).__name__} {plain}".encode())
    return sha.hexdigest()[:16]


def _identify(subject: Subject) -> str:
    """Return what tells a subject from others that compute something else."""
    if isinstance(subject, Remembered):
        return _identify(subject.subject)
    if isinstance(subject, FileSubject):
        return hashlib.sha256(subject.path.read_bytes()).hexdigest()
    if isinstance(subject, ModelSubject):
        return subject.model.digest()
    return subject.name


def _plain(options: Any) -> Any:
    """Return a pass's options as JSON values."""
    return json.loads(json.dumps(asdict(options)))
