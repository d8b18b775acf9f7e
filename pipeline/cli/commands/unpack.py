"""edgewright unpack: the file in a packed one, bit for bit."""

from __future__ import annotations

from pathlib import Path

import click

from device_agents.agent.packed import SUFFIX
from device_agents.errors import ConfigError
from pipeline.cli.options import JSON, echo, print_json, show_waiting


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help=f"The unpacked file; default FILE without {SUFFIX}, which must not be there yet.",
)
@JSON
def command(*, file: Path, out: Path | None, as_json: bool) -> None:
    """Unpack FILE, which `edgewright pack` wrote; its hash is compared before it stands there."""
    from pipeline.coding.files import unpack_file
    from pipeline.formats.placing import place_file

    target = out or _default(file)
    with show_waiting(f"unpacking {file.name}"), place_file(target) as temporary:
        with temporary.open("w+b") as opened:
            header = unpack_file(file, opened)
        if out is None and target.exists():
            # Looked for again: it may have come meanwhile.
            raise _taken(target)
    if as_json:
        print_json({"file": str(target), "bytes": header.size, "sha256": header.sha256})
        return
    echo(f"{target}: {header.size} bytes, SHA-256 {header.sha256} as packed")


def _default(file: Path) -> Path:
    if file.suffix != SUFFIX:
        raise ConfigError(f"{file} does not end in {SUFFIX}; say with --out how to call what is in")
    target = file.with_suffix("")
    if target.exists():
        raise _taken(target)
    return target


def _taken(target: Path) -> ConfigError:
    return ConfigError(f"{target} is there already; say with --out where the unpacked file goes")
