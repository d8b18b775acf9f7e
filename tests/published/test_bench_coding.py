"""bench_coding at a tiny size, without its peers, which cannot be missing in silence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from scripts import bench_coding

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_sizes_and_speeds_are_told_and_missing_peers_miss_the_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_coding, "TABLE", (24, 400))
    monkeypatch.setattr(bench_coding, "QUICK", {(24, 400): 1.0})
    out = tmp_path / "figures.json"
    no_peers = ["--peers", str(tmp_path / "no-python")]
    assert bench_coding.main(["--quick", "--check", "--json", str(out), *no_peers]) == 1
    assert "no peers" in capsys.readouterr().err
    figures = json.loads(out.read_text())["figures"]
    assert len(figures) == 21
    for figure in figures:
        beside = "beside coders" in figure["what"]
        assert figure["met"] is not beside
        assert figure["value"] > 0
