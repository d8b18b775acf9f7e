"""Takes the wrapping off log lines: logcat and log levels, source tags, shell prompts, CR LF."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"

# `logcat -v threadtime` and `-v time`; process numbers tell the runs of two processes apart.
_LOGCAT = (
    re.compile(r"\d\d-\d\d \d\d:\d\d:\d\d\.\d+ +(?P<pid>\d+) +\d+ [VDIWEF] [^:]*: ?"),
    re.compile(r"\d\d-\d\d \d\d:\d\d:\d\d\.\d+ [VDIWEF]/[^(]*\( *(?P<pid>\d+)\): ?"),
)
_LEVEL = re.compile(r"(?:INFO|WARN|WARNING|ERROR|FATAL|VERBOSE): ")
_GLOG = re.compile(r"[IWEF]\d{4} [\d:.]+ +\d+ [\w./-]+:\d+\] ?")
_PYTHON = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:,\d+)? [A-Z]+ [\w.]+: ")
_TAG = re.compile(r"\[[\w./-]+:\d+\] ?")


def bare(line: str) -> str:
    """Return the line without log level and source tag, white space at its ends kept off."""
    line = line.strip("\r\n ")
    for prefix in (_GLOG, _PYTHON, _LEVEL, _TAG):
        found = prefix.match(line)
        if found:
            line = line[found.end() :]
    return line.strip(" \r\n")


def streams(text: str) -> Iterator[list[str]]:
    """Yield the bare lines of each process: those of a logcat apart, everything else together."""
    by_process: dict[str, list[str]] = {}
    for line in text.splitlines():
        process, rest = _unwrapped(line)
        by_process.setdefault(process, []).append(bare(rest))
    yield from by_process.values()


def _unwrapped(line: str) -> tuple[str, str]:
    for form in _LOGCAT:
        found = form.match(line)
        if found:
            return found["pid"], line[found.end() :]
    return "", line
