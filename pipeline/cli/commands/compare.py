"""edgewright compare: which of two model files is faster on a device, and do they agree?"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from device_agents.errors import DeviceError
from device_agents.model_files import check_suffix, input_shapes, open_input, read
from pipeline.cli.options import (
    DEVICE,
    INPUT_SHAPE,
    JSON,
    data_option,
    echo,
    parse_shapes,
    pixel_options,
    print_json,
    require_agent,
    show_steps,
    to_values,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from device_agents.api import TensorValue
    from device_agents.runner import Device
    from pipeline.data.pictures.values import Values
    from pipeline.formats.beside import Beside
    from profiles.schema import DeviceProfile

_SAMPLES = 256


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@DEVICE
@click.option("--protocol", type=click.Choice(["quick", "thorough"]), default="thorough")
@click.option("--threads", type=click.IntRange(1, 256), help="Default: the device's own.")
@data_option("Compare outputs on, and time on the first of")
@pixel_options
@INPUT_SHAPE
@JSON
def command(
    *,
    first: Path,
    second: Path,
    device: str,
    protocol: str,
    threads: int | None,
    data: Path | None,
    mean: str | None,
    scale: str | None,
    colours: str | None,
    shapes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Time FIRST and SECOND on a device, in turns, and say which to use.

    Their outputs are compared on this computer before: a faster file that computes something else
    is no faster file, and ends with exit code 5. Files of two runtimes cannot run in turns; they
    are timed one after the other, twice.
    """
    from device_agents.api import BenchProtocol
    from pipeline.cli.samples import read_fed
    from pipeline.evaluate.two_files import measure_two
    from profiles.registry import load_device

    given, files = parse_shapes(shapes), (read(first), read(second))
    of_each = []
    for file in files:
        check_suffix(file)
        own = {name: shape for name, shape in given.items() if open_input(file, name) is not None}
        input_shapes(file, own)
        of_each.append(own)
    profile = load_device(device)
    require_agent(profile, "compare", runtime=profile.runtime)
    values = to_values(mean, scale, colours)
    agreement = _agreement(first, second, of_each, data, values)
    fed: tuple[Sequence[TensorValue], Sequence[TensorValue]] = ((), ())
    if data is not None:
        one = read_fed(data, first, of_each[0], values, again=True)
        fed = one.values, one.of(second, of_each[1])
    timing = BenchProtocol.quick() if protocol == "quick" else BenchProtocol.thorough()

    @contextmanager
    def opened(asked: DeviceProfile) -> Iterator[Device]:
        from device_agents.runner import Device
        from pipeline.store.leases import open_leases

        with (
            show_steps(f"timing {first.name} and {second.name} on {device}") as tell,
            open_leases(purpose=f"compare {first.name} and {second.name}") as leases,
            Device.open(asked, leases=leases, on_step=tell) as held,
        ):
            yield held

    found = measure_two(
        opened,
        profile,
        (first, second),
        timing,
        threads=threads or 0,
        shapes=(of_each[0], of_each[1]),
        inputs=fed,
    )
    if as_json:
        told = {"first": str(first), "second": str(second), "device": device}
        print_json({**told, **asdict(found), "outputs": asdict(agreement)})
    else:
        echo(found.sentence(first.name, second.name, device))
        echo(_agreement_words(agreement, generated=data is None))
        how = "in turns" if found.in_turns else "one after the other, being of two runtimes"
        reasons = f" ({'; '.join(found.reasons)})" if found.reasons else ""
        echo(f"measured {how}, protocol {protocol}; verdict: {found.verdict}{reasons}")
    if found.verdict == "invalid":
        raise DeviceError(f"the measurement is invalid: {'; '.join(found.reasons)}")


def _agreement(
    first: Path,
    second: Path,
    shapes: list[dict[str, tuple[int, ...]]],
    data: Path | None,
    values: Values | None,
) -> Beside:
    """Compare outputs on samples of `data`, else generated ones.

    Raises:
        ConfigError: a file or the data cannot be used.
        VerificationError: they differ.
    """
    from pipeline.cli.samples import read_samples
    from pipeline.formats.api import ReadOptions
    from pipeline.formats.beside import check_files, compare_files
    from pipeline.formats.generated_inputs import blame_generated, generate_pair
    from pipeline.formats.subjects import open_subject

    ours = open_subject(str(first), ReadOptions(shapes[0]))
    theirs = open_subject(str(second), ReadOptions(shapes[1]))
    if data is None:
        inputs = generate_pair(ours.ends, theirs.ends)
    else:
        inputs, _ = read_samples(data, ours.ends, values, most=_SAMPLES)
    with blame_generated(generated=data is None):
        found, _, _ = compare_files((ours.ends, theirs.ends), inputs, ours.run, theirs.run)
    numbers = [ours.numbers, theirs.numbers]
    check_files(found, numbers, (str(first), str(second)), generated=data is None)
    return found


def _agreement_words(found: Beside, *, generated: bool) -> str:
    worst = [output.sqnr_db for output in found.outputs if output.sqnr_db is not None]
    told = f", SQNR {min(worst):.1f} dB at least" if worst else ""
    return f"outputs agree on {found.samples}{' generated' if generated else ''} samples{told}"
