"""Certainty of the rationale: which tokens count, against a direct computation, and the two rewards as one."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from guerdon.core.errors import GuerdonError
from guerdon.core.reward import identity
from guerdon.models.sequence_log_probs import chat_ids
from guerdon.models.tiny_causal import tiny_causal
from guerdon.objectives.self_certainty import Form, token_certainty
from guerdon.rewards.policy_bound import bind_policy
from guerdon.rewards.text.rationale_certainty import RationaleCertainty, shop_r1_with_certainty
from guerdon.trainers.policy_link import PolicyLink

STOP = {"type": "terminate"}
ROWS = [json.dumps({"rationale": "I want the socks.", "action": STOP}), "no object", '{"rationale": "", "action": {}}']


@pytest.fixture(scope="module")
def policy() -> Any:
    return tiny_causal(["the shopper wants socks", *ROWS])


def bound(policy: Any, form: Form, **settings: Any) -> RationaleCertainty:
    reward = RationaleCertainty(form, **settings)
    assert bind_policy([reward], *policy) == 1
    return reward


@pytest.mark.parametrize("form", get_args(Form))
def test_the_rationales_tokens_and_no_others(policy: Any, form: Form) -> None:
    model, tokenizer = policy
    found = bound(policy, form)(["p"] * 3, ROWS)
    assert found[1:] == [0.0, 0.0], "no form, or nothing said"
    read = tokenizer(ROWS[0], add_special_tokens=False, return_offsets_mapping=True)
    start = ROWS[0].index("I want")
    inside = [a < start + len("I want the socks.") and b > start for a, b in read["offset_mapping"]]
    before = chat_ids("p", tokenizer)
    with torch.no_grad():
        logits = model(torch.tensor([before + read["input_ids"]])).logits[0]
    drawn = logits[len(before) - 1 : -1][torch.tensor(inside)]
    assert found[0] == pytest.approx(float(token_certainty(drawn, form=form).mean()), abs=1e-5) and found[0] > 0


def test_a_score_does_not_depend_on_its_batch(policy: Any) -> None:
    whole = bound(policy, "kl_up")(["a longer prompt of many words", "p", "p"], [ROWS[0], ROWS[1], ROWS[0]])
    alone = bound(policy, "kl_up", batch_size=1)(["p"], [ROWS[0]])
    assert whole[2] == pytest.approx(alone[0], abs=1e-5)


def test_the_tokens_that_were_sampled_count(policy: Any) -> None:
    ids = list(policy[1](ROWS[0], add_special_tokens=False)["input_ids"])
    reward = bound(policy, "scaled")
    closed = reward(["p"], [ROWS[0]], completion_ids=[[*ids, policy[1].eos_token_id]])
    assert closed == pytest.approx(reward(["p"], [ROWS[0]]), abs=1e-5)
    with pytest.raises(GuerdonError, match="one of each"):
        reward(["p"], [ROWS[0]], completion_ids=[])


def test_the_whole_reward(policy: Any) -> None:
    reward = shop_r1_with_certainty(alpha=0.01)
    with pytest.raises(GuerdonError, match="bind_policy"):
        reward(["p"], [ROWS[0]], solution=[STOP])
    bind_policy([reward], *policy)
    certainty = bound(policy, "kl_up")(["p"], [ROWS[0]])[0]
    found = reward(["p", "p"], ROWS[:2], solution=[STOP, STOP])
    assert found == pytest.approx([0.8 + 0.01 * certainty, 0.0], abs=1e-6)
    assert identity(reward) != identity(shop_r1_with_certainty("scaled", alpha=0.01))


def test_a_grpo_training_climbs_it(tmp_path: Any) -> None:
    model, tokenizer = tiny_causal(["the shopper wants socks", *ROWS], hidden=32, layers=1, vocab=400)
    reward = shop_r1_with_certainty()
    rows = [
        {"prompt": "page one", "solution": STOP},
        {"prompt": "page two", "solution": {"type": "click", "name": "x"}},
    ]
    arguments = GRPOConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=4, num_generations=2, report_to="none",
        max_completion_length=6, use_cpu=True, bf16=False, logging_steps=1, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = GRPOTrainer(
        model, reward_funcs=reward, args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer, callbacks=[PolicyLink(reward)],
    )  # fmt: skip
    trainer.train()
    logged = {key for row in trainer.state.log_history for key in row}
    assert {"shop_r1_with_certainty/action/type", "shop_r1_with_certainty/certainty"} <= logged


def test_bad_settings() -> None:
    with pytest.raises(GuerdonError, match="form"):
        RationaleCertainty("kl")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="above 0"):
        RationaleCertainty("kl_up", batch_size=0)
