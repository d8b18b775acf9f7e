"""Texts by which benchmark_model says that it failed, with what helps.

A failed run prints a plausible average all the same: when invokes fail, the tool goes on timing
the failures, prints its statistics, and only then says `Benchmarking failed.`
"""

from __future__ import annotations

import re

_UNCONSUMED = "Unconsumed cmdline flags"

# The first that matches gives the words; every one makes the run a failed one.
_TEXTS = (
    (
        re.compile(r"Regular TensorFlow ops are not supported by this interpreter"),
        (
            "the model needs TensorFlow ops that this binary lacks; take one that links the Flex "
            "delegate (benchmark_model_plus_flex)"
        ),
    ),
    (
        re.compile(r"Unconsumed cmdline flags: *(?P<what>.*)"),
        "the binary does not know {what}; take a newer one",
    ),
    (
        re.compile(r"Disallowed CPU fallback detected"),
        "a delegate had to run the whole model and does not",
    ),
    (
        re.compile(r"Node number (?P<what>\d+ \([^)]*\)) failed to prepare"),
        "the model's node {what} failed to prepare",
    ),
    (
        re.compile(r"Node number (?P<what>\d+ \([^)]*\)) failed to invoke"),
        "the model's node {what} failed to run",
    ),
    (re.compile(r"failed to (?P<what>prepare|invoke)", re.IGNORECASE), "an op failed to {what}"),
    (re.compile(r"Failed to apply (?P<what>\w+) delegate\."), "the {what} delegate refuses it"),
    (re.compile(r"Failed to allocate tensors"), "the tensors could not be allocated"),
    (
        re.compile(r"(?:Didn't find|Failed to find|Encountered unresolved custom) op.*", re.DOTALL),
        "the model has an op that this binary lacks",
    ),
    (
        re.compile(r"model identifier '?(?P<what>[^']*)'?, should be '?TFL3"),
        "the file is no TFLite model",
    ),
    (
        re.compile(r"Failed to load model|Failed to mmap model|Could not open '"),
        "the model could not be loaded",
    ),
    (
        re.compile(r"Failed to (?:construct|initialize|build) (?:the )?[Ii]nterpreter"),
        "no interpreter",
    ),
    (re.compile(r"Failed to parse flag '?(?P<what>[^']*)'?"), "the flag {what} has a bad value"),
    (
        re.compile(r"CANNOT LINK EXECUTABLE.*|error while loading shared libraries: (?P<what>.*)"),
        "the binary lacks a library on this device",
    ),
    (
        re.compile(
            r"(?:.*: *)?(?:\d+ +)?"
            r"(?P<what>Killed|Segmentation fault|Aborted|Illegal instruction|Bus error)(?: .*)?"
        ),
        "the process was ended: {what}",
    ),
    (re.compile(r"Benchmarking failed"), "the tool says that it failed"),
)


def failure_of(line: str) -> tuple[int, str] | None:
    """Return weight (smaller says more) and words of a line that tells a failure, else None."""
    for weight, (form, words) in enumerate(_TEXTS):
        found = form.match(line) if words.startswith("the process") else form.search(line)
        if found:
            what = found.groupdict().get("what") or ""
            return weight, words.format(what=what.strip())
    return None


def unknown_flags(text: str) -> list[str]:
    """Return the flags that the binary says it does not know, without their values."""
    flags: list[str] = []
    for line in text.splitlines():
        _, mark, rest = line.partition(_UNCONSUMED + ":")
        if mark:
            # A value may hold blanks: its later words are no flags.
            words = [word for word in rest.split() if word.startswith("--")]
            flags += [word.partition("=")[0] for word in words]
    return flags
