"""A run's result as a small search on a board would give it, drawn from a seed.

The networks are real specs and their MACs and parameters are counted on the real lowering; only
accuracies and times are drawn (they cannot be had without training and a device).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from models.cost import Cost, OpCost, cost
from models.lower import lower
from models.spec import ArchSpec, Block, Dense
from pipeline.store.result import ArtifactRow, CandidateRow, Comparison, OpRow, RunResult

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>&\"'`${1}%{x}$title"
BASELINE_NAME = "MobileNetV2-0.35"


def make_result(seed: int = 0, *, candidates: int = 120, name: str = "digits-on-a-pi") -> RunResult:
    """Return a complete result; the same arguments give the same result."""
    rng = np.random.default_rng(seed)
    rows = _candidates(rng, candidates)
    known = [r for r in rows if r.latency_ms is not None and r.verdict != "invalid"]
    front: list[CandidateRow] = []
    for row in sorted(known, key=lambda r: (r.latency_ms or 0.0, -(r.accuracy or 0.0))):
        if not front or (row.accuracy or 0.0) > (front[-1].accuracy or 0.0):
            front.append(row)
    finalists = sorted(front, key=lambda r: -(r.score or 0.0))[:4]
    chosen = finalists[0]
    winner_ms = (chosen.latency_ms or 1.0) * 1.004
    baseline_ms = _latency_ms(cost(_baseline()), rng)
    trained = [0.9885 - 0.002 * i for i in range(len(finalists))]
    return RunResult(
        run_id="20250612-031500-5f2c",
        recipe=_recipe(name, seed),
        device=_device(),
        started_at="2025-06-12T03:15:00+00:00",
        duration_s=5134.2,
        candidates=tuple(rows),
        front=tuple(r.index for r in front),
        chosen=chosen.index,
        winner_spec=chosen.spec,
        baseline_name=BASELINE_NAME,
        baseline_spec=str(_baseline()),
        baseline_candidates=tuple(
            {
                "name": f"MobileNetV2-{width}",
                "accuracy_validation": accuracy,
                "latency_ms": baseline_ms * scale,
            }
            for width, accuracy, scale in (("0.35", 0.9861, 1.0), ("0.5", 0.9878, 1.42))
        ),
        finalists=tuple(
            {"index": r.index, "accuracy_validation": a, "latency_ms": r.latency_ms}
            for r, a in zip(finalists, trained, strict=True)
        ),
        artifacts=_artifacts(winner_ms, baseline_ms, chosen, rng),
        ops=_ops(ArchSpec.parse(chosen.spec), winner_ms, rng),
        comparison=_comparison(winner_ms, baseline_ms),
        deployed={
            "name": "digits",
            "version": 3,
            "path": "/home/pi/.edgewright/releases/digits/3/model.tflite",
            "sha256": _sha(1),
        },
        device_busy_s=1510.4,
        device_timed_s=1402.9,
        versions={"edgewright": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "numpy": "2.2.1"},
    )


def hostile_result() -> RunResult:
    """Return a result whose every string from outside tries to become markup or script."""
    result = make_result(candidates=30, name=HOSTILE)
    rows = [replace(c, spec=HOSTILE, failure=c.failure and HOSTILE) for c in result.candidates]
    files = [
        replace(
            a, path=HOSTILE, sha256=HOSTILE, reasons=(HOSTILE,), verdict=HOSTILE, scheme=HOSTILE
        )
        for a in result.artifacts
    ]
    return replace(
        result,
        run_id=HOSTILE,
        started_at=HOSTILE,
        recipe={**result.recipe, HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}},
        device={**result.device, "name": HOSTILE, "model": HOSTILE, HOSTILE: HOSTILE},
        candidates=tuple(rows),
        winner_spec=HOSTILE,
        baseline_name=HOSTILE,
        baseline_spec=HOSTILE,
        baseline_candidates=({**result.baseline_candidates[0], "name": HOSTILE},),
        artifacts=tuple(files),
        ops=tuple(replace(o, name=HOSTILE, kind=HOSTILE, key=HOSTILE) for o in result.ops),
        comparison=replace(result.comparison, sentence=HOSTILE),
        deployed={HOSTILE: HOSTILE, "path": HOSTILE},
        versions={HOSTILE: HOSTILE},
    )


def bare_result() -> RunResult:
    """Return a result of a run in which nothing optional is known."""
    result = make_result(candidates=5)
    rows = [
        replace(
            c,
            accuracy=None,
            latency_ms=None,
            latency_ci95_ms=None,
            ratio=None,
            verdict=None,
            score=float("-inf"),
            failure="the device did not answer in 30 s",
        )
        for c in result.candidates
    ]
    files = [
        replace(
            a, latency_ms=None, ci95_ms=None, verdict=None, partitions=None, accuracy_device=None
        )
        for a in result.artifacts
    ]
    return replace(
        result,
        recipe={},
        device={},
        candidates=tuple(rows),
        front=(),
        finalists=(),
        baseline_candidates=(),
        artifacts=tuple(replace(a, speed_up_rate=None) for a in files),
        ops=tuple(replace(o, latency_ms=None) for o in result.ops),
        deployed={},
        device_busy_s=0.0,
        device_timed_s=0.0,
        versions={},
    )


def _candidates(rng: np.random.Generator, n: int) -> list[CandidateRow]:
    rows: list[CandidateRow] = []
    elapsed_s = 0.0
    for index in range(n):
        spec = _sample(rng, progress=index / n)
        counted = cost(spec)
        latency_ms = _latency_ms(counted, rng)
        elapsed_s += float(rng.gamma(4.0, 5.0))
        quality = (
            0.985 - 0.055 * np.exp(-counted.macs / 1.3e6) - 0.02 * np.exp(-len(spec.blocks) / 4)
        )
        accuracy = float(np.clip(quality + rng.normal(0, 0.004), 0, 1))
        half = latency_ms * float(rng.uniform(0.004, 0.02))
        verdict = str(rng.choice(["valid", "suspect", "invalid"], p=[0.93, 0.05, 0.02]))
        row = CandidateRow(
            index=index,
            spec=str(spec),
            digest=spec.digest(),
            params=counted.params,
            macs=counted.macs,
            accuracy=accuracy,
            latency_ms=latency_ms,
            latency_ci95_ms=(latency_ms - half, latency_ms + half),
            ratio=latency_ms / 2.1,
            verdict=verdict,
            score=accuracy * (latency_ms / 0.6) ** -0.07,
            elapsed_s=elapsed_s,
            reused=bool(rng.random() < 0.12),
        )
        if rng.random() < 0.03:
            lost: dict[str, Any] = dict.fromkeys(
                ("latency_ms", "latency_ci95_ms", "ratio", "verdict", "score")
            )
            row = replace(row, **lost, failure="the link to the device ended in mid-call")
        rows.append(row)
    return rows


def _sample(rng: np.random.Generator, progress: float) -> ArchSpec:
    """A random small net; later ones are thinner and deeper, as a search would find them."""
    width = int(rng.choice([8, 12, 16, 24] if progress < 0.5 else [8, 12, 16]))
    blocks = [Block("conv", 3, 2, width)]
    channels = width
    for stage in range(3):
        for layer in range(int(rng.integers(1, 4))):
            stride = 2 if layer == 0 and stage < 2 else 1
            out = channels if layer else 8 * round(channels * 1.5 / 8)
            skip = "identity" if stride == 1 and out == channels else "none"
            middle = channels * int(rng.choice([2, 3, 4, 6]))
            kernel = int(rng.choice([3, 5]))
            blocks.append(Block("mb", kernel, stride, out, mid=middle, skip=skip))
            channels = out
    blocks.append(Block("conv", 1, 1, int(rng.choice([64, 96, 128]))))
    return ArchSpec((32, 32, 1), tuple(blocks), (Dense(10),))


def _baseline() -> ArchSpec:
    blocks = [Block("conv", 3, 2, 16)]
    channels = 16
    for out, stride, repeats in ((8, 1, 1), (8, 2, 2), (16, 2, 3), (24, 2, 4), (32, 1, 3)):
        for i in range(repeats):
            step = stride if i == 0 else 1
            skip = "identity" if step == 1 and out == channels else "none"
            blocks.append(Block("mb", 3, step, out, mid=6 * channels, skip=skip))
            channels = out
    blocks.append(Block("conv", 1, 1, 1280))
    return ArchSpec((32, 32, 1), tuple(blocks), (Dense(10),))


def _latency_ms(counted: Cost, rng: np.random.Generator) -> float:
    return sum(map(_op_ms, counted.per_op)) * float(rng.normal(1.0, 0.02))


def _op_ms(op: OpCost) -> float:
    """Depthwise convolutions cost more per MAC, and every op costs its call."""
    rate = 0.9e6 if op.kind == "depthwise" else 3.6e6  # MACs per millisecond
    return 0.004 + op.macs / rate


def _ops(spec: ArchSpec, winner_ms: float, rng: np.random.Generator) -> tuple[OpRow, ...]:
    graph, counted = lower(spec), cost(spec)
    scale = 1.09 * winner_ms / sum(map(_op_ms, counted.per_op))
    rows = []
    for op, item in zip(graph.ops, counted.per_op, strict=True):
        ms = None if op.kind == "mean" else _op_ms(item) * scale * float(rng.uniform(0.85, 1.15))
        rows.append(
            OpRow(
                name=op.name,
                kind=op.kind,
                key=op.key,
                macs=item.macs,
                params=item.params,
                activation_bytes=math.prod(op.in_shapes[0]) + math.prod(op.out_shape),
                latency_ms=ms,
                latency_ci95_ms=None if ms is None else (0.97 * ms, 1.04 * ms),
                pointwise=op.pointwise,
                block=op.block,
            )
        )
    return tuple(rows)


def _artifacts(
    winner_ms: float, baseline_ms: float, chosen: CandidateRow, rng: np.random.Generator
) -> tuple[ArtifactRow, ...]:
    rows = []
    number = 0
    networks = (
        ("winner", winner_ms, chosen.params),
        ("baseline", baseline_ms, cost(_baseline()).params),
    )
    for network, base_ms, params in networks:
        plain = params * 4 + 9_800
        for kind, scheme, slow, pack in (
            ("tflite", "static8", 1.0, 0.31),
            ("tflite", "float32", 1.9, 1.0),
            ("onnx", "float32", 2.3, 1.02),
        ):
            number += 1
            latency_ms = base_ms * slow
            size = round(plain * pack)
            suspect = network == "baseline" and kind == "onnx"
            exact = scheme == "float32"
            top = 0.9874 if network == "winner" else 0.9842
            rows.append(
                ArtifactRow(
                    network=network,
                    format=kind,
                    scheme=scheme,
                    sha256=_sha(number),
                    path=f"artifacts/{network}.{scheme}.{kind}",
                    bytes=size,
                    accuracy_torch=top,
                    accuracy_host=top - (0.0 if exact else 0.0007),
                    accuracy_device=None if kind == "onnx" else top - (0.0 if exact else 0.0007),
                    max_abs_error=4.1e-6 if exact else 0.382,
                    sqnr_db=float(rng.uniform(105, 118) if exact else rng.uniform(26, 32)),
                    argmax_agreement=1.0 if exact else 0.9985,
                    latency_ms=latency_ms,
                    ci95_ms=(latency_ms * 0.995, latency_ms * 1.004),
                    verdict="suspect" if suspect else "valid",
                    reasons=("spread within a process 4.1 % is above 3 %",) if suspect else (),
                    partitions=None if kind == "onnx" else 1,
                    compression_rate=plain / size,
                    space_saving_rate=1 - size / plain,
                    speed_up_rate=baseline_ms / winner_ms if network == "winner" else 1.0,
                )
            )
    return tuple(rows)


def _comparison(winner_ms: float, baseline_ms: float) -> Comparison:
    ratio = winner_ms / baseline_ms
    return Comparison(
        outcome="met",
        winner_ms=winner_ms,
        baseline_ms=baseline_ms,
        ratio=ratio,
        ratio_ci95=(ratio * 0.994, ratio * 1.006),
        target_ratio=0.5,
        winner_accuracy_validation=0.9885,
        baseline_accuracy_validation=0.9861,
        winner_accuracy_test=0.9867,
        baseline_accuracy_test=0.9835,
        test_images=10_000,
        accuracy_tolerance=0.005,
        accuracy_gain_ci95=(0.0009, 0.0055),
        guessing_accuracy=0.1,
        verdict="valid",
        sentence="The winner is at least as accurate on validation images and twice as fast.",
    )


def _recipe(name: str, seed: int) -> dict[str, Any]:
    return {
        "name": name,
        "seed": seed,
        "data": {
            "name": "digits",
            "resolution": 32,
            "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
            "options": {},
        },
        "target": {"baseline": "mobilenet_v2", "widths": [0.35, 0.5], "latency_ratio": 0.5},
        "search": {
            "space": "mbconv",
            "strategy": "evolution",
            "candidates": 120,
            "exponent": None,
            "stages": [{"stride": 2, "width": 16, "layers": 2}],
            "proxy": {"epochs": 3, "learning_rate": 5e-4},
        },
    }


def _device() -> dict[str, Any]:
    return {
        "name": "pi4b",
        "transport": "ssh",
        "model": "Raspberry Pi 4 Model B Rev 1.4",
        "machine": "aarch64",
        "cpus": [3],
        "threads": 1,
        "runtime": "tflite",
        "runtime_version": "2.3.0",
        "protocol": {"name": "thorough", "processes": 5, "max_processes": 20, "seed": 0},
    }


def _sha(number: int) -> str:
    return f"{number:02x}" * 32
