"""What `edgewright inspect` prints for people."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from device_agents.plural import number_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from device_agents.model_files import Tensor
    from pipeline.cli.commands._inspection import Inspection
    from pipeline.formats.facts.values import Facts
    from pipeline.formats.tflite.partitions import LeftOp, Partitions

_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_SHOWN_LABELS = 5
_SHOWN_PLACES = 3


def lines(source: str, found: Inspection) -> list[str]:
    """Return the lines for a model."""
    facts = found.facts
    size = _bytes(facts.size_bytes) if facts.size_bytes else ""
    about = [facts.format, facts.version, size, facts.producer and f"by {facts.producer}"]
    text = [f"{source}: {', '.join(filter(None, about))}"]
    text += ["inputs", *_table(map(_tensor, facts.inputs))]
    text += ["outputs", *_table(map(_tensor, facts.outputs))]
    counts = ", ".join(f"{kind} {count}" for kind, count in facts.ops.items())
    text.append(f"ops: {sum(facts.ops.values())} of {number_of(len(facts.ops), 'kind')}: {counts}")
    text.append(_cost(facts))
    text += [f"number format: {found.number_format}"] if found.number_format else []
    text += _numbers(facts)
    text += [f"{name}: {value}" for name, value in facts.metadata.items() if value]
    if facts.labels:
        text.append(_labels(facts.labels))
    text += [f"note: {remark}" for remark in facts.remarks]
    if found.partitions is not None:
        text += _delegate(found.partitions)
    text += [f"can: {sentence}" for sentence in found.can]
    text += [f"cannot: {sentence}" for sentence in found.cannot]
    return text


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows with their columns under each other."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _tensor(tensor: Tensor) -> tuple[str, str, str, str]:
    dims = tensor.dims
    shape = "any shape" if dims is None else "x".join(str(length or "?") for length in dims)
    codes = "" if tensor.scale is None else f"scale {tensor.scale:.6g}, zero {tensor.zero_point}"
    return tensor.name, tensor.dtype, shape or "a single number", codes


def _cost(facts: Facts) -> str:
    params = "unknown parameters" if facts.params is None else f"{_count(facts.params)} parameters"
    macs = "unknown MACs" if facts.macs is None else f"{_count(facts.macs)} MACs"
    peak = facts.peak_activation_bytes
    memory = "unknown" if peak is None else _bytes(peak)
    why = f" ({facts.uncounted})" if facts.uncounted else ""
    return f"cost: {params}, {macs}, peak activation memory {memory}{why}"


def _numbers(facts: Facts) -> list[str]:
    weights = ", ".join(f"{kind} {_bytes(size)}" for kind, size in facts.weight_bytes.items())
    text = [f"weights: {weights or 'none'}"]
    if facts.activations:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in facts.activations.items())
        text.append(f"activations: {kinds}")
    return text


def _labels(labels: tuple[str, ...]) -> str:
    more = ", …" if len(labels) > _SHOWN_LABELS else ""
    return f"labels: {len(labels)}: {', '.join(labels[:_SHOWN_LABELS])}{more}"


def _delegate(found: Partitions) -> list[str]:
    if found.count is None:
        return [f"delegate: partitions unknown: {found.unknown}"]
    told = number_of(found.count, "partition")
    text = [f"delegate: {told} of XNNPACK expected (LiteRT 2.3), {found.taken} of {found.ops} ops"]
    return text + _table(_left(found.left))


def _left(left: tuple[LeftOp, ...]) -> Iterable[tuple[str, str, str]]:
    """Yield rows of ops that are left, those of one kind and reason together."""

    def key(op: LeftOp) -> tuple[bool, str, str]:
        return not op.breaks, op.kind, op.why

    for (edge, kind, why), group in groupby(sorted(left, key=key), key):
        places = [op.place for op in group]
        shown = ", ".join(map(str, places[:_SHOWN_PLACES]))
        more = ", …" if len(places) > _SHOWN_PLACES else ""
        role = "left" if edge else "breaks"
        yield f"{role} {len(places)} {kind}", why, f"op {shown}{more}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _count(number: int) -> str:
    for unit, name in _UNITS:
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)


def to_json(source: str, found: Inspection) -> Mapping[str, object]:
    """Return everything, for programs."""
    from dataclasses import asdict

    return {
        "model": source,
        **asdict(found.facts),
        "number_format": found.number_format or None,
        "partitions": None if found.partitions is None else asdict(found.partitions),
        "can": found.can,
        "cannot": found.cannot,
    }
