"""ReMoDetect's recipe: from texts and a reward model to a detector, by the command line, and again after a stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guerdon.benchmarks.text_pairs import load_text_pairs, write_pair_files
from guerdon.cli import app
from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.curation.detection_texts import embedded_files, human_pairs
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone
from guerdon.recipes import remodetect
from guerdon.trainers.preference import RewardModelTrainer

QUICK = ["training.steps=3", "training.batch_size=4", "base.steps=2", "base.batch_size=8"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("remodetect")


@pytest.fixture(scope="module")
def texts(place: Path) -> Path:
    folder = place / "texts"
    folder.mkdir()
    for name, sides in list(embedded_files(20, 3).items())[:2]:
        (folder / f"{name}.raw_data.json").write_text(json.dumps(sides))
    return folder


@pytest.fixture(scope="module")
def preferences(place: Path) -> Path:
    path = place / "preferences.jsonl"
    rows = []
    for number, pair in enumerate(human_pairs(20, 4)):
        row = pair.to_row()
        row["prompt"] = [{"role": "user", "content": f"Question {number}?"}]
        rows.append(json.dumps(row) + "\n")
    path.write_text("".join(rows))
    return path


@pytest.fixture(scope="module")
def reward_model(place: Path) -> Path:
    said = [pair.chosen[0]["content"] for pair in human_pairs(30, 5)]
    backbone, tokenizer = tiny_backbone(said, hidden=16, layers=1, heads=2, vocab=500)
    return ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer).save_pretrained(place / "rm")


def run(*words: Any, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["run", "remodetect", *(str(word) for word in words)])
    assert done.exit_code == code, done.output + repr(done.exception)
    return done


def sets(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def test_from_own_texts_and_a_reward_model(place: Path, texts: Path, preferences: Path, reward_model: Path) -> None:
    out = place / "own"
    changes = [f"preferences={preferences}", "generators=[writer-a]", *QUICK]
    done = run("--data", texts, "--model", reward_model, "--out", out, *sets(*changes))
    found = summary(out)
    assert "Detection of held-out texts" in done.stdout and "preset: published" in (out / "config.yaml").read_text()
    (table,) = [one for one in found["tables"] if one["title"] == "Detection of held-out texts"]
    assert {(row[1], row[2]) for row in table["rows"]} == {
        ("writer-a", "yes"),
        ("writer-b", "no"),
        ("mixed texts", "-"),
    }
    assert {one["name"] for one in found["verdicts"]} >= {
        "held-out detection (mean AUROC)", "gain over the untuned reward model", "generators not trained on",
        "saved, loaded, scored again",
    }  # fmt: skip
    # What is held out shares no human text with what was trained on, and is there for the benchmark.
    held = load_text_pairs(out / "held_out")
    assert {one.generator for one in held} == {"writer-a", "writer-b"} and len({one.key for one in held}) == 4
    assert found["pairs"] == {"training": 16, "held-out": 8}
    mixing = RunFolder(out).stage_result("mixing")
    assert len(mixing["texts"]) == 24 and sum(text is not None for text in mixing["texts"]) > 20


def stopping_at(step: int) -> Callable[[RewardModelTrainer], dict[str, float]]:
    """A training step that is interrupted when the reward model's training comes to ``step``."""
    train_step, calls = RewardModelTrainer.train_step, []

    def stopping(self: RewardModelTrainer) -> dict[str, float]:
        calls.append(self.stage)
        if calls.count("reward_model") == step:
            raise KeyboardInterrupt
        return train_step(self)

    return stopping


def test_a_run_that_was_stopped_gives_the_same_model(
    place: Path, texts: Path, preferences: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finals = {}
    for name in ("whole", "stopped"):
        out = place / name
        config = remodetect.CONFIG(
            **remodetect.PRESETS["tiny"]
            | {"seed": 2, "data": str(texts), "preferences": str(preferences), "held_out": 0.3}
        ).model_copy(deep=True)
        config.base.steps, config.base.batch_size = 2, 8
        config.training.steps, config.training.batch_size, config.training.checkpoint_every = 4, 4, 2
        if name == "stopped":
            with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
                patched.setattr(RewardModelTrainer, "train_step", stopping_at(4))
                remodetect.run(config, RunFolder.open(out, config))
        remodetect.run(config, RunFolder.open(out, config, resume=name == "stopped"), resume=name == "stopped")
        finals[name] = summary(out)["auroc"], ScalarRewardModel.from_pretrained(out / "model").identity()
    assert finals["whole"] == finals["stopped"]


def test_what_is_refused_before_anything_trains(
    place: Path, texts: Path, reward_model: Path, preferences: Path
) -> None:
    words = ["--data", texts, "--model", reward_model]
    for number, (changes, said) in enumerate(
        (
            ([], "no preferences to replay"),
            (["new_head=true", "replay=0"], "no preferences to train a new head on"),
            (["replay=0", "generators=[writer-z]"], "unknown generator 'writer-z'"),
            (["replay=0", "lora=4"], "lora goes with new_head"),
            (["replay=0", f"validation={texts}"], "among the training texts"),
        )
    ):
        assert said in run(*words, "--out", place / f"no{number}", *sets(*QUICK, *changes), code=2).output
    other = place / "other"
    pairs = load_text_pairs(texts)
    write_pair_files(pairs[:4], other)
    with pytest.raises(GuerdonError, match="leaves no human text|made of other data|training texts"):
        config = remodetect.CONFIG(data=str(texts), validation=str(other), replay=0, model=str(reward_model))
        remodetect.run(config, RunFolder.open(place / "leak", config))


@pytest.mark.slow
def test_the_embedded_run_learns(place: Path) -> None:
    out = place / "embedded"
    run("--out", out)
    found = summary(out)
    named = {one["name"]: one for one in found["verdicts"]}
    assert named["held-out detection (mean AUROC)"]["holds"] is True
    assert named["over the length of the text"]["holds"] is True
    assert found["auroc"]["after"] > found["auroc"]["before"] - 0.02
