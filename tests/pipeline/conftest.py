"""A real PostgreSQL server in a temporary folder, for the tests that ask for it."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Debian keeps the server's programs off PATH.
_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
_FOUND = shutil.which("initdb") or (str(_DEBIAN[-1]) if _DEBIAN else None)
POSTGRES_PROGRAMS = str(Path(_FOUND).parent) if _FOUND else None


def restart_server(url: str) -> None:
    """Restart the server of the fixture `server` as after a crash: every connection is cut."""
    folder = Path(url.partition("?host=")[2])
    user = "nobody" if os.getuid() == 0 else getpass.getuser()
    command = [f"{POSTGRES_PROGRAMS}/pg_ctl", "-D", str(folder / "data"), "-m", "immediate"]
    done = subprocess.run(
        [*command, "-w", "-t", "60", "-l", str(folder / "log"), "restart"],
        user=user,
        cwd=folder,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Yield the URL of an empty database on a server of our own, reached by a Unix socket."""
    pytest.importorskip(
        "psycopg", reason="psycopg is not installed: pip install 'edgewright[postgres]'"
    )
    programs = POSTGRES_PROGRAMS
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    user = "nobody" if os.getuid() == 0 else getpass.getuser()  # the server refuses to be root
    folder = Path(tempfile.mkdtemp(prefix="ew-pg-"))  # short: a socket's path has at most 107 bytes
    if os.getuid() == 0:
        shutil.chown(folder, user)

    def run(*command: str) -> None:
        done = subprocess.run(
            command, user=user, cwd=folder, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    data, log = str(folder / "data"), str(folder / "log")
    run(f"{programs}/initdb", "-D", data, "-U", "edgewright", "-A", "trust", "-N")
    options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
    run(f"{programs}/pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "-t", "60", "start")
    try:
        yield f"postgresql://edgewright@/postgres?host={folder}"
    finally:
        run(f"{programs}/pg_ctl", "-D", data, "-w", "-t", "60", "-m", "immediate", "stop")
        shutil.rmtree(folder)
