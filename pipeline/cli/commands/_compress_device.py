"""What passes gain on a device: the file after each, timed in turns with the model as it came."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from pipeline.cli.options import require_agent, show_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_agents.api import TensorValue
    from models.model import Model
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


def find_timing(
    device: str | None, protocol: Literal["quick", "thorough"], command: str = "compress"
) -> Timing | None:
    """Return where files are timed; None where nobody asks for it.

    Raises:
        ConfigError: no such device is known, or it times no files of ours.
    """
    if device is None:
        return None
    from profiles.registry import load_device

    profile = load_device(device)
    require_agent(profile, command, runtime=profile.runtime)
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
    pairs = [(steps[0].model, step.model) for step in steps[1:]]
    return time_pairs(timing, format_, pairs, source, first)


def time_pairs(
    timing: Timing,
    format_: Format,
    pairs: Sequence[tuple[Model, Model]],
    source: Subject,
    first: Arrays,
) -> tuple[TwoFiles, ...]:
    """Time the file of the second model of each pair beside that of the first; as `time_steps`."""
    from device_agents.api import BenchProtocol
    from device_agents.model_files import RUNTIME_OF, read
    from device_agents.runner import Device
    from pipeline.evaluate.two_files import measure_two
    from pipeline.formats.pairing import move_inputs
    from pipeline.store.leases import open_leases

    protocol = BenchProtocol.quick() if timing.protocol == "quick" else BenchProtocol.thorough()
    device = timing.profile.name
    with TemporaryDirectory(prefix="edgewright-") as folder:
        written: dict[str, tuple[Path, list[TensorValue]]] = {}

        def write(model: Model) -> tuple[Path, list[TensorValue]]:
            content = format_.write(model)
            name = hashlib.sha256(content).hexdigest()
            if name not in written:
                path = Path(folder) / f"{name[:16]}{format_.suffix}"
                path.write_bytes(content)
                ends = format_.describe(content)
                written[name] = path, ends.to_device(move_inputs(source.ends, ends, first))
            return written[name]

        files = [(write(one), write(other)) for one, other in pairs]
        runtime = RUNTIME_OF[read(files[0][0][0]).format] if files else timing.profile.runtime
        profile = replace(timing.profile, runtime=runtime)
        found = []
        with (
            show_steps(f"timing {source.name} on {device}") as tell,
            open_leases(purpose=f"compress {source.name}") as leases,
            Device.open(profile, leases=leases, on_step=tell) as held,
        ):
            for place, ((one, fed), (other, others)) in enumerate(files, 1):
                tell(f"{place} of {len(files)}")
                found.append(
                    measure_two(
                        lambda _: nullcontext(held),
                        profile,
                        (one, other),
                        protocol,
                        inputs=(fed, others),
                    )
                )
    return tuple(found)
