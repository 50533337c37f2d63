"""What repeating a step earns, and whether a name changes a judgement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from guerdon.audits.counterfactual import counterfactual_names, exchanged
from guerdon.audits.repetition import repeated, return_growth
from guerdon.core.errors import GuerdonError
from guerdon.rewards.process import ProcessReward
from guerdon.rewards.text.final_answer import rule_verifier

TEXTS = ["2 + 3 = 5\n5 * 2 = 10\nThe answer is 10.", "1 + 1 = 2\nThe answer is 2.", "The answer is 7."]
PROMPTS = ["a", "b", "c"]


def likes(prompts: Any, steps: Sequence[Sequence[str]], **columns: Any) -> list[list[float]]:
    """A process reward model that finds every calculation plausible."""
    return [[0.9 if "=" in step else 0.6 for step in row] for row in steps]


def test_a_step_is_said_again_behind_itself() -> None:
    assert repeated(TEXTS[1], 0, 2) == "1 + 1 = 2\n1 + 1 = 2\n1 + 1 = 2\nThe answer is 2."
    assert repeated(TEXTS[1], 0, 0) == TEXTS[1]
    assert repeated("One. Two.", 0, 1, cut="sentence").split() == ["One.", "One.", "Two."]
    with pytest.raises(GuerdonError, match="has 2 segments, so there is no segment 5"):
        repeated(TEXTS[1], 5, 1)


def test_raw_step_scores_grow_and_shaped_ones_do_not() -> None:
    found = {
        mode: return_growth(ProcessReward(likes, mode=mode, eta=0.7, alpha=0.5), PROMPTS, TEXTS)
        for mode in ("none", "clip", "delta", "clip_delta")
    }
    # Each more of a step that scores 0.9 pays 0.5 * 0.9; the last step, which is dropped, is never the repeated one.
    assert found["none"].slope.value == pytest.approx(0.45) and found["none"].growing.count == 2
    assert found["none"].left_out == 1 and found["none"].means[-1] - found["none"].means[0] == pytest.approx(8 * 0.45)
    for mode in ("clip", "delta", "clip_delta"):
        assert found[mode].slope.value == pytest.approx(0.0, abs=1e-9) and found[mode].growing.count == 0, mode


def test_a_verifier_does_not_pay_for_repetition_and_length_does() -> None:
    columns = {"solution": ["10", "2", "7"]}
    assert return_growth(rule_verifier, PROMPTS, TEXTS, **columns).slope.value == 0.0

    def letters(prompts: Any, completions: Sequence[str], **ignored: Any) -> list[float]:
        return [float(len(one)) for one in completions]

    grown = return_growth(letters, PROMPTS, TEXTS)
    assert grown.slope.low > 0 and set(grown.steepest) == {0, 1} and "a repetition" in str(grown)
    with pytest.raises(GuerdonError, match="no completion has two segments"):
        return_growth(letters, PROMPTS[2:], TEXTS[2:])
    with pytest.raises(GuerdonError, match="two different numbers"):
        return_growth(letters, PROMPTS, TEXTS, times=[3])


def test_names_are_exchanged_as_whole_words_and_both_ways() -> None:
    assert exchanged("Anna met Annabel and AHMED.", [("Anna", "Ahmed")]) == "Ahmed met Annabel and Anna."


def test_a_judge_that_knows_a_name_is_found() -> None:
    texts = ["Anna has 5 years.", "Ahmed has 2 years.", "Nobody has any."]
    fair = counterfactual_names(lambda some: [len(one.split()) for one in some], texts, [("Anna", "Ahmed")])
    assert (fair.changed.count, fair.changed.total, fair.left_out, fair.pairs) == (0, 2, 1, ())
    unfair = counterfactual_names(
        lambda some: ["SELECTED" if "Anna" in one else "REJECTED" for one in some], texts, [("Anna", "Ahmed")]
    )
    assert unfair.changed.value == 1.0 and unfair.pairs[0] == (0, "SELECTED", "REJECTED")
    with pytest.raises(GuerdonError, match="none of 1 texts holds any of the names"):
        counterfactual_names(lambda some: some, ["Nobody."], [("Anna", "Ahmed")])
    with pytest.raises(GuerdonError, match="judgements of 2 texts"):
        counterfactual_names(lambda some: [1], texts, [("Anna", "Ahmed")])
