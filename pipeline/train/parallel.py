"""Several trainings at once, each in a process of its own with one thread.

Small networks gain little from a second thread and lose much when the machine is busy; two
processes use two cores whatever they train. A child opens the store itself and records its epochs
and its result there, so a killed parent loses nothing but what was in flight. A child that can no
longer report ends itself at its next epoch.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, cast

from device_agents.api import Failure
from device_agents.errors import EdgewrightError
from pipeline.context import Workshop
from pipeline.train.loop import Trained, use_threads
from pipeline.train.recorded import trained_network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.context import SpawnProcess

    from models.spec import ArchSpec
    from pipeline.data.api import Dataset
    from pipeline.recipe import Recipe

EPOCH_TIMEOUT_S = 3600.0
"""A child that reports no epoch for so long is taken to hang."""
_JOIN_S = 10.0


def train_all(
    shop: Workshop,
    specs: Sequence[ArchSpec],
    *,
    on_epoch: Callable[[int, int], None] = lambda _index, _epoch: None,
) -> list[Trained | Failure]:
    """Train networks as the recipe says, as many at once as there are cores.

    Args:
        shop: the recipe, its data and the store.
        specs: what to train; what the store already has is not trained again.
        on_epoch: told the index of a network and the number of its epochs done.

    Returns:
        One trained network or failure for each spec, in order. A process that dies (for want of
        memory, say) is a retryable Failure.
    """
    failures: dict[int, Failure] = {}
    waiting = list(enumerate(specs))
    running: dict[Connection, tuple[int, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                index, spec = waiting.pop(0)
                reader, process = _start(shop, spec)
                running[reader] = (index, process)
            ready = cast("list[Connection]", wait(list(running), EPOCH_TIMEOUT_S))
            for reader in ready:
                index, process = running[reader]
                outcome = _message(reader, process)
                if isinstance(outcome, int):
                    on_epoch(index, outcome)
                    continue
                if outcome is not None:
                    failures[index] = outcome
                process.join(_JOIN_S)
                del running[reader]
            if not ready:
                hanging = {index for index, _ in running.values()}
                reason = f"training reported nothing for {EPOCH_TIMEOUT_S:g} s"
                failures.update((index, Failure(reason, retryable=True)) for index in hanging)
                break
    finally:
        for reader, (_, process) in running.items():
            process.kill()
            process.join(_JOIN_S)
            reader.close()
    return [
        failures[index] if index in failures else trained_network(shop, spec)
        for index, spec in enumerate(specs)
    ]


@dataclass(frozen=True, slots=True)
class _Job:
    recipe: Recipe
    dataset: Dataset
    dataset_digest: str
    location: str
    spec: ArchSpec


def _start(shop: Workshop, spec: ArchSpec) -> tuple[Connection, SpawnProcess]:
    # Not fork: torch's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    job = _Job(shop.recipe, shop.dataset, shop.dataset_digest, shop.store.location, spec)
    process = context.Process(target=_child, args=(writer, job), daemon=True)
    process.start()
    writer.close()
    return reader, process


def _message(reader: Connection, process: SpawnProcess) -> int | Failure | None:
    """Return an epoch, a failure, or None when the training has ended well."""
    try:
        message: int | Failure | None = reader.recv()
    except EOFError:
        process.join(_JOIN_S)
        return Failure(f"a training process ended with code {process.exitcode}", retryable=True)
    return message


def _child(writer: Connection, job: _Job) -> None:
    from pipeline.store import Store

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
    use_threads(1)
    try:
        with Store.open(job.location) as store:
            shop = Workshop(
                recipe=job.recipe,
                dataset=job.dataset,
                dataset_digest=job.dataset_digest,
                store=store,
            )
            outcome = trained_network(shop, job.spec, on_epoch=writer.send)
        writer.send(outcome if isinstance(outcome, Failure) else None)
    except BrokenPipeError:
        return  # the parent has gone
    except EdgewrightError as error:
        writer.send(Failure(str(error)))
