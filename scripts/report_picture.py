"""Make a picture of a report for the README: report_picture.py REPORT.html OUT.png.

The page is drawn by headless Chromium in the light theme and cropped to its first screens.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # the page needs no network; the browser gets none
)
TIMEOUT_S = 120


def find_browser() -> str | None:
    """Return the path of a Chromium, that of $CHROMIUM first, or None."""
    names = (os.environ.get("CHROMIUM", ""), *BROWSERS)
    return next((path for name in names if name and (path := shutil.which(name))), None)


def browse(browser: str, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Load a page in a fresh profile and return the ended process with its text outputs."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        return subprocess.run(
            [
                browser,
                *QUIET,
                f"--user-data-dir={profile}",
                "--virtual-time-budget=8000",
                *options,
                page.resolve().as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )


def main(argv: list[str] | None = None) -> int:
    """Draw the picture; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("report", type=Path, help="a report, as `edgewright report` writes it")
    parser.add_argument("out", type=Path, help="the PNG to write")
    parser.add_argument("--width", type=int, default=1200, help="pixels (default %(default)s)")
    parser.add_argument("--height", type=int, default=1260, help="pixels (default %(default)s)")
    options = parser.parse_args(argv)
    if not options.report.is_file():
        print(f"no report at {options.report}; make one with: edgewright report", file=sys.stderr)
        return 2
    browser = find_browser()
    if browser is None:
        print(
            f"no Chromium found (looked for {', '.join(BROWSERS)} on PATH, and at $CHROMIUM); "
            "install it, on Debian with: apt-get install chromium",
            file=sys.stderr,
        )
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.unlink(missing_ok=True)
    done = browse(
        browser,
        options.report,
        f"--screenshot={options.out.resolve()}",
        f"--window-size={options.width},{options.height}",
        "--blink-settings=preferredColorScheme=1",
    )
    if done.returncode or not options.out.is_file():
        print(f"{browser} made no picture: {done.stderr[-500:].strip()}", file=sys.stderr)
        return 1
    print(f"{options.out}: {options.width} x {options.height} pixels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
