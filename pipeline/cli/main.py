"""The command `edgewright`: one file per subcommand in `commands/`, found by listing the folder.

Importing this module, and `--help`, import nothing heavy: a command imports what it needs when it
runs. What goes wrong ends in one sentence on stderr and an exit code; a traceback goes to a file.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

import click

from device_agents.errors import EdgewrightError
from device_agents.plain_text import hide_passwords, plain
from pipeline.cli import commands
from pipeline.cli.group import Group

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell reports for SIGPIPE

# Of a path that the user chose; any other error of the system is unexpected.
_USERS_PATHS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR),
    *(errno.EISDIR, errno.EFBIG, errno.EIO),
)

_EPILOG = """Exit codes: 0 ok, 2 usage or configuration, 3 device or link, 4 target cannot be met,
5 verification failed, 6 regression, 7 store, 130 interrupted."""


_CONTEXT = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}


class _ReaderGone(Exception):
    """A broken pipe, under a name that click does not turn into exit code 1."""


class CommandFolder(Group):
    """A group whose subcommands are the files of `pipeline/cli/commands/`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands; imports none of them."""
        del ctx
        names = (module.name for module in iter_modules(commands.__path__))
        return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's file and return its `command`."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = import_module(f"{commands.__name__}.{cmd_name.replace('-', '_')}")
        found: click.Command = module.command
        return found

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGone from error


@click.group(cls=CommandFolder, epilog=_EPILOG, context_settings=_CONTEXT)
@click.version_option(package_name="edgewright", message="edgewright %(version)s")
def cli() -> None:
    """Fit a neural network to a device: search, compress, export, deploy, measured there."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never raises, never shows a traceback."""
    try:
        code = cli.main(args, prog_name="edgewright", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - the one place where everything ends
        return _ended(error)
    return code if isinstance(code, int) else 0


def _ended(error: BaseException) -> int:
    """Say in one sentence why the command ended; return the exit code."""
    if isinstance(error, (BrokenPipeError, _ReaderGone)):
        # What is still buffered has no reader either, and Python flushes once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(plain(error.format_message()), err=True)
        return 2
    sentence, code = _explained(error)
    click.echo(f"edgewright: {' '.join(plain(sentence).split())}", err=True)
    return code


def _explained(error: BaseException) -> tuple[str, int]:
    """Return the sentence and the exit code of an error."""
    if isinstance(error, EdgewrightError):
        return str(error), error.exit_code
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted", INTERRUPTED
    if isinstance(error, click.UsageError):
        return _misused(error), 2
    if isinstance(error, click.ClickException):
        return error.format_message(), 2
    if isinstance(error, OSError) and (sentence := _of_system(error)):
        return sentence, 2
    return _unexpected(error), 1


def _misused(error: click.UsageError) -> str:
    """Return the sentence of a command line that is not understood."""
    words, command = error.format_message().rstrip("."), "edgewright"
    if error.ctx is not None:
        command = error.ctx.command_path
        if words.startswith("Got unexpected extra argument"):
            taken = [p for p in error.ctx.command.params if isinstance(p, click.Argument)]
            names = [argument.human_readable_name for argument in taken]
            only = f"one {names[0]}: run it once for each" if len(names) == 1 else " ".join(names)
            words = f"{words}; `{command}` takes {only or 'no argument'}"
    return f"{words}; see `{command} --help`"


def _of_system(error: OSError) -> str:
    """Return the sentence of what the user's disk or path is at fault for; empty: nothing is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" writing {error.filename}" if error.filename else ""
        return f"the disk is full{where}; free some space and run the command again"
    if error.filename and error.errno in _USERS_PATHS:
        return f"cannot use {error.filename}: {error.strerror}; choose another path"
    return ""


def _unexpected(error: BaseException) -> str:
    """Put the traceback into a file and return the sentence that names it."""
    what = hide_passwords(f"unexpected {type(error).__name__}: {str(error)[:200]}")
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            prefix="edgewright-",
            suffix=".log",
            delete=False,
            encoding="utf-8",
            errors="backslashreplace",
        ) as log:
            told = [f"edgewright {' '.join(sys.argv[1:])}\n", *traceback.format_exception(error)]
            log.write(hide_passwords("".join(told)))
    except OSError:
        return f"{what}; this is a bug, please report it"
    return f"{what}; this is a bug, please report it with {log.name}"


if __name__ == "__main__":
    sys.exit(main())
