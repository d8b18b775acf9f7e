"""What each of the report's sections shows, for the template of the same name."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from device_agents.bounded import TOML_BYTES
from device_agents.plural import number_of
from pipeline.report import tables
from pipeline.report.headline import speed_up_interval, target_sentence
from pipeline.report.marks import Marks, artifact, count_cost, op_shares, over_limit
from pipeline.report.markup import DASH, TIMES, esc, finite, flatten, percent, unit
from pipeline.report.toml_text import to_toml

if TYPE_CHECKING:
    from pipeline.store.result import RunResult

Values = dict[str, Any]

_BADGES = {
    "met": ("met", "\u2713 target met"),
    "missed": ("missed", "\u2717 target not met"),
    "not told apart": ("suspect", "? accuracy not told apart"),
    "no comparison": ("suspect", "\u2013 no comparison"),
    "learnt nothing": ("missed", "\u2717 nothing learnt"),
}


def header(result: RunResult) -> Values:
    """Return the verdict: target met or not and how far, where it was measured."""
    device, found = result.device, result.comparison
    runtime = " ".join(str(device.get(k) or "") for k in ("runtime", "runtime_version")).strip()
    threads = device.get("threads")
    file = artifact(result, "winner")
    where = [
        str(device.get("name") or DASH),
        str(device.get("model") or ""),
        runtime,
        "" if threads is None else f"{threads} thread{'s' if threads != 1 else ''}",
        "" if file is None else f"{file.format} {file.scheme}",
    ]
    kind, words = _BADGES[found.outcome]
    judged = found.outcome in ("met", "missed", "not told apart")
    return {
        "title": result.recipe.get("name") or result.run_id,
        "found": found,
        "kind": kind,
        "words": words,
        "explained": target_sentence(found) if judged else found.sentence,
        "where": [word for word in where if word],
    }


def tiles(result: RunResult) -> Values:
    """Return the key figures."""
    return {
        "found": result.comparison,
        "speed_up": speed_up_interval(result.comparison),
        "winner": artifact(result, "winner"),
        "baseline": artifact(result, "baseline"),
        "cost": count_cost(result.winner_spec),
        "other_cost": count_cost(result.baseline_spec),
        "measured": sum(
            row.latency_ms is not None and row.latency_source == "measured"
            for row in result.candidates
        ),
    }


_ACCURACIES = {
    "proxy": "were trained briefly, by a proxy whose accuracy only ranks them",
    "supernet": "have the accuracy of their part of the supernet",
    "predictor": "have the accuracy that a predictor, trained on parts of the supernet, gives them",
}
_LATENCIES = {
    "measured": "Their latencies were measured",
    "table": "Their latencies are sums of a table of measured ops",
    "counted": "Their latencies are counted operations, scaled",
    "few-shot": "Their latencies are predicted from a few measured networks",
}


def accuracy_latency(result: RunResult) -> Values:
    """Return how candidates were judged, and the networks trained to the end."""
    marks = Marks(result)
    section = result.recipe.get("search") or {}
    return {
        "accuracy": _ACCURACIES.get(section.get("accuracy", "proxy"), _ACCURACIES["proxy"]),
        "latency": _LATENCIES.get(section.get("latency", "measured"), _LATENCIES["measured"]),
        "hidden": sum(Marks.point(c) is None for c in result.candidates),
        "trained": tables.trained_networks(marks),
        "by_device": tables.by_device(marks),
        "front": tables.front(marks),
        "front_size": len(marks.front),
    }


def progress(result: RunResult) -> Values:
    """Return counts of what happened in the search."""
    rows = result.candidates
    verdicts = Counter(r.verdict for r in rows if r.verdict is not None)
    counts = [
        number_of(len(rows), "candidate"),
        f"{sum(r.reused for r in rows)} asked for again, which costs nothing",
        f"{sum(r.failure is not None for r in rows)} failed",
        *(f"{n} {verdict}" for verdict, n in sorted(verdicts.items())),
    ]
    if over := over_limit(result):
        counts.append(f"{len(over)} over the limit, marked at the bottom of the figure")
    reasons = Counter(r.failure for r in rows if r.failure is not None)
    shown = [(f"{n}{TIMES}", reason) for reason, n in reasons.most_common(20)]
    return {"counts": counts, "reasons": shown}


def artifacts(result: RunResult) -> Values:
    """Return the exported files, and those that failed."""
    return {
        "costs": tables.artifact_costs(result),
        "checks": tables.artifact_checks(result),
        "failed": tables.failed_files(result),
    }


def op_costs(result: RunResult) -> Values:
    """Return where the winner's time goes, op by op, and what they add up to."""
    return {
        "bottleneck": _bottleneck(result),
        "sum_of_ops": _sum_of_ops(result),
        "table": tables.ops(result),
    }


def conditions(result: RunResult) -> Values:
    """Return all that is needed to judge and repeat the run."""
    device = str(result.device.get("name") or "local")
    known: dict[str, Any] = dict(result.device)
    protocol = known.pop("protocol", None)
    shown = protocol if isinstance(protocol, dict) else {"protocol": protocol}
    seeds = [p for p in flatten(result.recipe) if p[0].rpartition(".")[2] == "seed"]
    return {
        "device": flatten(known),
        "protocol": flatten(shown),
        "versions": [*sorted(result.versions.items()), *(seeds or [("seed", DASH)])],
        "networks": [("Winner", result.winner_spec), (result.baseline_name, result.baseline_spec)],
        "command": f"edgewright run recipe.toml --device {shlex.quote(device)}",
        "recipe": esc(to_toml(result.recipe), limit=TOML_BYTES),
    }


def device_time(result: RunResult) -> Values:
    """Return the share of the device's busy time outside timed inference and warm-up, if known."""
    busy_s, timed_s = finite(result.device_busy_s), finite(result.device_timed_s)
    other = None
    if busy_s is not None and timed_s is not None and busy_s > 0:
        other = min(1.0, max(0.0, 1 - timed_s / busy_s))
    return {"busy_s": busy_s, "timed_s": timed_s, "other": other}


def deployed(result: RunResult) -> Values:
    """Return what was put on the device, and where."""
    return {"deployed": flatten(result.deployed)}


IN_READING_ORDER = (
    header,
    tiles,
    accuracy_latency,
    progress,
    artifacts,
    op_costs,
    conditions,
    device_time,
    deployed,
)


def _bottleneck(result: RunResult) -> str:
    timed = [s for s in op_shares(result.ops) if s.time_share is not None]
    if not timed:
        return "No op was measured alone in this run."
    slowest = max(timed, key=lambda s: s.time_share or 0.0)
    return (
        f"The slowest op is {slowest.op.name} ({slowest.kind}): "
        f"{percent(slowest.time_share, 1)} of the time of all ops with "
        f"{percent(slowest.macs_share, 1)} of the MACs."
    )


def _sum_of_ops(result: RunResult) -> str:
    times = [t for op in result.ops if (t := finite(op.latency_ms)) is not None]
    whole = finite(result.comparison.winner_ms)
    if not times or whole is None or whole <= 0:
        return ""
    return (
        "Each op was measured alone in the same number format, less what an almost empty model "
        f"takes. The "
        f"{len(times)} of {len(result.ops)} ops measured add up to {unit(sum(times), 'ms')}; the "
        f"whole network takes {unit(whole, 'ms')} end to end, so the sum is "
        f"{percent(sum(times) / whole, 0)} of it. The two differ because an op alone "
        "finds its data in other caches."
    )
