"""The room of text rewards as users see it: by name, and inside each framework."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

import guerdon.rewards.text as text
from guerdon.core.adapters import to_openrlhf, to_swift, to_trl, to_verl
from guerdon.core.errors import GuerdonError
from guerdon.core.reward import is_groupwise
from guerdon.rewards.noise import NoisyReward

ASKED = "How many apples are 2 and 3?"
SAID = ["2 + 3 = 5. The answer is 5.", "The answer is 6."]
ACTION = json.dumps({"type": "click", "name": "add_to_cart"})
ACTED = ['{"rationale": "I want it.", "action": {"type": "click", "name": "add_to_cart"}}', "click it"]
REVIEW = {"status": "SELECTED", "evaluation_json": json.dumps({"overall_score": 80}), "job_description_skills": "sql"}
REVIEWED = ['{"score": 80, "status": "SELECTED"}', '{"score": 10, "status": "REJECTED"}']
TRANSLATED = ["<think>Der Hund.</think>Der Hund ist alt und sehr klein.", "The dog is old."]
CASES: dict[str, tuple[Any, list[str], dict[str, Any]]] = {
    "rule_verifier": (text.rule_verifier, SAID, {"solution": "5"}),
    "symbolic_verifier": (text.SymbolicVerifier(), SAID, {"solution": "5"}),
    "reasoning_patterns": (
        text.PhrasePatternReward(), ["<think>First, we need to add.</think>\n\\boxed{5}", "The answer is 5."], {}
    ),
    "noisy": (NoisyReward(text.rule_verifier, 0.0), SAID, {"solution": "5"}),
    "regularized_relevance": (
        text.regularized_relevance(), ["2 apples and 3 apples are 5 apples", "no"],
        {"qtype": "OPENENDED", "reference": "5"},
    ),
    "shop_r1": (text.shop_r1(), ACTED, {"solution": ACTION}),
    "resume_repaired": (text.resume_repaired(), REVIEWED, REVIEW),
    "lightweight_translation": (text.LightweightTranslationReward("de"), TRANSLATED, {"source": "The dog is old."}),
    "hybrid_multi_aspect": (
        text.hybrid_multi_aspect(), SAID, {"solution": "5", "task_type": "verifiable", "reference": None}
    ),
    "majority_vote": (text.MajorityVoteReward(), [SAID[0], SAID[0], SAID[1]], {}),
}  # fmt: skip


def test_every_name_is_there_and_none_is_loaded_before_it_is_asked_for() -> None:
    for name in text.__all__:
        found = getattr(text, name)
        assert found is getattr(import_module(found.__module__), name, found), name
    assert set(text.__all__) <= set(dir(text)) and "shop_r1" in text.__all__
    with pytest.raises(AttributeError):
        text.shop_r2  # noqa: B018
    code = "import guerdon.rewards.text as t, sys; t.rule_verifier; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", CASES)
def test_a_reward_goes_into_every_framework_and_says_the_same(name: str) -> None:
    reward, said, row = CASES[name]
    columns = {key: [value] * len(said) for key, value in row.items()}
    prompts = [[{"role": "user", "content": ASKED}]] * len(said)
    chat = [[{"role": "assistant", "content": one}] for one in said]
    trl = to_trl(reward, group_size=len(said))(prompts=prompts, completions=chat, **columns)
    assert trl[0] is not None and trl[0] > trl[-1], "the first is the better one"
    options: dict[str, Any] = {"on_failure": "raise"}
    history = [[*prompts[0], {"role": "assistant", "content": one}] for one in said]
    swift = to_swift(reward, **options)()(said, messages=history, **columns)
    assert swift == pytest.approx(trl)
    if is_groupwise(reward):
        for export in (to_verl, to_openrlhf):
            with pytest.raises(GuerdonError, match="is groupwise"):
                export(reward, **options)
        return
    verl = to_verl(reward, **options)
    told = [verl("made", one, row.get("solution"), {**row, "prompt": prompts[0]}) for one in said]
    assert [one["score"] if isinstance(one, dict) else one for one in told] == pytest.approx(trl)
    openrlhf = to_openrlhf(reward, columns_in_label=True, **options)
    paid = [openrlhf([ASKED + one], [ASKED], [json.dumps(row)])["rewards"].item() for one in said]
    assert paid == pytest.approx(trl, abs=1e-6)


def test_a_label_that_holds_no_columns_is_named() -> None:
    with pytest.raises(GuerdonError, match="label of row 0 is no JSON object: 'five'"):
        to_openrlhf(text.rule_verifier, columns_in_label=True, on_failure="raise")(["Q5"], ["Q"], ["five"])
