from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.reward import reward
from guerdon.core.segments import SpanScore
from guerdon.models.tiny_causal import tiny_causal
from guerdon.rewards.dense import CompositeAspects, DenseReward
from guerdon.rewards.text.segment import PrefixDifference
from guerdon.trainers.dense_grpo import DenseGRPO

PROMPTS = ["Say it.", "What is it?", "How many?", "Why so?"]
CORPUS = [*PROMPTS, "one two. three four.", "five six\nseven"]


@reward(name="vowels", on_failure="raise")
def vowels(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [sum(text.count(one) for one in "aeiou") / 10 for text in completions]


class AtTheEnd(DenseReward):
    """`vowels` as one span over the whole text."""

    __name__ = "vowels"

    def dense(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        return [[SpanScore(0, len(text), value)] for text, value in zip(completions, vowels(prompts, completions))]


class Halves(DenseReward):
    """1 + row for the first half of a text and as much less for the second; the rows in ``fails`` fail."""

    __name__ = "halves"

    def __init__(self, on_failure: Any = "drop_sample", fails: tuple[int, ...] = ()) -> None:
        self.on_failure, self.fails = on_failure, fails

    def dense(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        found: list[Any] = []
        for row, text in enumerate(completions):
            middle = len(text) // 2
            spans = [SpanScore(0, middle, 1.0 + row), SpanScore(middle, len(text), -1.0 - row)] if middle else []
            found.append(Failed("as told") if row in self.fails else spans)
        return found


def trainer(kind: type, rewards: Any, folder: Any, **more: Any) -> Any:
    settings = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 12, **more}
    own = {key: settings.pop(key) for key in ("baseline", "gamma") if key in settings}
    model, tokenizer = tiny_causal(CORPUS, hidden=32, layers=1, vocab=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(
            model,
            rewards,
            GRPOConfig(
                output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", seed=3, disable_tqdm=True,
                logging_steps=1, save_strategy="no", max_steps=2, gradient_checkpointing=False, learning_rate=1e-3,
                # A model that knows nothing seldom stops: completions of several lengths.
                generation_kwargs={"sequence_bias": {(tokenizer.eos_token_id,): 3.5}},
                **settings,
            ),
            Dataset.from_list([{"prompt": one} for one in PROMPTS]),
            processing_class=tokenizer,
            **own,
        )  # fmt: skip


def scored(made: Any) -> dict[str, Any]:
    made.model.train()
    torch.manual_seed(0)
    made.current_gradient_accumulation_steps = 1
    rows = [{"prompt": one} for one in PROMPTS[:2] for _ in range(4)]
    return made._generate_and_score_completions(rows)


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_reward_at_the_end_gives_the_advantages_and_the_loss_of_plain_grpo(tmp_path, loss, scale):
    losses = []
    for kind, paid in ((GRPOTrainer, vowels), (DenseGRPO, AtTheEnd()), (DenseGRPO, vowels)):
        made = trainer(kind, paid, tmp_path, loss_type=loss, scale_rewards=scale)
        batch = scored(made)
        mask = batch["completion_mask"]
        assert len(set(mask.sum(dim=1).tolist())) > 1, "completions of one length show nothing"
        advantages = batch["advantages"] if batch["advantages"].ndim == 2 else batch["advantages"][:, None] * mask
        value = made._compute_loss(made.model, batch)
        value.backward()
        gradient = torch.cat([one.grad.flatten() for one in made.model.parameters() if one.grad is not None])
        losses.append((advantages, value.detach(), gradient, mask))
    for advantages, value, gradient, mask in losses[1:]:
        assert torch.equal(mask, losses[0][3])
        assert torch.allclose(advantages, losses[0][0], atol=1e-5)
        assert torch.allclose(value, losses[0][1], atol=1e-5)
        assert torch.allclose(gradient, losses[0][2], atol=1e-5)
    assert losses[0][2].abs().max() > 1e-4


def test_training_with_a_terminal_reward_reaches_the_weights_of_plain_grpo(tmp_path):
    ends = []
    for kind, paid in ((GRPOTrainer, vowels), (DenseGRPO, AtTheEnd())):
        made = trainer(kind, paid, tmp_path)
        made.train()
        ends.append(torch.cat([one.detach().flatten() for one in made.model.parameters()]))
        logs = [row for row in made.state.log_history if "reward" in row]
        assert logs and "rewards/vowels/mean" in logs[0]
    assert torch.allclose(ends[0], ends[1], atol=1e-5)


def test_tokens_of_the_two_halves_get_advantages_of_their_own(tmp_path):
    made = trainer(DenseGRPO, Halves(), tmp_path, scale_rewards="none", baseline="group")
    batch = scored(made)
    found, mask = batch["advantages"], batch["completion_mask"].bool()
    texts = made.processing_class.batch_decode(batch["completion_ids"], skip_special_tokens=True)
    assert max(map(len, texts)) > 1
    for row, text in enumerate(texts):
        if len(text) < 2:
            continue
        own = found[row][mask[row]]
        # What is left to earn: 0 up to the end of the first half, then the second's; less the group's mean total, 0.
        assert own[0] == 0 and own[-1] == -1 - row and sorted(set(own.tolist())) == [-1 - row, 0]
        assert not found[row][~mask[row]].any()


def test_an_aspect_is_a_part_of_its_own_and_ordinary_rewards_go_beside(tmp_path):
    both = CompositeAspects({"halves": (Halves(), 1.0), "vowels": (vowels, 2.0)})
    apart = scored(trainer(DenseGRPO, [Halves(), vowels], tmp_path, reward_weights=[1.0, 2.0]))
    assert torch.allclose(scored(trainer(DenseGRPO, both, tmp_path))["advantages"], apart["advantages"], atol=1e-6)


def test_failures_follow_the_policy(tmp_path):
    sample = scored(trainer(DenseGRPO, Halves("drop_sample", (1,)), tmp_path))["advantages"]
    group = scored(trainer(DenseGRPO, Halves("drop_group", (1,)), tmp_path))["advantages"]
    assert not sample[1].any() and sample[:4].any() and sample[4:].any()
    assert not group[:4].any() and torch.allclose(group[4:], sample[4:])
    number = trainer(DenseGRPO, Halves(-3.0, (1,)), tmp_path, scale_rewards="none", baseline="group")
    batch = scored(number)
    assert batch["advantages"][1][batch["completion_mask"][1].bool()].max() < -2
    with pytest.raises(GuerdonError, match="failed on row 1"):
        scored(trainer(DenseGRPO, Halves("raise", (1,)), tmp_path))


def test_prefix_differences_of_a_reward_move_credit_and_not_the_total(tmp_path):
    logs = []
    for paid in (vowels, PrefixDifference(vowels, "regex:[ ]")):
        made = trainer(DenseGRPO, paid, tmp_path)
        scored(made)
        logs.append(made._metrics["train"]["reward"][0])
    assert logs[0] == pytest.approx(logs[1], abs=1e-5)


def test_settings_that_know_no_tokens_are_refused(tmp_path):
    for wrong in ({"importance_sampling_level": "sequence"}, {"multi_objective_aggregation": "normalize_then_sum"}):
        with pytest.raises(GuerdonError, match="dense rewards need"):
            trainer(DenseGRPO, Halves(), tmp_path, **wrong)
