"""A run of a user's own model: read, quantised, verified, measured, deployed, reported.

Every step is remembered by the hash of what it works on, so the same command after a crash or a
kill goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device_agents.api import Failure, Measurement
from device_agents.errors import ConfigError, TargetError, VerificationError
from models.number_format import FLOAT32, STATIC8
from pipeline.compress.choosing import FORMATS, USUAL_DROP
from pipeline.compress.judging import CHECKED_SAMPLES
from pipeline.deploy.release import RELEASE_IMAGES, put_in_use
from pipeline.evaluate.fastest import describe_fastest, rank_by_latency
from pipeline.evaluate.own_compression import MovedData, choose_numbers, compress_own
from pipeline.evaluate.own_data import OwnData
from pipeline.evaluate.own_figures import encode_own, score_own, time_own, to_row
from pipeline.evaluate.own_files import (
    Kept,
    list_original,
    list_own_forms,
    quantize_original,
    write_own,
)
from pipeline.evaluate.own_model import describe, list_sources, read_own
from pipeline.formats.samples import sample_ends
from pipeline.measure.bench import choose_protocol
from pipeline.measure.form import Form
from pipeline.report.model_page import write_model_report
from pipeline.run.opening import open_run, set_up
from pipeline.run.stages import STAGES, device_facts, versions
from pipeline.store.model_result import ModelResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from device_agents.api import Leases
    from pipeline.data.samples import Samples
    from pipeline.evaluate.own_compression import OwnCompressed
    from pipeline.evaluate.own_files import OwnFile
    from pipeline.evaluate.own_model import OwnModel
    from pipeline.measure.bench import DeviceBench
    from pipeline.recipe.recipe import Recipe
    from pipeline.recipe.sections import ModelSection
    from pipeline.run.opening import OpenRun
    from pipeline.store import Store
    from pipeline.store.events import Events
    from profiles.schema import DeviceProfile


@dataclass(frozen=True, slots=True)
class OwnOutcome:
    """What a run came to: `result` and `report` are None when it was asked to stop earlier."""

    run_id: str
    result: ModelResult | None = None
    report: Path | None = None


def run_own_model(
    recipe: Recipe,
    profile: DeviceProfile,
    *,
    store: Store,
    leases: Leases,
    events: Events,
    until: str = "report",
    fresh: bool = False,
    report: Path | None = None,
) -> OwnOutcome:
    """Run a recipe with a [model] on a device.

    Args:
        recipe: what to do; it has a [model].
        profile: the device.
        store: where everything is remembered.
        leases: each measurement holds the device alone.
        events: is told how far it is.
        until: the last stage to do, one of `STAGES`; before deploy, files are written and checked.
        fresh: measure everything anew instead of going on with the last run of this recipe.
        report: where the page goes; the run's folder by default.

    Raises:
        ConfigError: the model or its data cannot be read.
        EdgewrightError: every expected failure, with the command's exit code.
    """
    section = recipe.need_model("run")
    list_sources(section.file)  # a mistyped path leaves no empty run behind
    profiles = [set_up(profile, recipe.device)]
    with open_run(recipe, profiles, store=store, leases=leases, events=events, fresh=fresh) as held:
        with events.task("read the model", 1) as task:
            own = read_own(section, held.bench.memo, held.folder)
            task.advance(own.name)
        return _Run(recipe, section, held, own).do(STAGES.index(until), report)


@dataclass(frozen=True, slots=True)
class _Run:
    recipe: Recipe
    section: ModelSection
    held: OpenRun
    own: OwnModel

    @property
    def bench(self) -> DeviceBench:
        return self.held.bench

    def do(self, last: int, report: Path | None) -> OwnOutcome:
        ends = self.own.subject.ends
        shapes = {end.name: end.shape or () for end in ends.inputs}
        known = () if self.own.model is None else self.own.model.outputs[0].labels
        data = OwnData(self.recipe, sample_ends(ends, shapes), known)
        test = data.take("test", self.section.samples)
        own = describe(self.own, test.classes, data.feed)
        if test.words:
            self.bench.events.say(test.words)
        if test.guessed:
            self.bench.events.say(
                "pixels are fed as (p - 127.5) / 127.5: neither model nor data.options say how"
            )
        made = compress_own(own, data, self.recipe, self.bench) if self.recipe.compress else None
        files, failed, cautions = self.write(own, data, made)
        if last < STAGES.index("deploy"):
            return OwnOutcome(self.held.run.id)
        protocol = choose_protocol(self.recipe.device.protocol)
        compression = None if made is None else made.tell(self.bench, self.held.folder, protocol)
        timed = time_own(files, own, test, bench=self.bench, protocol=protocol)
        failed |= {
            f"{name}, timed": found.reason
            for name, found in timed.items()
            if isinstance(found, Failure)
        }
        rows = []
        with self.bench.events.task(f"{data.task.metric} on the device", len(files)) as task:
            for file in files:
                here, there, wrong = score_own(file, own, test, task=data.task, bench=self.bench)
                if wrong:
                    failed[f"{file.name}, {data.task.metric}"] = wrong
                rows.append(to_row(file, timed[file.name], (here, there), self.beside(file, files)))
                task.advance(file.path.name)
        runs = {row.name for row in rows if row.latency_ms is not None or row.score_device}
        chosen = self.choose([file for file in files if file.name in runs], timed)
        if self.recipe.quantize.is_measured:
            told = describe_fastest(chosen, timed, self.bench.profile.runtime)
            cautions += filter(None, [told])
            self.bench.events.say(told)
        deployed = self.deploy(own, chosen, test, failed)
        if last < STAGES.index("report"):
            return OwnOutcome(self.held.run.id)
        version = next(
            (m.runtime_version for m in timed.values() if isinstance(m, Measurement)), ""
        )
        result = ModelResult(
            run_id=self.held.run.id,
            recipe=self.recipe.to_json(),
            device=device_facts(self.bench, version, protocol),
            started_at=self.held.run.started_at,
            duration_s=self.bench.memo.worked_s(self.held.run.started_at),
            source=own.facts,
            unsupported=own.unsupported,
            metric=data.task.metric,
            samples=len(test),
            data=data.words,
            files=tuple(rows),
            failed=failed,
            deployed=deployed,
            versions=versions(),
            cautions=(*cautions, *_faster(files, timed, deployed)),
            compression=compression,
        )
        self.bench.memo.store.add_result(result)
        page = write_model_report(result, report or self.held.folder / "report.html")
        return OwnOutcome(self.held.run.id, result, page)

    @property
    def wanted(self) -> Form:
        """What is asked for; where the device says the number format, what is tried first."""
        section = self.recipe.quantize
        usual = STATIC8 if section.is_measured else section.number_format
        return Form(self.bench.profile.runtime, choose_numbers(self.recipe, usual))

    def write(
        self, own: OwnModel, data: OwnData, made: OwnCompressed | None
    ) -> tuple[list[OwnFile], dict[str, str], list[str]]:
        """Return the files there are, the model as it came first; what failed; and cautions.

        That a library cannot quantise what no graph can say is a caution: the file is as it was.
        """
        files, failed, cautions = list_original(own), dict[str, str](), list[str]()
        count = self.recipe.quantize.calibration_images
        if own.model is None:
            wanted = self.wanted.number_format
            by_library = (f"{own.name} {wanted}", self.by_library(own, data, count))
            work = [] if wanted == FLOAT32 else [by_library]
        else:
            section = self.recipe.quantize
            max_drop = section.max_drop
            if section.is_measured and max_drop is None and own.model.quantization is None:
                max_drop = USUAL_DROP
            judging = CHECKED_SAMPLES if max_drop is None else self.section.samples
            kept = Kept(section.float_layers, max_drop, data.task)
            chosen, given = self.choose_forms(own, data, made)
            train, held = given.take("train", count), given.take("validation", judging)
            work = [
                (str(form), self.by_writer(one, form, train, held, kept)) for one, form in chosen
            ]
        with self.bench.events.task("write and verify", len(work)) as task:
            for name, write in work:
                try:
                    files.append(write())
                    if files[-1].drop_words:
                        self.bench.events.say(files[-1].drop_words)
                except (ConfigError, TargetError, VerificationError) as error:
                    self.bench.events.say(f"left out, {name}: {error}")
                    if own.model is None:
                        cautions.append(f"It was not quantised: {error}")
                    else:
                        failed[name] = str(error)
                task.advance(name)
        if not files:
            raise VerificationError(
                f"nothing of {own.name} could be written: {'; '.join(failed.values())}"
            )
        return files, failed, cautions

    def choose_forms(
        self, own: OwnModel, data: OwnData, made: OwnCompressed | None
    ) -> tuple[list[tuple[OwnModel, Form]], OwnData | MovedData]:
        """Return which model is written in which form, and the samples of such models."""
        more = FORMATS if self.recipe.quantize.is_measured else ()
        formats = self.recipe.export.formats
        if made is None:
            return [(own, form) for form in list_own_forms(own, formats, self.wanted, more)], data
        chosen = list(made.list_forms(formats, self.wanted, more))
        return chosen, MovedData(data, own.subject.ends, chosen[0][0].subject.ends)

    def by_writer(
        self, own: OwnModel, form: Form, train: Samples, held: Samples, kept: Kept
    ) -> Callable[[], OwnFile]:
        bench, folder = self.bench, self.held.folder
        return lambda: write_own(
            own, form, bench=bench, folder=folder, train=train, held=held, kept=kept
        )

    def by_library(self, own: OwnModel, data: OwnData, count: int) -> Callable[[], OwnFile]:
        return lambda: quantize_original(
            own,
            self.wanted.number_format,
            bench=self.bench,
            folder=self.held.folder,
            train=data.take("train", count),
            of_layers=self.recipe.quantize.of_layers,
        )

    def beside(self, file: OwnFile, files: list[OwnFile]) -> str:
        """Return the name of what a file was timed in turns with."""
        same = [f for f in files if f.runtime == file.runtime and f is not file]
        plain = [f for f in same if f.is_original or f.number_format == str(FLOAT32)]
        return plain[0].name if plain else ""

    def choose(
        self, files: list[OwnFile], timed: Mapping[str, Measurement | Failure]
    ) -> list[OwnFile]:
        """Return what can be put in use, what was asked for first."""
        if self.recipe.quantize.is_measured:
            return rank_by_latency(files, timed, self.bench.profile.runtime)
        asked = str(self.wanted.number_format)

        def place(file: OwnFile) -> tuple[bool, bool, bool]:
            other = file.runtime != self.bench.profile.runtime
            return other, file.number_format != asked, file.is_original

        return sorted(files, key=place)

    def deploy(
        self, own: OwnModel, files: list[OwnFile], given: Samples, failed: dict[str, str]
    ) -> dict[str, Any]:
        """Put the first file in use that computes there what it computes here; say so."""
        for file in files:
            shapes = own.options.shapes if file.is_original else {}
            version = f"{self.bench.run_id}-{file.sha256[:8]}"
            try:
                path, checked = put_in_use(
                    self.bench.device,
                    file.path,
                    self.recipe.name,
                    version,
                    runtime=file.runtime,
                    threads=self.bench.profile.threads,
                    inputs=encode_own(file, own, given, RELEASE_IMAGES),
                    shapes=shapes,
                )
            except VerificationError as error:
                failed[f"{file.name}, deployed"] = str(error)
                self.bench.events.say(str(error))
                continue
            self.bench.events.say(f"on {self.bench.name} its outputs {checked.words}")
            self.bench.events.say(f"deployed and run from there: {self.bench.name}:{path}")
            return {
                "name": self.recipe.name,
                "version": version,
                "path": path,
                "sha256": file.sha256,
                "file": file.name,
            }
        return {}


def _faster(
    files: list[OwnFile], timed: dict[str, Measurement | Failure], deployed: dict[str, Any]
) -> list[str]:
    """Return a sentence for each file that is faster than the one in use, beyond doubt."""
    own = timed.get(deployed.get("file", ""))
    if not isinstance(own, Measurement):
        return []
    said = []
    for file in files:
        other = timed[file.name]
        if isinstance(other, Measurement) and other.ci95_ms[1] < own.ci95_ms[0]:
            said.append(
                f"{file.name} is faster than what is in use ({deployed['file']}): "
                f"{other.median_ms:.4g} against {own.median_ms:.4g} ms"
            )
    return said
