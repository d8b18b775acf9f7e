"""A model of a user and the file that a command makes of it: its format, and where it is put."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError, VerificationError

if TYPE_CHECKING:
    from models.model import Model
    from models.number_format import NumberFormat
    from pipeline.formats.api import Format, ReadOptions
    from pipeline.formats.ends import Arrays
    from pipeline.formats.subjects import ModelSubject, Subject


def choose_format(source: str, name: str | None) -> Format:
    """Return the format of that name; without one that of the model file, else TFLite.

    Raises:
        ConfigError: there is no such format.
    """
    from pipeline.formats import FORMATS, create

    if name is not None and name not in FORMATS.names():
        raise ConfigError(
            f"--format {name} is no file format; have {', '.join(FORMATS.names())}; number formats "
            "such as static8 are asked for otherwise"
        )
    if name is not None:
        return create(name)
    own = [create(one) for one in FORMATS.names()]
    return next((one for one in own if one.suffix == Path(source).suffix), create("tflite"))


def refuse_unwritten(format_: Format, scheme: NumberFormat, asked_by: str) -> None:
    """Refuse what the format does not hold before anything is calibrated.

    `asked_by` is what the command line asks for it with.

    Raises:
        ConfigError: it does not hold that.
    """
    if scheme not in format_.number_formats:
        have = ", ".join(map(str, format_.number_formats))
        raise ConfigError(
            f"{format_.name} files hold {have}, not {scheme}; choose another {asked_by} or --format"
        )


def stem_of(source: str) -> str:
    """Return a name for the files of a source: its own, or that of the callable."""
    path, _, name = source.rpartition(":")
    if path and re.fullmatch(r"\w+", name):
        return name
    stem = Path(source).stem
    return re.sub(r"-(float32|static8|float16|dynamic8)$", "", stem)


def place(source: str, out: Path | None, usual: str) -> Path:
    """Return the file to write: `out`, or of the name `usual` in that folder or this one.

    Raises:
        ConfigError: it is the model itself, or of another kind than `usual`.
    """
    folder = out or Path()
    target = folder if folder.suffix and not folder.is_dir() else folder / usual
    suffix = Path(usual).suffix
    if target.suffix != suffix:
        raise ConfigError(f"--out {target} does not end in {suffix}, as the file that is written")
    if target.resolve() == Path(source).resolve():
        raise ConfigError(f"--out {target} is the model itself; choose another name")
    return target


def read_graph(source: str, options: ReadOptions, *, else_what: str) -> tuple[Model, Subject]:
    """Read a model whose graph is changed, and what gives its outputs as it came.

    Raises:
        ConfigError: it cannot be read, or no graph can say it: `else_what` ends the sentence.
    """
    from pipeline.formats.api import Unsupported
    from pipeline.formats.source import read_model
    from pipeline.formats.subjects import ModelSubject, find_runnable

    model = read_model(source, options)
    if isinstance(model, Unsupported):
        raise ConfigError(f"{model.sentence}; {else_what}")
    return model, find_runnable(source, options) or ModelSubject(source, model)


def refuse_unmeasured(format_: Format, model: Model, sha256: str) -> None:
    """Make sure that what will be written is what was measured. Raises VerificationError."""
    written = hashlib.sha256(format_.write(model)).hexdigest()
    if written != sha256:
        raise VerificationError(
            f"the file would have the hash {written[:12]} and the one that was measured "
            f"{sha256[:12]}: the {format_.name} writer gives other bytes for the same network; "
            "nothing is written"
        )


def write_compressed(
    format_: Format,
    model: Model,
    target: Path,
    real: ModelSubject,
    samples: tuple[Subject, Arrays],
) -> None:
    """Write what passes gave, held against the network that it is in real numbers.

    Args:
        format_: of the file.
        model: what to write.
        target: its path.
        real: what it must compute.
        samples: inputs, and the model whose names those go by.

    Raises:
        VerificationError: it computes something else.
    """
    from pipeline.compress.judging import CHECKED_SAMPLES
    from pipeline.compress.passes.ptq import spread_rows
    from pipeline.formats.convert import write_checked
    from pipeline.formats.pairing import move_inputs

    subject, judged = samples
    few = {
        name: values[spread_rows(len(values), CHECKED_SAMPLES)] for name, values in judged.items()
    }
    write_checked(format_, model, target, real, move_inputs(subject.ends, real.ends, few))
