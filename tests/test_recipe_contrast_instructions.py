"""The recipe of Contrast Instructions: the crossed loss, and runs from pairs to a consistency table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from typer.testing import CliRunner

from guerdon.cli import app
from guerdon.core.dialogues import embedded_image_pairs, embedded_pairs
from guerdon.core.preferences import Pair, text_of
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone
from guerdon.objectives.preference import crossed_negatives
from guerdon.recipes.contrast_instructions import ContrastConfig, crossed_loss, preset_for
from guerdon.trainers.dropout_views import View
from guerdon.trainers.pair_batches import PairBatch, micro_batches, view_of

QUICK = ["training.steps=3", "training.batch_size=8"]


@pytest.fixture(scope="module")
def model() -> ScalarRewardModel:
    texts = {text_of(pair.conversation("chosen")) for pair in embedded_pairs(60, 0)}
    backbone, tokenizer = tiny_backbone(texts, hidden=32, layers=1, vocab=400)
    return ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer).eval()


def passed(model: ScalarRewardModel, pairs: list[Pair]) -> tuple[PairBatch, View]:
    encoded = [model.encode(pair.conversation(side)) for pair in pairs for side in ("chosen", "rejected")]
    batch = PairBatch.of(pairs, encoded)
    return batch, view_of(model, batch, micro_batches(model, batch, "shared", 4096), "shared")


def distinct(count: int) -> list[Pair]:
    found = {pair.row["thing"]: pair for pair in embedded_pairs(200, 1)}
    return list(found.values())[:count]


def test_crossed_loss_is_that_of_each_pair_and_the_next(model: ScalarRewardModel) -> None:
    pairs = distinct(4)
    table = torch.tensor(
        [
            [model.score([[*i.prompt, *r.chosen]]).item() for i in (one, other) for r in (one, other)]
            for one, other in zip(pairs, [*pairs[1:], pairs[0]])
        ]
    ).view(-1, 2, 2)
    found = crossed_loss(model, *passed(model, pairs))
    assert_close(found, crossed_negatives(table), atol=1e-5, rtol=0)
    found.backward()
    # A bias cancels in every difference; everything else learns.
    assert all(part.grad.abs().sum() > 0 for part in model.head.parameters() if part.ndim > 1)


def test_rows_that_are_not_apart_are_left_out(model: ScalarRewardModel) -> None:
    one, other = distinct(2)
    # one-one and other-other say nothing; one-other and other-one do.
    doubled = crossed_loss(model, *passed(model, [one, one, other, other]))
    assert_close(doubled, crossed_loss(model, *passed(model, [one, other])), atol=1e-5, rtol=0)
    nothing = crossed_loss(model, *passed(model, [one, one]))
    assert nothing.item() == 0 and nothing.requires_grad
    shown = embedded_image_pairs(3, 0)
    batch, view = passed(model, distinct(3))
    pictures = PairBatch(shown, batch.encoded, batch.margin, batch.smoothing, batch.ties, *(torch.ones(3),) * 2)
    assert crossed_loss(model, pictures, view).item() == 0


def run(*words: Any, code: int = 0) -> Any:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output + repr(done.exception)
    return done


def sets(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    place = tmp_path_factory.mktemp("contrast")
    path = place / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair.to_row()) + "\n" for pair in embedded_pairs(80, 0)))
    texts = {text_of(pair.conversation("chosen")) for pair in embedded_pairs(80, 0)}
    backbone, tokenizer = tiny_backbone(texts, hidden=32, layers=1, vocab=600)
    backbone.save_pretrained(place / "backbone")
    tokenizer.save_pretrained(place / "backbone")
    return ["run", "contrast-instructions", "--data", path, "--model", place / "backbone"]


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def consistency_table(out: Path) -> dict[str, Any]:
    (table,) = [one for one in summary(out)["tables"] if one["title"].startswith("Consistency")]
    return table


def test_own_pairs_and_model(words: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    changes = sets(*QUICK, "crossed=0.5", "low=0.3", "held_out=0.3", "threshold=0.6")
    run(*words, "--out", out, *changes)
    found = summary(out)
    assert found["system"] == "contrast-instructions" and "preset: published" in (out / "config.yaml").read_text()
    table = consistency_table(out)
    assert [row[0] for row in table["rows"]] == ["reward model", "with RewardFusion", "shared words"]
    assert float(table["rows"][1][-1]) > 1 and table["rows"][0][-1] == "1.00"
    names = [one["name"] for one in found["verdicts"]]
    assert names[-2:] == ["held-out response consistency", "held-out instruction consistency"]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert sum("crossed" in row for row in rows) == 3
    before = found["consistency"]
    run("run", "contrast-instructions", "--out", out, "--resume")
    assert summary(out)["consistency"] == before


def test_no_contrasts_in_the_band_are_said_and_not_graded(words: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "none"
    run(*words, "--out", out, *sets(*QUICK, "low=0.9999", "high=1.0", "augment=none"))
    assert consistency_table(out)["rows"] == [] and "No two held-out" in consistency_table(out)["note"]
    assert "consistency" not in summary(out)


def test_synonyms_need_convex(words: list[Any], tmp_path: Path) -> None:
    alike = tmp_path / "alike.txt"
    alike.write_text("kettle\tpot\n")
    refused = sets(*QUICK, "augment=none", f"synonyms={alike}")
    assert "give augment=convex too" in run(*words, "--out", tmp_path / "no", *refused, code=2).output
    run(*words, "--out", tmp_path / "yes", *sets(*QUICK, f"synonyms={alike}"))


def test_presets() -> None:
    assert (preset_for(None), preset_for("x")) == ("tiny", "published")
    published = ContrastConfig()
    assert (published.lora, published.augment, published.crossed) == (8, "convex", 0.0)
    assert published.training.learning_rate == 2e-5 and published.training.batch_size == 16
