"""What passes gain on a device: the file after each, timed in turns with the model as it came."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from pipeline.cli.options import require_agent, show_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_agents.api import TensorValue
    from pipeline.compress.stepwise import Step
    from pipeline.evaluate.two_files import TwoFiles
    from pipeline.formats.api import Format
    from pipeline.formats.ends import Arrays
    from pipeline.formats.subjects import Subject
    from profiles.schema import DeviceProfile


@dataclass(frozen=True, slots=True)
class Timing:
    """Where files are timed, and how thoroughly."""

    profile: DeviceProfile
    protocol: Literal["quick", "thorough"]


def find_timing(device: str | None, protocol: Literal["quick", "thorough"]) -> Timing | None:
    """Return where files are timed; None where nobody asks for it.

    Raises:
        ConfigError: no such device is known, or it times no files of ours.
    """
    if device is None:
        return None
    from profiles.registry import load_device

    profile = load_device(device)
    require_agent(profile, "compress", runtime=profile.runtime)
    return Timing(profile, protocol)


def time_steps(
    timing: Timing, format_: Format, steps: Sequence[Step], source: Subject, first: Arrays
) -> tuple[TwoFiles, ...]:
    """Time the file after each pass beside that of the model as it came.

    Args:
        timing: where, and how.
        format_: of the files.
        steps: the model as it came, and what each pass gave.
        source: whose inputs those are.
        first: the sample that all are run on, (1, *shape) by the source's names.

    Raises:
        DeviceError: the device cannot be reached, or cannot run one of them.
    """
    from device_agents.api import BenchProtocol
    from device_agents.model_files import RUNTIME_OF, read
    from device_agents.runner import Device
    from pipeline.evaluate.two_files import measure_two
    from pipeline.formats.pairing import move_inputs
    from pipeline.store.leases import open_leases

    protocol = BenchProtocol.quick() if timing.protocol == "quick" else BenchProtocol.thorough()
    device = timing.profile.name
    with TemporaryDirectory(prefix="edgewright-") as folder:
        files: list[Path] = []
        fed: list[list[TensorValue]] = []
        for place, step in enumerate(steps):
            content = format_.write(step.model)
            files.append(Path(folder) / f"step-{place}{format_.suffix}")
            files[-1].write_bytes(content)
            ends = format_.describe(content)
            fed.append(ends.to_device(move_inputs(source.ends, ends, first)))
        profile = replace(timing.profile, runtime=RUNTIME_OF[read(files[0]).format])
        found = []
        with (
            show_steps(f"timing {source.name} on {device}") as tell,
            open_leases(purpose=f"compress {source.name}") as leases,
            Device.open(profile, leases=leases, on_step=tell) as held,
        ):
            for step, file, inputs in zip(steps[1:], files[1:], fed[1:], strict=True):
                tell(step.name)
                found.append(
                    measure_two(
                        lambda _: nullcontext(held),
                        profile,
                        (files[0], file),
                        protocol,
                        inputs=(fed[0], inputs),
                    )
                )
    return tuple(found)
