"""edgewright deploy: put a model in use on a device."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from device_agents.delivery import Delivery


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@DEVICE
@click.option("--name", required=True, metavar="N", help="What the model is for, such as digits.")
@click.option("--version", required=True, metavar="V", help="Of the model, such as 1.2.")
@data_option("Compare outputs on a few of")
@pixel_options
@INPUT_SHAPE
@click.option(
    "--pack/--no-pack",
    default=None,
    help="Send it packed, for a slow link; or the file inside a packed MODEL as it is. Default: as "
    "MODEL is.",
)
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
    pack: bool | None,
) -> None:
    """Put the file MODEL in use on a device as NAME, VERSION; print its path there.

    MODEL may be packed (edgewright pack): it is sent so, and unpacked there.

    First it is copied there and run, and its outputs are held against this computer's; one that
    computes something else (exit code 5) is not put in use, and what was in use stays. The switch
    is one rename; the releases before it stay for a rollback.
    """
    from device_agents.delivery import Parcel
    from device_agents.leased import find_model
    from device_agents.runner import Device
    from pipeline.cli.samples import read_fed
    from pipeline.deploy.codes import tell_codes
    from pipeline.deploy.packed import as_model, packed_copy
    from pipeline.deploy.release import put_in_use
    from pipeline.formats.onnx.one_file import as_one_file
    from pipeline.store.leases import open_leases
    from profiles.registry import load_device

    profile = load_device(device)
    require_agent(profile, "deploy", runtime=profile.runtime)
    given = parse_shapes(shapes)
    delivered: list[Delivery] = []
    with ExitStack() as stack:
        inside, packed = stack.enter_context(as_model(find_model(model)))
        file = read(inside)
        check_suffix(file)
        input_shapes(file, given)
        values = to_values(mean, scale, colours)
        fed = None if data is None else read_fed(data, inside, given, values)
        whole = stack.enter_context(as_one_file(file))
        if pack is False:
            packed = None
        elif pack and packed is None:
            with show_steps(f"packing {model.name}") as tell:
                packed, saving = stack.enter_context(packed_copy(whole, tell))
            if packed is None:
                echo(f"{model} is sent as it is: packed it is only {saving:.1%} smaller", err=True)
        runtime = RUNTIME_OF[file.format]
        tell = stack.enter_context(show_steps(f"deploying to {device}"))
        leases = stack.enter_context(open_leases(purpose=f"deploy {name}"))
        opened = stack.enter_context(
            Device.open(replace(profile, runtime=runtime), leases=leases, on_step=tell)
        )
        path, checked = put_in_use(
            opened,
            Parcel(whole, packed, delivered.append),
            name,
            version,
            runtime=runtime,
            inputs=None if fed is None else fed.arrays,
            shapes=given,
        )
        codes = tell_codes(
            opened,
            whole,
            runtime=runtime,
            shapes=given,
            inputs=None if fed is None else fed.inputs,
        )
        if packed is not None and not opened.unpacks:
            echo(f"{device} has no numpy to unpack with: the file was sent as it is", err=True)
    echo(f"{device} {delivered[0].words}", err=True)
    if codes:
        echo(f"{device}: beside exact integers {codes}", err=True)
    echo(f"{device}: outputs {checked.words}", err=True)
    echo(path)
