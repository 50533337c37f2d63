"""The reward that reads the column of references: what it passes on, what does not apply, what failed."""

from __future__ import annotations

import pytest
import torch

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.scorer import Scorer
from guerdon.models.scalar.reference import PolicyDiscriminator
from guerdon.models.scalar.reference_adapters import Verifier
from guerdon.models.scalar.tiny import tiny_backbone
from guerdon.rewards.reference import ReferenceReward


def equals(candidate: str, reference: str) -> bool:
    return candidate == reference


def test_completions_are_scored_against_their_own_reference() -> None:
    reward = ReferenceReward(Verifier(equals))
    found = reward(["p"] * 3, ["a", "<think>b?</think>a", "a"], reference=["a", "a", "b"])
    assert found == [1.0, 1.0, 0.0]
    kept = ReferenceReward(Verifier(equals), strip_thinking=False)
    assert kept(["p"], ["<think>b?</think>a"], reference=["a"]) == [0.0]
    assert kept.identity() != reward.identity()


def test_no_reference_no_reward() -> None:
    reward = ReferenceReward(Verifier(equals), column="solution", on_failure="drop_sample")
    found = reward(["p"] * 3, ["a", "a", "a"], solution=[None, " ", "a"])
    assert found[0] is None and isinstance(found[1], Failed) and found[2] == 1.0
    assert reward(["p"], ["a"], solution=[None]) == [None]
    scores = Scorer(reward, max_failure_rate=1.0).score(["p"] * 3, ["a"] * 3, solution=[None, " ", "a"])
    assert scores.valid.tolist() == [False, False, True] and list(scores.failures) == [1]


def test_errors_name_what_is_missing() -> None:
    with pytest.raises(GuerdonError, match="needs the column 'reference'; columns: solution"):
        ReferenceReward(Verifier(equals))(["p"], ["a"], solution=["a"])
    with pytest.raises(GuerdonError, match="int has no score"):
        ReferenceReward(3)  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="on_failure"):
        ReferenceReward(Verifier(equals), on_failure="skip")  # type: ignore[arg-type]


def test_with_a_discriminator_messages_and_hh_prompts() -> None:
    backbone, tokenizer = tiny_backbone(["one two three"], hidden=32, vocab=300)
    model = PolicyDiscriminator.on_backbone(backbone, tokenizer=tokenizer, max_length=128)
    reward = ReferenceReward(model)
    messages = [{"role": "user", "content": "one"}]
    answer = [{"role": "assistant", "content": "three"}]
    prompts = ["one", messages, "\n\nHuman: one\n\nAssistant:"]
    found = reward(
        prompts, ["three", answer, "three"], reference=["two", [{"role": "assistant", "content": "two"}], "two"]
    )
    wanted = float(model.score(["one"], ["two"], ["three"])[0])
    assert found[:2] == pytest.approx([wanted] * 2, abs=1e-5) and all(isinstance(one, float) for one in found)
    assert torch.isfinite(torch.tensor(found)).all()
