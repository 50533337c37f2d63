"""The self-aligned reward: what it pays, what it refuses, and how it reaches a policy in training."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import identity
from guerdon.core.scorer import Scorer
from guerdon.models.sequence_log_probs import blank_question, chat_ids, sequence_log_probs
from guerdon.models.tiny_causal import tiny_causal
from guerdon.rewards.compose import weighted_sum
from guerdon.rewards.noise import NoisyReward
from guerdon.rewards.policy_bound import bind_policy, policy_bound
from guerdon.rewards.text.final_answer import rule_verifier
from guerdon.rewards.text.self_aligned import SelfAlignedReward, SelfAlignment
from guerdon.trainers.policy_link import PolicyLink

QUESTIONS = ["How many pens are left?", "How many cards are left?"]
PROMPTS = [[{"role": "user", "content": one}] for one in QUESTIONS]
SAID = ["The answer is 12.", "In all 3 * 4 = 12 pens, so the answer is 12."]


@pytest.fixture(scope="module")
def policy():
    return tiny_causal([*QUESTIONS, *SAID], hidden=32, layers=2, vocab=400)


@pytest.fixture
def alignment(policy) -> SelfAlignment:
    reward = SelfAlignment()
    reward.bind_policy(*policy)
    return reward


def test_by_hand(policy, alignment: SelfAlignment) -> None:
    model, tokenizer = policy
    ids = tokenizer(SAID[0])["input_ids"]
    asked, _ = sequence_log_probs(model, [chat_ids(PROMPTS[0], tokenizer)], [ids])
    alone, _ = sequence_log_probs(model, [blank_question(PROMPTS[0], tokenizer)], [ids])
    ratio = math.exp(-float(asked.mean()) + float(alone.mean()))
    (value,) = alignment(PROMPTS[:1], SAID[:1])
    assert value == pytest.approx(1 - ratio, abs=1e-5)
    (told,) = alignment.explain(PROMPTS[:1], SAID[:1])
    assert told.value == pytest.approx(1 - told.with_question / told.without_question, abs=1e-5)
    assert told.ids == ids and 1 - math.exp(-sum(told.gains) / len(ids)) == pytest.approx(value, abs=1e-5)


def test_a_blank_question_explains_nothing(alignment: SelfAlignment) -> None:
    blank = [[{"role": "user", "content": ""}]]
    assert alignment(blank, SAID[:1]) == [0.0] and alignment([""], SAID[:1]) == [0.0]


def test_a_score_belongs_to_its_sample(alignment: SelfAlignment) -> None:
    together = alignment(PROMPTS, SAID)
    for row in range(2):
        assert alignment(PROMPTS[row : row + 1], SAID[row : row + 1]) == pytest.approx(
            together[row : row + 1], abs=1e-5
        )
    assert together[0] != together[1]


def test_empty_answers_get_nothing(alignment: SelfAlignment) -> None:
    assert alignment(PROMPTS, ["", ""]) == [0.0, 0.0]
    assert alignment(PROMPTS, ["", SAID[0]])[0] == 0.0
    assert alignment.explain(PROMPTS, ["", ""])[0].gains == []


def test_token_ids_of_the_trainer_come_first(policy, alignment: SelfAlignment) -> None:
    _, tokenizer = policy
    ids = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in SAID]
    assert alignment(PROMPTS, SAID, completion_ids=ids) != alignment(PROMPTS, SAID)
    assert alignment(PROMPTS, ["?", "?"], completion_ids=ids) == alignment(PROMPTS, SAID, completion_ids=ids)
    with pytest.raises(GuerdonError, match="1 lists of token ids"):
        alignment(PROMPTS, SAID, completion_ids=ids[:1])


def test_without_a_policy_it_says_what_to_do() -> None:
    with pytest.raises(GuerdonError, match="PolicyLink"):
        SelfAlignment()(PROMPTS, SAID)


def test_the_verifier_comes_first(policy) -> None:
    logged: dict[str, float] = {}
    found = {}
    for gate in (None, "correct", "incorrect"):
        whole = SelfAlignedReward(gate=gate, alpha=0.5)
        bind_policy(whole, *policy)
        found[gate] = whole(PROMPTS, SAID, solution=["12", "9"], log_metric=logged.__setitem__)
    own = SelfAlignment()
    own.bind_policy(*policy)
    part = own(PROMPTS, SAID)
    assert found[None] == pytest.approx([1 + 0.5 * part[0], 0.5 * part[1]])
    assert found["correct"] == pytest.approx([1 + 0.5 * part[0], 0])
    assert found["incorrect"] == pytest.approx([1, 0.5 * part[1]])
    assert logged["self_aligned/verifier"] == 0.5 and Scorer(whole).range == (-0.5, 1.5)


def test_alpha_may_follow_the_step(policy) -> None:
    whole = SelfAlignedReward(schedule=[(0, 1.0), (10, 0.0)])
    bind_policy(whole, *policy)
    late = whole(PROMPTS, SAID, solution=["12", "9"], trainer_state=SimpleNamespace(global_step=10))
    assert late == [1.0, 0.0]


def test_a_group_of_two_without_division_by_the_deviation() -> None:
    rewards = torch.tensor([1 + 0.2 * 0.75, 0 + 0.2 * 0.5])
    assert (rewards - rewards.mean()).tolist() == pytest.approx([0.525, -0.525])


def test_rewards_are_found_inside_of_others(policy) -> None:
    inner = SelfAlignedReward()
    outer = weighted_sum([(NoisyReward(inner, 0.0), 1.0), (inner, 1.0)], name="both")
    assert policy_bound(outer, Scorer(outer)) == [inner.parts["self_alignment"]]
    assert bind_policy(rule_verifier, *policy) == 0
    with pytest.raises(GuerdonError, match="nothing to link"):
        PolicyLink(rule_verifier)


def test_identity_knows_the_settings_and_not_the_weights(policy) -> None:
    reward = SelfAlignedReward()
    before = identity(reward)
    bind_policy(reward, *policy)
    assert identity(reward) == before
    assert len({identity(one) for one in (reward, SelfAlignedReward(alpha=0.1), SelfAlignedReward(blank="bos"))}) == 3


@pytest.mark.parametrize(
    "options", [{"alpha": -1}, {"gate": "right"}, {"variant": "ratio"}, {"blank": "none"}, {"clip": (1, -1)}]
)
def test_bad_settings(options: dict) -> None:
    with pytest.raises(GuerdonError):
        SelfAlignedReward(**options)


def test_a_grpo_training_hands_over_its_policy(tmp_path) -> None:
    model, tokenizer = tiny_causal([*QUESTIONS, *SAID], hidden=32, layers=1, vocab=400)
    reward = SelfAlignedReward()
    rows = [{"prompt": prompt, "solution": "12"} for prompt in PROMPTS]
    arguments = GRPOConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=4, num_generations=2, report_to="none",
        max_completion_length=6, temperature=0.9, scale_rewards="none", loss_type="dr_grpo", use_cpu=True,
        bf16=False, logging_steps=1, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = GRPOTrainer(
        model, reward_funcs=reward, args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer, callbacks=[PolicyLink(reward)],
    )  # fmt: skip
    trainer.train()
    bound = reward.parts["self_alignment"]._policy
    assert bound is not None and bound[0] is trainer.model and bound[2] == 0.9
    logged = {key for row in trainer.state.log_history for key in row}
    assert {"self_aligned/verifier", "self_aligned/self_alignment"} <= logged
