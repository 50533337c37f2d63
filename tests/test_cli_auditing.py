"""``guerdon audit`` on rewards as a person has them: functions in a file, a saved model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guerdon.cli.auditing import Against, Audited, audit_subject, list_attacks
from guerdon.core.dialogues import embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import text_of
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone

REWARDS = """
import re

def last_number(prompts, completions, solution, **columns):
    found = [re.findall(r"-?\\d+", text if isinstance(text, str) else text[-1]["content"]) for text in completions]
    return [float(bool(some) and some[-1] == str(wanted)) for some, wanted in zip(found, solution)]

def length(prompts, completions, **columns):
    return [float(len(text if isinstance(text, str) else text[-1]["content"])) for text in completions]

def breaks_on_short(prompts, completions, **columns):
    texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
    if any(len(text) < 4 for text in texts):
        raise ValueError("too short for me")
    return [float(len(text)) for text in texts]
"""
QUICK = "empty,honest,near-misses,position"


@pytest.fixture
def rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"rewards_{abs(hash(str(tmp_path))) % 10**8}"
    (tmp_path / f"{name}.py").write_text(REWARDS)
    return f"{name}.py"


def audit(audited: Audited, attacks: str | None = QUICK, fail_above: float | None = None, out: Path | None = None,
          **against: Any) -> bool:  # fmt: skip
    settings = Against(**{"items": 8, **against})
    return audit_subject(audited, settings, attacks, fail_above, out, 0, as_json=False)


def test_a_verifier_is_known_by_what_it_does_and_its_hole_is_found(
    rewards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert not audit(Audited(reward=f"{rewards}:last_number"), fail_above=0.5, out=out)
    told = capsys.readouterr()
    assert "audited as a verifier" in told.err and "not passed: near-misses" in told.err
    assert "near-misses" in told.out and "Not tried" in told.out
    result = json.loads((out / "result.json").read_text())
    assert result["kind"] == "verifier" and result["attacks"]["near-misses"]["rate"]["value"] > 0.2
    assert "scores one answer at a time" in result["attacks"]["position"]["reason"]
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert sorted(path.stem for path in (out / "attacks").iterdir()) == sorted(QUICK.split(","))


def test_a_reward_without_solutions_is_audited_by_preferences(rewards: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(Audited(reward=f"{rewards}:length"), attacks="empty,length", fail_above=1.0)
    assert "audited as a preference" in capsys.readouterr().err
    assert not audit(Audited(reward=f"{rewards}:length"), attacks="length", fail_above=0.2)


def test_a_reward_that_raises_on_an_attack_is_told_so_and_does_not_pass(
    rewards: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not audit(Audited(reward=f"{rewards}:breaks_on_short"), attacks="empty,honest", fail_above=1.0)
    told = capsys.readouterr()
    assert "not passed: empty" in told.err and "failed" in told.out


def test_json_is_one_line(rewards: str, capsys: pytest.CaptureFixture[str]) -> None:
    audit_subject(Audited(reward=f"{rewards}:length"), Against(items=4), "empty", None, None, 0, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["attacks"]["empty"]["rate"]["fooled"] == 0 and told["items"] == 4


def test_ones_own_pairs_and_a_saved_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = embedded_pairs(12, 3)
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(json.dumps(pair.to_row()) for pair in pairs))
    backbone, tokenizer = tiny_backbone([text_of(pair.conversation("chosen")) for pair in pairs], hidden=16, layers=1)
    model = ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer, max_length=256)
    model.save_pretrained(tmp_path / "model")
    names = "empty,unicode,invariance,crossed-answers"
    assert audit(Audited(model=str(tmp_path / "model")), attacks=names, data=str(data), out=tmp_path / "out")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["kind"] == "preference" and result["data"] == str(data)
    assert result["attacks"]["batch-invariance"]["rate"]["fooled"] == 0
    assert result["attacks"]["determinism"]["rate"]["fooled"] == 0
    assert "largest shift" in result["attacks"]["unicode"]["measures"]


@pytest.mark.parametrize(
    "attacks, fail_above, kind, message",
    [
        ("masterkeys", None, "auto", "did you mean 'master-keys'"),
        (None, 5.0, "auto", "--fail-above is a share"),
        (None, None, "verifer", "did you mean 'verifier'"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_loaded(
    attacks: str | None, fail_above: float | None, kind: str, message: str
) -> None:
    with pytest.raises(GuerdonError, match=message):
        audit_subject(
            Audited(reward="nowhere:nothing"), Against(kind=kind), attacks, fail_above, None, 0, as_json=False
        )


def test_the_list_of_attacks(capsys: pytest.CaptureFixture[str]) -> None:
    list_attacks(as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["near-misses"]["error"] == "false positive" and told["unicode"]["error"] == "false negative"
    list_attacks(as_json=False)
    assert "prompt injection" in capsys.readouterr().out
