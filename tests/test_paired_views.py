"""Pairs stay together, whatever shuffles them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.trainers.paired_views import PairedViews, PairedViewSampler, paired_rows


def rows(count: int, mark: str = "") -> list[dict]:
    return [{"prompt": f"{mark}{number}", "solution": str(number)} for number in range(count)]


def test_rows_alternate_and_fit_together() -> None:
    made = paired_rows(rows(3), rows(3, "again "), fits=lambda prompt: prompt != "again 1")
    assert [(row["pair"], row["view"], row["prompt"]) for row in made] == [
        (0, 0, "0"), (0, 1, "again 0"), (2, 0, "2"), (2, 1, "again 2"),
    ]  # fmt: skip


def test_rows_that_are_no_pairs() -> None:
    with pytest.raises(GuerdonError, match="not aligned"):
        paired_rows(rows(2), rows(3))
    with pytest.raises(GuerdonError, match="pair 0.*solutions"):
        paired_rows(rows(1), [{"prompt": "x", "solution": "5"}])
    with pytest.raises(GuerdonError, match="same columns"):
        paired_rows(rows(1), [{"prompt": "x"}])


def test_both_views_in_every_batch() -> None:
    sampler = PairedViewSampler(14, mini_repeat_count=3, batch_size=4, repeat_count=2, seed=5)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == 12 * 3 * 2
    size = 4 * 3
    batches = [drawn[start : start + size] for start in range(0, len(drawn), size)]
    for batch in batches:
        assert all(batch.count(index) == 3 and batch.count(index ^ 1) == 3 for index in batch)
    assert batches[0] == batches[1] and batches[0] != batches[2]
    assert list(sampler) != drawn, "another pass, another order"
    assert list(PairedViewSampler(14, mini_repeat_count=3, batch_size=4, repeat_count=2, seed=5)) == drawn


def test_batches_that_part_pairs_are_refused() -> None:
    with pytest.raises(GuerdonError, match="even"):
        PairedViewSampler(8, mini_repeat_count=2, batch_size=3)
    with pytest.raises(GuerdonError, match="whole pairs"):
        PairedViewSampler(7, mini_repeat_count=2, batch_size=2)
    with pytest.raises(GuerdonError, match="do not fill"):
        PairedViewSampler(2, mini_repeat_count=2, batch_size=4)


def test_the_mixin_reads_a_trainers_settings() -> None:
    made = paired_rows(rows(4), rows(4, "again "))
    columns = {name: [row[name] for row in made] for name in ("pair", "view")}

    class Trainer(PairedViews):
        num_generations, num_iterations, shuffle_dataset = 2, 1, False
        args = SimpleNamespace(generation_batch_size=8, steps_per_generation=1, seed=0)
        train_dataset = columns

    assert list(Trainer()._get_train_sampler()) == [index for index in range(8) for _ in range(2)]
    with pytest.raises(GuerdonError, match="rows 0 and 1"):
        Trainer()._get_train_sampler({"pair": [0, 1], "view": [0, 1]})


@pytest.mark.slow
def test_a_trl_run_keeps_both_views_in_one_call(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from guerdon.policies.reasoner import embedded_reasoner, problem_rows, split_problems
    from guerdon.rewards.text.agreement import CrossViewReward

    model, tokenizer = embedded_reasoner()
    problems = split_problems(8, seed=1, split="train")
    made = paired_rows(problem_rows(problems), problem_rows(problems, form="paraphrase"))
    reward, seen = CrossViewReward(), []

    def watched(prompts, completions, **columns):  # noqa: ANN001, ANN003, ANN202
        seen.append((reward(prompts, completions, **columns), len(reward.elected)))
        return seen[-1][0]

    class Trainer(PairedViews, GRPOTrainer):
        pass

    args = GRPOConfig(
        str(tmp_path), per_device_train_batch_size=8, num_generations=4, max_completion_length=8, max_steps=2,
        report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(model, watched, args=args, train_dataset=Dataset.from_list(made), processing_class=tokenizer).train()
    assert len(seen) == 2
    for found, labels in seen:
        assert labels == 2 and set(found) <= {0.0, 1.0}, "no row may be incomplete"
