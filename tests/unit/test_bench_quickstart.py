"""The script that counts the quickstart's outcomes: finished runs are read, not made again."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline.recipe.recipe import Recipe
from pipeline.store import Store
from scripts import bench_quickstart
from scripts.bench_quickstart import Ran
from tests.pipeline.report_fixture import make_result


def keep(work: Path, seed: int, outcome: str) -> None:
    recipe = bench_quickstart.ROOT / "recipes" / "digits.toml"
    digest = Recipe.load(recipe, [f"seed={seed}"]).digest()
    ran = Ran(
        seed, digest, outcome, 0 if outcome == "met" else 4, 300.0 + seed, whole=seed != 1,
        winner_accuracy=0.98, baseline_accuracy=0.975, gain_ci95=(-0.001, 0.011), ratio=0.3,
        verdict="valid", baseline="mobilenet-v2 x0.35",
    )  # fmt: skip
    (work / f"seed-{seed}-{digest}.json").write_text(json.dumps(asdict(ran)))


@pytest.mark.parametrize(
    ("missed", "status", "mark"), [(0, 0, "ok"), (1, 0, "ok"), (2, 1, "MISSED")]
)
def test_nineteen_of_twenty_are_to_meet_their_target(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missed: int,
    status: int,
    mark: str,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for seed in range(20):
        keep(work, seed, "not told apart" if seed < missed else "met")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a run was made again"))
    out = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--work", str(work), "--check", "--json", str(out)])
    assert bench_quickstart.main() == status
    said = capsys.readouterr().out
    first = next(line for line in said.splitlines() if line.startswith("target met"))
    assert first.split()[2:] == [str(20 - missed), "of", "20", "19", "of", "20", mark]
    assert "seed  3: met; 0.30 of mobilenet-v2 x0.35, 98.00% against 97.50% (-0.10 to +1.10" in said
    assert ("not told apart" in said) == bool(missed)
    assert len(json.loads(out.read_text())["conditions"]["runs"]) == 20


def test_a_run_of_another_recipe_is_not_taken_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, 0, "met")
    other = tmp_path / "other.toml"
    text = (bench_quickstart.ROOT / "recipes" / "digits.toml").read_text()
    other.write_text(text.replace("candidates = 48", "candidates = 49"))

    class Asked(Exception):
        pass

    def asked(*_: object, **__: object) -> None:
        raise Asked

    monkeypatch.setattr("subprocess.run", asked)
    arguments = ["bench", "--runs", "1", "--work", str(tmp_path), "--recipe", str(other)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(Asked):
        bench_quickstart.main()


def test_a_run_is_kept_with_what_its_result_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run leaves stands in for the run, which takes minutes."""
    result = make_result()

    def leave(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        with Store.open(Path(words[words.index("--store") + 1])) as store:
            begun = store.new_run("digits", recipe={}, digest="", device="local", version="")
            store.add_result(replace(result, run_id=begun.id))
        return subprocess.CompletedProcess(words, 0, "", "the last line\n")

    monkeypatch.setattr("subprocess.run", leave)
    work = tmp_path / "work"
    monkeypatch.setattr(sys, "argv", ["bench", "--runs", "2", "--jobs", "2", "--work", str(work)])
    bench_quickstart.main()
    (kept, _other) = sorted(work.glob("*.json"))
    ran = json.loads(kept.read_text())
    assert ran["outcome"] == result.comparison.outcome
    assert tuple(ran["gain_ci95"]) == result.comparison.accuracy_gain_ci95
    assert ran["ratio"] == result.comparison.ratio
