"""Recipes of scalar reward models: from pairs to a saved model that scores as it did, by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guerdon import rewards
from guerdon.cli import app
from guerdon.core.dialogues import ASKING, embedded_pairs, embedded_ranked
from guerdon.core.preferences import text_of
from guerdon.models.scalar.tiny import tiny_backbone

QUICK = ["training.steps=4", "training.batch_size=8"]
MORE: dict[str, list[str]] = {
    "basereward": [],
    "ixc-2.5-reward": ["training.alternate=null"],
    "polar": [],
    "secrets-rlhf-2": ["members=2"],
    "skywork-reward-v2": ["curate=false"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(scope="module")
def data(place: Path) -> Path:
    path = place / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair.to_row()) + "\n" for pair in embedded_ranked(80, 0)))
    return path


@pytest.fixture(scope="module")
def backbone(place: Path) -> Path:
    texts = {text_of(pair.conversation("chosen")) for pair in embedded_pairs(80, 0)}
    model, tokenizer = tiny_backbone(texts, hidden=32, layers=1, vocab=600)
    model.save_pretrained(place / "backbone")
    tokenizer.save_pretrained(place / "backbone")
    return place / "backbone"


def run(*words: Any, code: int = 0) -> Any:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output + repr(done.exception)
    return done


def sets(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


@pytest.mark.parametrize("slug", MORE)
def test_from_own_pairs_and_model_to_a_reward(place: Path, data: Path, backbone: Path, slug: str) -> None:
    out = place / slug
    done = run("run", slug, "--data", data, "--model", backbone, "--out", out, *sets(*QUICK, *MORE[slug]))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["pairs"]["training"] + summary["pairs"]["held-out"] <= 80
    assert set(summary["grades"]) >= {"reward model", "bag of words", "length alone"}
    assert summary["verdicts"][-1]["name"] == "saved, loaded, scored again" or slug == "ixc-2.5-reward"
    assert "Held-out pairs" in done.stdout and (out / "report.html").is_file()
    # A model of one's own gets the paper's settings.
    assert "preset: published" in (out / "config.yaml").read_text()
    if slug != "polar":  # whose reward needs the reference too
        reward = rewards.load(out / "model")
        first, second = reward(prompts=["What is a kettle for?"] * 2, completions=["Boiling water.", "Digging soil."])
        assert first != second


def test_a_run_without_anything_is_small_and_learns(place: Path) -> None:
    out = place / "embedded"
    run("run", "skywork-reward-v2", "--out", out, *sets("training.steps=40", "curate=false"))
    summary = json.loads((out / "summary.json").read_text())
    assert "preset: tiny" in (out / "config.yaml").read_text()
    value, low, high = summary["grades"]["reward model"]["accuracy"]
    assert low <= value <= high and value > 0.5
    assert summary["calibration"]["bins"] and any(row["stage"] == "reward_model" for row in metrics(out))


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_curation_with_gold_pairs_and_a_judge(place: Path, data: Path, backbone: Path) -> None:
    files = {"gold": embedded_pairs(24, 7, asking=ASKING[:3]), "wild": embedded_pairs(60, 8, asking=ASKING[:3])}
    files["held"] = embedded_pairs(20, 9, asking=ASKING[3:])
    for name, pairs in files.items():
        (place / f"{name}.jsonl").write_text("".join(json.dumps(pair.to_row()) + "\n" for pair in pairs))
    gold = place / "gold.jsonl"
    (place / "judges.py").write_text(
        "def brief(prompts, completions, **columns):\n    return [-float(len(str(text))) for text in completions]\n"
    )
    out = place / "curated"
    judge = f"judges=[short={place / 'judges.py'}:brief]"
    run(
        "run", "skywork-reward-v2", "--data", place / "wild.jsonl", "--model", backbone, "--out", out,
        *sets(*QUICK, "curate=true", f"gold={gold}", judge, "samples=2", "curation.iterations=1"),
        *sets(f"validation={place / 'held.jsonl'}"),
    )  # fmt: skip
    decisions = [json.loads(line) for line in (out / "decisions.jsonl").read_text().splitlines()]
    assert {"decision", "p_best", "judge_votes", "provenance"} <= set(decisions[-1])
    titles = [table["title"] for table in json.loads((out / "summary.json").read_text())["tables"]]
    assert "Curation" in titles and "What curation did" in titles
    refused = run("run", "skywork-reward-v2", "--data", data, "--out", place / "no", *sets("curate=true"), code=2)
    assert "gold=FILE" in refused.output


def test_ablation_is_kept_when_resumed(place: Path, data: Path, backbone: Path) -> None:
    out = place / "grid"
    words = ["run", "basereward", "--data", data, "--model", backbone, "--out", out]
    run(*words, *sets(*QUICK, "ablate=regularisers"))
    (table,) = [
        t for t in json.loads((out / "summary.json").read_text())["tables"] if t["title"].startswith("The study")
    ]
    assert [row[0] for row in table["rows"]][:2] == ["none", "centring 0.001"]
    before = (out / "summary.json").read_text()
    run("run", "basereward", "--out", out, "--resume")
    after = json.loads((out / "summary.json").read_text())
    assert after["grades"] == json.loads(before)["grades"]


def test_options_of_secrets(place: Path, data: Path, backbone: Path) -> None:
    meta = place / "meta.jsonl"
    meta.write_text('{"prompt": "What is a kettle for?", "completions": ["Boiling water.", "Soil.", "Who knows."]}\n')
    words = ["run", "secrets-rlhf-2", "--data", data, "--model", backbone]
    out = place / "meta-run"
    run(*words, "--out", out, *sets(*QUICK, "members=2", f"meta.data={meta}", "meta.eta=0.1"))
    assert any("difference" in row for row in metrics(out))
    contrast = place / "contrast-run"
    run(*words, "--out", contrast, *sets(*QUICK, "members=2", "contrastive=pairs"))
    both = sets(*QUICK, "members=2", "contrastive=pairs", f"meta.data={meta}", "meta.eta=0.1")
    assert "give one of them" in run(*words, "--out", place / "both", *both, code=2).output


def test_bad_pairs_stop_the_run_before_anything_trains(place: Path) -> None:
    path = place / "bad.jsonl"
    path.write_text('{"prompt": "p", "chosen": "a", "rejected": "a"}\n{"prompt": "p", "chosen": "", "rejected": "b"}\n')
    done = run("run", "basereward", "--data", path, "--out", place / "bad", code=2)
    assert f"{path}:1: chosen and rejected are equal" in done.output and f"{path}:2" in done.output
