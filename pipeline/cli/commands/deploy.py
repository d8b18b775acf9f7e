"""edgewright deploy: put a model in use on a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from device_agents.model_files import RUNTIME_OF, check_suffix, input_shapes, read
from pipeline.cli.options import (
    DEVICE,
    INPUT_SHAPE,
    data_option,
    echo,
    parse_shapes,
    pixel_options,
    require_agent,
    show_steps,
    to_values,
)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@DEVICE
@click.option("--name", required=True, metavar="N", help="What the model is for, such as digits.")
@click.option("--version", required=True, metavar="V", help="Of the model, such as 1.2.")
@data_option("Compare outputs on a few of")
@pixel_options
@INPUT_SHAPE
def command(
    *,
    model: Path,
    device: str,
    name: str,
    version: str,
    data: Path | None,
    mean: str | None,
    scale: str | None,
    colours: str | None,
    shapes: tuple[str, ...],
) -> None:
    """Put the file MODEL in use on a device as NAME, VERSION; print its path there.

    First it is copied there and run, and its outputs are held against this computer's; one that
    computes something else (exit code 5) is not put in use, and what was in use stays. The switch
    is one rename; the releases before it stay for a rollback.
    """
    from device_agents.runner import Device
    from pipeline.cli.samples import read_fed
    from pipeline.deploy.release import put_in_use
    from pipeline.formats.onnx.one_file import as_one_file
    from pipeline.store.leases import open_leases
    from profiles.registry import load_device

    profile = load_device(device)
    require_agent(profile, "deploy", runtime=profile.runtime)
    file, given = read(model), parse_shapes(shapes)
    check_suffix(file)
    input_shapes(file, given)
    runtime, values = RUNTIME_OF[file.format], to_values(mean, scale, colours)
    inputs = None if data is None else read_fed(data, model, given, values).arrays
    with (
        show_steps(f"deploying to {device}") as tell,
        open_leases(purpose=f"deploy {name}") as leases,
        as_one_file(file) as whole,
        Device.open(replace(profile, runtime=runtime), leases=leases, on_step=tell) as opened,
    ):
        path, checked = put_in_use(
            opened, whole, name, version, runtime=runtime, inputs=inputs, shapes=given
        )
    echo(f"{device}: outputs {checked.words}", err=True)
    echo(path)
