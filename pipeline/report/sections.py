"""The report's parts as HTML, in the order in which they are read."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from device_agents.bounded import TOML_BYTES
from device_agents.plural import number_of
from pipeline.report import tables
from pipeline.report.headline import speed_sentence, speed_up_interval, target_sentence
from pipeline.report.marks import Marks, artifact, counted, op_shares, over_limit
from pipeline.report.markup import (
    DASH,
    TIMES,
    Html,
    count,
    definitions,
    details,
    duration,
    esc,
    finite,
    flatten,
    percent,
    pill,
    size,
    unit,
)
from pipeline.report.toml_text import to_toml

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from pipeline.store.result import Comparison, RunResult

_DOT = " \N{MIDDLE DOT} "


def header(result: RunResult) -> Html:
    """Return the verdict: headline, target met or not and how far, where it was measured."""
    device, comparison = result.device, result.comparison
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
    title = result.recipe.get("name") or result.run_id
    cautions = "".join(f'<p class="caution">{esc(text)}</p>' for text in comparison.cautions)
    return Html(
        f'<p class="eyebrow">{esc(title)}{_DOT}run {esc(result.run_id)}{_DOT}'
        f"{esc(result.started_at)}</p>"
        f"<h1>{esc(speed_sentence(result))}</h1>"
        f'<div class="target">{_badges(comparison)}</div>'
        f"<p>{esc(_explained(comparison))}</p>{cautions}"
        f'<p class="soft">Measured on {esc(_DOT.join(w for w in where if w))}</p>'
    )


_BADGES = {
    "met": ("met", "\u2713 target met"),
    "missed": ("missed", "\u2717 target not met"),
    "not told apart": ("suspect", "? accuracy not told apart"),
    "no comparison": ("suspect", "\u2013 no comparison"),
    "learnt nothing": ("missed", "\u2717 nothing learnt"),
}


def _badges(comparison: Comparison) -> Html:
    """Return the outcome, and beside it the measurement's verdict unless it is valid."""
    kind, words = _BADGES[comparison.outcome]
    badge = f'<span class="pill {kind}">{esc(words)}</span>'
    if comparison.verdict in (None, "valid"):
        return Html(badge)
    why = (
        f"{'; '.join(comparison.reasons)}. Measured in turns, the ratio bears this better than the "
        "milliseconds do; run it again with --fresh on a quiet device for a valid figure."
    )
    return Html(f"{badge}{pill(comparison.verdict)}<small>{esc(why)}</small>")


def _explained(comparison: Comparison) -> str:
    """Return what the headline does not say: the target and the distance to it, or why not."""
    if comparison.outcome in ("met", "missed", "not told apart"):
        return target_sentence(comparison)
    return comparison.sentence


def tiles(result: RunResult) -> Html:
    """Return the key figures."""
    c = result.comparison
    winner, baseline = artifact(result, "winner"), artifact(result, "baseline")
    row, reference = counted(result.winner_spec), counted(result.baseline_spec)
    measured = sum(
        r.latency_ms is not None and r.latency_source == "measured" for r in result.candidates
    )
    values = (
        (
            "Latency on the device",
            unit(c.winner_ms, "ms"),
            f" against {unit(c.baseline_ms, 'ms')}",
            f"speed-up in turns, 95 % interval {speed_up_interval(c)}",
        ),
        (
            "Size of the file",
            size(None if winner is None else winner.bytes),
            f" against {size(None if baseline is None else baseline.bytes)}",
            "both in the format chosen",
        ),
        (
            "MACs",
            count(None if row is None else row.macs),
            f" against {count(None if reference is None else reference.macs)}",
            (
                f"{count(None if row is None else row.params)} parameters against "
                f"{count(None if reference is None else reference.params)}"
            ),
        ),
        (
            "Candidates measured",
            f"{measured:,}",
            f" of {len(result.candidates):,}",
            f"whole run {duration(result.duration_s)}",
        ),
    )
    items = "".join(
        f'<div class="tile"><dt>{esc(name)}</dt><dd class="value">{esc(value)}'
        f"<span>{esc(other)}</span></dd><dd><small>{esc(note)}</small></dd></div>"
        for name, value, other, note in values
    )
    return Html(f'<dl class="tiles">{items}</dl>')


def scatter(result: RunResult, drawn: AbstractSet[str]) -> Html:
    """Return accuracy against latency, with what the two kinds of accuracy mean."""
    marks = Marks(result)
    hidden = sum(Marks.point(c) is None for c in result.candidates)
    note = _how_candidates_were_judged(result)
    if hidden:
        note += f"{hidden} of {len(result.candidates)} candidates lack a figure and are not drawn. "
    note += "Point at a mark, or tap it, for its network and interval."
    return _section(
        "Accuracy against latency",
        plot("accuracy-latency", "Accuracy over latency of all candidates", drawn),
        Html(f"<figcaption>{esc(note)}</figcaption>"),
        tables.trained_networks(marks),
        tables.by_device(marks),
        details(
            f"Networks on the Pareto front ({len(marks.front)})", tables.front(marks), printed=False
        ),
    )


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


def _how_candidates_were_judged(result: RunResult) -> str:
    section = result.recipe.get("search") or {}
    accuracy = _ACCURACIES.get(section.get("accuracy", "proxy"), _ACCURACIES["proxy"])
    latency = _LATENCIES.get(section.get("latency", "measured"), _LATENCIES["measured"])
    return (
        f"Candidates of the search {accuracy}. {latency}. Finalists, winner and baselines have "
        "their final weights and were measured after the search; a dashed line joins a finalist's "
        "two points. "
    )


def search_progress(result: RunResult, drawn: AbstractSet[str]) -> Html:
    """Return the search's progress over time and candidates, with counts of what happened."""
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
    failures = definitions((f"{n}{TIMES}", reason) for reason, n in reasons.most_common(20))
    return _section(
        "The search's progress",
        Html(f'<p class="soft">{esc("; ".join(counts))}.</p>'),
        plot("progress", "Score and best so far over candidates", drawn),
        details("Why candidates failed", failures) if reasons else Html(),
    )


def artifacts(result: RunResult) -> Html:
    """Return the exported files with the definitions of the rates."""
    notes = "".join(
        f"<li><b>{esc(name)}</b>: {esc(text)}</li>" for name, text in tables.DEFINITIONS
    )
    return _section(
        "Artifacts",
        Html("<h3>Size and speed</h3>"),
        tables.artifact_costs(result),
        Html("<h3>Accuracy and faithfulness to the trained network</h3>"),
        tables.artifact_checks(result),
        tables.failed_files(result),
        Html(f'<ul class="notes">{notes}</ul>'),
    )


def op_costs(result: RunResult, drawn: AbstractSet[str]) -> Html:
    """Return where the winner's time goes: per block drawn, per op in a table, sum stated."""
    return _section(
        "Where the winner's time goes",
        Html(f"<p>{esc(_bottleneck(result))}</p>"),
        Html(
            '<div class="pair">'
            + plot("ops-ms", "Measured milliseconds per block, by kind of op", drawn)
            + plot("ops-macs", "Share of MACs per block, by kind of op", drawn)
            + "</div>"
        ),
        Html(f'<p class="soft">{esc(_sum_of_ops(result))}</p>'),
        details(
            f"All {len(result.ops)} ops, the three slowest in bold",
            tables.ops(result),
            is_open=True,
        ),
    )


def conditions(result: RunResult) -> Html:
    """Return all that is needed to judge and repeat the run."""
    device = str(result.device.get("name") or "local")
    command = f"edgewright run recipe.toml --device {shlex.quote(device)}"
    known: dict[str, Any] = dict(result.device)
    protocol = known.pop("protocol", None)
    shown = protocol if isinstance(protocol, dict) else {"protocol": protocol}
    networks = [("Winner", result.winner_spec), (result.baseline_name, result.baseline_spec)]
    seeds = [p for p in flatten(result.recipe) if p[0].rpartition(".")[2] == "seed"]
    return _section(
        "Conditions",
        Html("<h3>Device and runtime</h3>"),
        definitions(flatten(known)),
        Html("<h3>Measurement protocol</h3>"),
        definitions(flatten(shown)),
        Html("<h3>Versions and seed</h3>"),
        definitions([*sorted(result.versions.items()), *(seeds or [("seed", DASH)])]),
        Html("<h3>Networks</h3>"),
        *(Html(f"<p>{esc(n)}: <code>{esc(spec)}</code></p>") for n, spec in networks if spec),
        Html("<h3>To run it again</h3><p>Save the recipe below as recipe.toml, then</p>"),
        Html(f"<pre>{esc(command)}</pre>"),
        details("Recipe", Html(f"<pre>{esc(to_toml(result.recipe), limit=TOML_BYTES)}</pre>")),
    )


def device_time(result: RunResult) -> Html:
    """Return the share of the device's busy time outside timed inference and warm-up."""
    busy, timed = finite(result.device_busy_s), finite(result.device_timed_s)
    if busy is None or timed is None or busy <= 0:
        return _section("Device time", Html('<p class="absent">The run timed no device.</p>'))
    other = min(1.0, max(0.0, 1 - timed / busy))
    split = (
        f'<div class="split" role="img" aria-label="{esc(percent(other, 1))} overhead">'
        f'<i class="timed" style="width:{100 * (1 - other):.2f}%"></i>'
        f'<i class="other" style="width:{100 * other:.2f}%"></i></div>'
        f'<p class="key"><span><i class="timed"></i>timed inference and warm-up '
        f"{esc(duration(timed))}, {esc(percent(1 - other, 1))}</span>"
        f'<span><i class="other"></i>everything else {esc(duration(max(0.0, busy - timed)))}, '
        f"{esc(percent(other, 1))}</span></p>"
    )
    text = (
        f"The device was busy for {duration(busy)} of a run of {duration(result.duration_s)}; "
        f"{percent(other, 1)} of that was outside timed inference and warm-up (starting processes, "
        "loading models, reading sensors)."
    )
    return _section("Device time", Html(f"<p>{esc(text)}</p>{split}"))


def deployed(result: RunResult) -> Html:
    """Return what was put on the device, and where."""
    if not result.deployed:
        return _section("Deployed", Html('<p class="absent">Nothing was deployed.</p>'))
    return _section("Deployed", definitions(flatten(result.deployed)))


def plot(name: str, label: str, drawn: AbstractSet[str]) -> Html:
    """Return the place of a figure, or a sentence where the run has no data for it."""
    if name not in drawn:
        return Html(
            f'<figure><p class="absent">{esc(label)}: not measured in this run.</p></figure>'
        )
    return Html(
        f'<figure><div class="plot" role="img" aria-label="{esc(label)}" '
        f'data-figure="figure-{esc(name)}"></div></figure>'
    )


def _section(title: str, *parts: Html) -> Html:
    return Html(f"<section><h2>{esc(title)}</h2>{''.join(parts)}</section>")


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
