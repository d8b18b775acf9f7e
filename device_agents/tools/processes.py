"""Runs single processes of benchmark_model on a device and judges each; the device is ready.

The binary writes its result file where it knows that flag. One that does not says so, or (an old
one) silently writes none; from then on its text is read.
"""

from __future__ import annotations

import posixpath
import random
import time
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from device_agents.errors import AgentError
from device_agents.measure.steps import Step, Steps, silent
from device_agents.rejoin import REJOIN_S
from device_agents.tools import benchmark_model
from device_agents.tools.benchmark_proto import Result, parse_result
from device_agents.tools.benchmark_text import TextRun, parse_log
from device_agents.tools.failures import unknown_flags
from device_agents.tools.observations import Observation, precision, spread_of
from device_agents.tools.remote_job import RESULT_NAME, Link, Output, run_job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from device_agents.api import BenchProtocol, DeviceDescription
    from device_agents.tools.benchmark_model import Graph

_PASS_DEADLINE_S = 300.0
# An op profile or a memory reading needs no precision.
_PASS_RUNS = 20
# A job that a reboot or a clean-up took is begun again, this often in all.
_TRIES = 2
_ABBA = ((0, 1, 1, 0), (1, 0, 0, 1))


@dataclass(slots=True)
class Processes:
    """Starts processes of one binary.

    Attributes:
        binary: path of the binary on the device.
        jobs: folder for what runs.
        writes_result: whether the binary writes result files, as far as is known.
        ignores_flags: whether it said nothing of a flag that it does not know, as old ones do.
    """

    description: DeviceDescription
    link: Link
    binary: str
    jobs: str
    writes_result: bool = True
    ignores_flags: bool = False

    def observations(
        self,
        targets: Sequence[Graph],
        protocol: BenchProtocol,
        threads: int,
        tell: Callable[[Step], object] = silent,
    ) -> list[Observation]:
        """Run processes until the figure is precise, the budget spent or the most are done."""
        found: list[Observation] = []
        rng = random.Random(protocol.seed)  # noqa: S311  # statistics, not secrets
        steps = Steps(protocol, time.monotonic, tell)
        while True:
            done = sum(item.subject == 0 for item in found)
            enough = done >= protocol.processes and (
                precision(found, rng) <= protocol.target_half_width
            )
            if enough or (done and steps.late) or done >= protocol.max_processes:
                return found
            order = _ABBA[(protocol.seed + len(found) // 4) % 2] if len(targets) > 1 else (0,)
            for subject in order:
                if subject == 0:
                    steps.next()
                found.append(self._observe(subject, targets[subject], protocol, threads))

    def _observe(
        self, subject: int, graph: Graph, protocol: BenchProtocol, threads: int
    ) -> Observation:
        """Run one process for a figure; raises AgentError when the run does not count."""
        settings = benchmark_model.Settings(
            graph=graph,
            threads=threads,
            runs=protocol.min_samples,
            min_s=protocol.max_s,
            max_s=max(1.0, protocol.deadline_s / 2.0),
            warmup_s=protocol.warmup_min_ms / 1000.0,
            xnnpack=self.description.xnnpack,
            full_delegation=self.description.min_delegated_share == 1.0,
        )
        started = time.perf_counter_ns()
        run, output = self._run(settings, protocol.deadline_s, protocol.rejoin_s)
        wall_ns = time.perf_counter_ns() - started
        result = self._result(output)
        found = benchmark_model.accept(
            run, exit_code=output.rc, asked=protocol.min_samples, result=result
        )
        whose = "" if subject == 0 else "the reference: "
        if found.status != "accepted" or found.latency_ms is None or found.runs is None:
            raise AgentError(
                f"device {self.description.name!r}: {whose}{'; '.join(found.reasons)}",
                kind="timeout" if found.status == "truncated" else "invoke_failed",
                detail=output.text[-2000:],
            )
        self._check_delegation(run)
        stat = result.measured if result is not None else run.measured
        avg_ms = stat.avg_ms if stat is not None and stat.avg_ms is not None else found.latency_ms
        return Observation(
            *(subject, found.latency_ms, found.statistic, run, found.runs, avg_ms),
            spread_of(run),
            wall_ns,
        )

    def _check_delegation(self, run: TextRun) -> None:
        """Refuse a figure whose delegate is not the one that was asked for."""
        description = self.description
        if not description.xnnpack and "XNNPACK" in run.delegation.delegate:
            raise AgentError(
                f"device {description.name!r}: the binary applied XNNPACK although it is switched "
                "off; take a newer one",
                kind="not_delegated",
            )
        share = self.share_of(run)
        wanted = description.min_delegated_share
        if wanted and (share is None or share < wanted):
            told = "an unknown share" if share is None else f"{share:.0%}"
            refused = (
                f" ({'; '.join(run.delegation.refused[:3])})" if run.delegation.refused else ""
            )
            raise AgentError(
                f"device {description.name!r}: {told} of the ops is delegated, less than the "
                f"{wanted:.0%} asked for{refused}; change the model, or `min_delegated_share` in "
                "the profile",
                kind="not_delegated",
            )

    def share_of(self, run: TextRun) -> float | None:
        """Return the delegated share of the ops; None when it is not known.

        A tool that was told to refuse anything but full delegation, and ran, has delegated all; but
        old binaries ignore flags that they do not know, and prove nothing.
        """
        enforced = self.description.min_delegated_share == 1.0 and not self.ignores_flags
        return 1.0 if run.delegation.share is None and enforced else run.delegation.share

    def one_pass(
        self, graph: Graph, threads: int, *, op_profiling: bool = False, peak_memory: bool = False
    ) -> tuple[TextRun, Output]:
        """Run one process that is not timed for a figure."""
        settings = benchmark_model.Settings(
            graph=graph,
            threads=threads,
            runs=_PASS_RUNS,
            min_s=0.0,
            max_s=_PASS_DEADLINE_S / 2.0,
            warmup_s=0.0,
            xnnpack=self.description.xnnpack,
            op_profiling=op_profiling,
            peak_memory=peak_memory,
        )
        run, output = self._run(settings, _PASS_DEADLINE_S, REJOIN_S)
        found = benchmark_model.accept(run, exit_code=output.rc, asked=_PASS_RUNS)
        if found.status != "accepted":
            raise AgentError(
                f"device {self.description.name!r}: {'; '.join(found.reasons)}",
                kind="invoke_failed",
                detail=output.text[-2000:],
            )
        return run, output

    def _result(self, output: Output) -> Result | None:
        if not output.result:
            return None
        try:
            return parse_result(output.result)
        except ValueError as error:
            raise AgentError(
                f"device {self.description.name!r}: the binary's result file cannot be read: "
                f"{error}",
                kind="invoke_failed",
            ) from error

    def _run(
        self, settings: benchmark_model.Settings, deadline_s: float, rejoin_s: float
    ) -> tuple[TextRun, Output]:
        """Run one process; once more, without the result file, if the binary lacks that flag."""
        asked = self.writes_result
        output = self._job(settings, deadline_s, rejoin_s, with_result=asked)
        if asked and unknown_flags(output.text) == [benchmark_model.RESULT_FLAG]:
            self.writes_result = False
            output = self._job(settings, deadline_s, rejoin_s, with_result=False)
        elif asked and output.rc == 0 and not output.result:
            self.writes_result, self.ignores_flags = False, True
        runs = parse_log(output.text)
        if len(runs) == 1:
            return runs[0], output
        if output.rc:
            # Without a run in its output only the shell knows why.
            reasons = benchmark_model.not_started(output.rc)
            said = output.text.strip().splitlines()
            more = f"; it said {said[-1][:200]!r}" if said else ""
            raise AgentError(
                f"device {self.description.name!r}: {reasons}{more}",
                kind="invoke_failed",
                detail=output.text[-2000:],
            )
        raise AgentError(
            f"device {self.description.name!r}: {len(runs)} benchmark runs in the binary's output "
            "instead of one; is it a benchmark_model?",
            kind="invoke_failed",
            detail=output.text[-2000:],
        )

    def _job(
        self,
        settings: benchmark_model.Settings,
        deadline_s: float,
        rejoin_s: float,
        *,
        with_result: bool,
    ) -> Output:
        for left in reversed(range(_TRIES)):
            job_id = f"ew-{uuid.uuid4().hex}"
            if with_result:
                result_path = posixpath.join(self.jobs, job_id, RESULT_NAME)
                settings = replace(settings, result_path=result_path)
            else:
                settings = replace(settings, result_path="")
            argv = benchmark_model.command_line(self.binary, settings)
            if self.description.cpus:
                argv = ["taskset", _mask(self.description.cpus), *argv]
            try:
                return run_job(
                    self.link,
                    self.jobs,
                    argv,
                    job_id=job_id,
                    deadline_s=deadline_s,
                    rejoin_s=rejoin_s,
                )
            except AgentError as error:
                if error.kind != "crashed" or not left:
                    raise
        raise AssertionError


def _mask(cpus: Sequence[int]) -> str:
    """Return the CPU mask in hex without 0x, which both toybox and util-linux understand."""
    return f"{sum(1 << cpu for cpu in set(cpus)):x}"
