"""What `edgewright verify FILE --codes` does: an int8 file beside exact integer arithmetic."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError
from pipeline.cli.commands._verify_files import Given, open_file
from pipeline.cli.options import console, echo, print_json

if TYPE_CHECKING:
    from pipeline.measure.codes import CodesBeside


def verify_codes(given: Given) -> None:
    """Compare the codes of `given.second` with what its own mean; print how.

    Raises:
        VerificationError: they are farther off than rounding explains.
    """
    from pipeline.formats.api import Unsupported
    from pipeline.formats.generated_inputs import blame_generated, generate_pair
    from pipeline.formats.source import read_model
    from pipeline.measure.codes import check_codes, compare_codes

    source = given.second
    model = read_model(source, given.options)
    if isinstance(model, Unsupported):
        raise ConfigError(
            f"{model.sentence}; so its codes cannot be reckoned: hold it against the model that it "
            f"was made of (`edgewright verify MODEL {source}`)"
        )
    with open_file(source, given.options, given.device) as file:
        if given.data is None:
            inputs = generate_pair(file.ends, file.ends)
        else:
            from pipeline.cli.samples import read_samples

            inputs, _ = read_samples(given.data, file.ends, given.values, most=given.most)
        with blame_generated(generated=given.data is None):
            found = compare_codes(model, file, file, inputs)
    if given.as_json:
        print_json({"model": source, "device": given.device, **asdict(found)})
    else:
        _show(given, found)
    where = "here" if given.device is None else f"on device {given.device!r}"
    check_codes(found, source, where)


def _show(given: Given, found: CodesBeside) -> None:
    from rich.table import Table

    where = "" if given.device is None else f" on {given.device}"
    title = f"{given.second}{where} and its exact integers: {found.samples} samples"
    table = Table(title=title)
    table.add_column("output")
    for heading in ("codes", "equal", "largest difference", "median sample off by"):
        table.add_column(heading, justify="right")
    for one in found.outputs:
        table.add_row(
            one.name,
            str(one.values),
            f"{one.equal_share:.2%}",
            str(one.largest_difference),
            f"{one.typical_steps:.2f}",
        )
    console().print(table)
    if found.real_outputs:
        echo(f"made of no codes, and not compared: {', '.join(found.real_outputs)}")
