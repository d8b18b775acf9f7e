"""A chain of passes as the page shows it, made up: its figures are nobody's."""

from __future__ import annotations

from pipeline.store.compression import Compression, LayerRow, StepRow


def make_compression() -> Compression:
    """Return a chain of five steps, one of which did not pay."""

    def step(name: str, done: str, place: int, **more: object) -> StepRow:
        sizes = (400_000, 130_000, 130_200, 130_200, 36_000)
        packed = (360_000, 118_000, 118_100, 30_000, 12_000)
        lost = (0.0, 21.5, 0.5, 0.75, 0.75)
        ratio = (None, 0.4, 0.41, 0.41, 0.2)[place]
        score = 0.975 - lost[place] / 100
        values: dict[str, object] = {
            "name": name,
            "done": done,
            "changed": place > 0,
            "bytes": sizes[place],
            "packed_bytes": packed[place],
            "macs": 4_000_000 if place == 0 else 1_200_000,
            "params": 98_000 if place == 0 else 31_000,
            "agreement": 1 - lost[place] / 100,
            "sqnr_db": None if place == 0 else 12.5 - place,
            "score": score,
            "score_ci95": (score - 0.02, score + 0.015),
            "shown": f"{100 * score:.2f} %",
            "lost_points": lost[place],
            "latency_ms": 0.8 * (ratio or 1),
            "ci95_ms": (0.79 * (ratio or 1), 0.82 * (ratio or 1)),
            "ratio": ratio,
            "ratio_ci95": None if ratio is None else (0.97 * ratio, 1.03 * ratio),
            "verdict": "suspect" if place == 2 else "valid",
            "reasons": ("the clock fell",) if place == 2 else (),
        }
        return StepRow(**{**values, **more})  # type: ignore[arg-type]

    steps = (
        step("as it came", "", 0),
        step("prune:ratio=0.5", "pruned by l2, uniform: 120 of 240 channels", 1),
        step("finetune:epochs=5", "finetuned 5 epochs on 2000 samples by truths", 2),
        step("sparsify:ratio=0.8", "made 80 % of the weights zero", 3),
        step("quantize:static8", "calibrated static8 on 256 images", 4, left_in_float32=("fc",)),
    )
    layers = tuple(
        LayerRow(f"block{n}.conv", "conv", 1000 * n, 400 * n, 120 * n) for n in range(1, 10)
    )
    return Compression("net.onnx", "tflite", "board", "accuracy", 500, "validation", steps, layers)
