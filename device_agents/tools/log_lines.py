"""Takes the wrapping off log lines, layer by layer: logcat, CI, containers, journal, log levels.

People keep a tool's output as it came to them: through `adb logcat` in one of its formats, a CI's
log, `docker compose`, `kubectl`, the journal, PowerShell. Each of these puts something before every
line, and they are nested in any order. So one layer after the other is taken off from the left
until none is recognised. A wrapping that is not known stays, and its lines are then no tool's.

Of what is taken off, the number or name of the process is kept: lines of two are never mixed.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"

# No tool prints longer ones that say anything; in a longer line the beginning is looked at.
_LONGEST = 4000
_MOST_LAYERS = 12

# Also what a terminal is told in strings: titles, links, Buildkite's times.
_COLOUR = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")

_DATE = r"\d{4}-\d\d-\d\d"
_CLOCK = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_ISO = rf"{_DATE}[T ]{_CLOCK}(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?"
_SYSLOG = rf"[A-Z][a-z]{{2}} [ \d]\d {_CLOCK}"
# `logcat -v year,zone,usec,epoch,monotonic` in any combination.
_LOGCAT = rf"(?:(?:\d{{4}}-)?\d\d-\d\d {_CLOCK}(?: [+-]\d{{4}})?| *\d+\.\d{{3,9}})"
_TAG = r"[^:\n\uFE55]{0,100}[:\uFE55]"
_LEVEL = r"[VDIWEFAS]"
_PYTHON = "(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)"
_PID = r"\( *(?:\w+: *)?(?P<who>\d+)\)"

# Tried in this order, the special ones first; `who` is the process, as far as a layer tells it.
_LAYERS = tuple(
    re.compile(form)
    for form in (
        # Android Studio, old and new.
        rf"(?:{_LOGCAT} +)?(?P<who>\d+)-\d+/\S{{1,200}} {_LEVEL}/{_TAG} ?",
        rf"{_LOGCAT} +(?P<who>\d+)-\d+ +\S.{{0,150}}? {_LEVEL}(?:  ?|$)",
        # logcat -v threadtime (with uid), time, brief, thread, process, tag.
        rf"{_LOGCAT} +(?:[\w:]+ +)?(?P<who>\d+) +\d+ {_LEVEL} {_TAG} ?",
        rf"(?:{_LOGCAT} )?{_LEVEL}/[^(\n]{{0,100}}{_PID}: ?",
        rf"{_LEVEL}\( *(?P<who>\d+): *\d+\) ",
        rf"{_LEVEL}{_PID} ",
        rf"{_LEVEL}/[^:(\[\n]{{1,100}}: ?",
        # glog and absl, TensorFlow, Python's logging; then levels and source tags alone.
        r"[IWEF]\d{4} [\d:.]+ +\d+ [\w./-]+:\d+\] ?",
        rf"{_DATE} {_CLOCK}: [IWEF] [\w./-]+:\d+\] ?",
        rf"{_DATE} {_CLOCK} [A-Z]+ [\w.]+: ",
        r"(?:INFO|WARN|WARNING|ERROR|FATAL|VERBOSE): ",
        rf"(?:{_DATE} {_CLOCK} )?- [\w.]{{1,100}} - {_PYTHON} - ",
        rf"{_PYTHON}:[\w.]{{1,100}}:",
        r"\[[\w./-]+:\d+\] ?",
        # `gh run view --log`; docker compose; kubectl --prefix; a container runtime's own file;
        # GitLab's time and stream.
        rf"(?P<who>[^\t\n]{{1,200}}\t[^\t\n]{{1,200}})\t(?=\uFEFF?{_ISO})",
        r"(?P<who>[\w.-]{1,100}) +\|(?: |$)",
        r"\[(?P<who>pod/[\w./-]{1,250})\] ?",
        rf"{_ISO} (?:stdout|stderr) F(?: |$)",
        rf"{_ISO} \d\d[OE](?: |$)",
        # The journal and syslog behind their time: host, unit and process.
        r"(?P<who>[\w.-]{1,64} [\w@.:/-]{1,100}\[\d+\]): ?",
        # Times alone: of GitHub's runner, docker and kubectl, Jenkins, `ts`, the journal.
        rf"\[{_ISO}\](?: |$)",
        rf"(?:[A-Z][a-z]{{2}} )?{_ISO}(?: [A-Z]{{2,5}})?(?:[ \t]|$)",
        rf"{_SYSLOG}(?: |$)",
        r"\[ *\d+\.\d{3,9}\](?: |$)",
        r"\d{9,11}\.\d{3,9} ",
        rf"{_CLOCK}(?: |$)",
        # TeamCity and fastlane.
        rf"\[{_CLOCK}\](?:[ :]*\t? *\[[^\]\n]{{1,100}}\]|: \u25b8|:)?(?:[ \t]|$)",
        # Quoted in a mail or an issue, or with the numbers of its lines.
        r">(?: |$)",
        r"\d{1,7}\t",
    )
)
# Behind the text: `logcat -v process` puts the tag there.
_PROCESS = re.compile(rf"{_LEVEL}{_PID} ")
_TAG_BEHIND = re.compile(r" {1,2}\([^()]{0,100}\)$")
# A line of its own before the text: `logcat -v long`.
_LONG = re.compile(rf"\[ {_LOGCAT} +(?:\w+: *)?(?P<who>\d+): *\d+ {_LEVEL}/[^\]\n]{{0,100}}\]$")


def decode(data: bytes) -> str:
    """Return a log file's text: UTF-8, or UTF-16 as PowerShell writes it, with a mark or without.

    What is neither is kept as far as it can be read.
    """
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    # In UTF-16 every other byte of a tool's English text is zero.
    head = data[:4096]
    for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, others = head[first::2].count(0), head[1 - first :: 2].count(0)
        if zeros > len(head) // 4 and others < zeros // 8 + 1:
            return data.decode(name, "replace")
    return data.decode("utf-8", "replace")


def streams(text: str) -> Iterator[list[str]]:
    """Yield the bare lines of each process; those that tell no process together."""
    by_process: dict[str, list[str]] = {}
    under = ""
    for line in _COLOUR.sub("", text).splitlines():
        process, rest = _unwrapped(line)
        header = _LONG.match(rest)
        if header:
            under = header["who"]
            continue
        by_process.setdefault(process or under, []).append(rest)
    yield from by_process.values()


def _unwrapped(line: str) -> tuple[str, str]:
    """Return the process that the layers tell, and the bare text."""
    line = line[:_LONGEST].strip("\r\n \ufeff\0")
    if line.startswith('{"log":'):
        line = _of_docker(line)
    told = []
    for _ in range(_MOST_LAYERS):
        found = next((found for layer in _LAYERS if (found := layer.match(line))), None)
        if found is None:
            break
        if found.groupdict().get("who"):
            told.append(found["who"])
        if _PROCESS.fullmatch(found[0]):
            line = _TAG_BEHIND.sub("", line)
        line = line[found.end() :].strip(" \ufeff\t")
    return " ".join(told), line


def _of_docker(line: str) -> str:
    """Return the text of a line of docker's own file; of a part of a line nothing is known."""
    try:
        said = json.loads(line)["log"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return line
    whole = isinstance(said, str) and said.endswith("\n") and "\n" not in said[:-1]
    return _COLOUR.sub("", said).strip("\r\n ") if whole else line
