from __future__ import annotations

import pytest
import torch

from guerdon.objectives.dense_advantages import dense_advantages

GROUPS = torch.tensor([0, 0, 0, 1, 1, 1])


def end_rewards(values: torch.Tensor, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    rewards = torch.zeros(1, *mask.shape)
    rewards[0, torch.arange(len(lengths)), torch.tensor(lengths) - 1] = values
    return rewards, torch.zeros(1, *mask.shape, dtype=torch.long), mask


@pytest.mark.parametrize("baseline", ["segment", "group"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_reward_at_the_end_alone_is_grpo_whatever_the_lengths(baseline, scale):
    values = torch.tensor([1.0, 0.0, 0.5, 2.0, 2.5, -1.0])
    rewards, segments, mask = end_rewards(values, [3, 5, 2, 4, 1, 5])
    found = dense_advantages(rewards, segments, mask, GROUPS, baseline=baseline, scale=scale)
    grouped = values.view(2, 3)
    centred = (grouped - grouped.mean(dim=1, keepdim=True)).flatten()
    deviation = {
        "group": grouped.std(dim=1).repeat_interleave(3), "batch": values.std(), "none": torch.tensor(1 - 1e-4),
    }[scale]  # fmt: skip
    assert torch.allclose(found, (centred / (deviation + 1e-4))[:, None] * mask, atol=1e-6)


def test_two_parts_at_the_end_add_up_to_their_sum():
    values = torch.tensor([1.0, 0.0, 0.5, 2.0, 2.5, -1.0])
    rewards, segments, mask = end_rewards(values, [3, 5, 2, 4, 1, 5])
    halves = torch.cat([0.25 * rewards, 0.75 * rewards])
    assert torch.allclose(
        dense_advantages(halves, segments.expand(2, -1, -1), mask, GROUPS),
        dense_advantages(rewards, segments, mask, GROUPS), atol=1e-6,
    )  # fmt: skip


def test_tokens_of_a_bad_segment_are_told_from_those_of_a_good_one():
    # Two completions of two segments of two tokens: (good, bad) and (bad, good), equal in sum.
    rewards = torch.tensor([[[0, 1.0, 0, -1.0], [0, -1.0, 0, 1.0]]])
    segments = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]])
    mask = torch.ones(2, 4)
    found = dense_advantages(rewards, segments, mask, torch.tensor([0, 0]), scale="none")
    # What is left to earn: 0 of both at the start, -1 and +1 behind the first segment.
    assert torch.allclose(found, torch.tensor([[0, 0, -1.0, -1.0], [0, 0, 1.0, 1.0]]))
    holistic = dense_advantages(*end_rewards(torch.zeros(2), [4, 4]), torch.tensor([0, 0]), scale="none")
    assert not holistic.any()


def test_gamma_nought_pays_each_token_what_it_earned_alone():
    rewards = torch.tensor([[[0, 1.0, 0, -1.0], [0, -1.0, 0, 1.0]]])
    segments = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]])
    found = dense_advantages(rewards, segments, torch.ones(2, 4), torch.tensor([0, 0]), scale="none", gamma=0.0)
    assert found[0].tolist() == [0, 1, 0, -1]


def test_who_alone_reaches_a_segment_is_compared_with_nobody():
    rewards = torch.tensor([[[0.0, 0.2, 0.9], [0.0, 0.2, 0.0]]])
    segments = torch.tensor([[[0, 0, 1], [0, 0, 0]]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    found = dense_advantages(rewards, segments, mask, torch.tensor([0, 0]), scale="none")
    assert torch.allclose(found, torch.tensor([[0.45, 0.45, 0.0], [-0.45, -0.45, 0.0]]))
    level = dense_advantages(rewards, segments, mask, torch.tensor([0, 0]), scale="none", baseline="group")
    assert torch.allclose(level, torch.tensor([[0.45, 0.45, 0.25], [-0.45, -0.45, 0.0]]))


def test_a_part_without_a_score_moves_neither_its_row_nor_the_others():
    values = torch.tensor([1.0, 0.0, 50.0])
    rewards, segments, mask = end_rewards(values, [2, 3, 3])
    groups, valid = torch.tensor([0, 0, 0]), torch.tensor([[True, True, False]])
    found = dense_advantages(rewards, segments, mask, groups, valid=valid)
    alone = dense_advantages(rewards[:, :2], segments[:, :2], mask[:2], groups[:2])
    assert torch.allclose(found[:2], alone) and not found[2].any()
    assert not dense_advantages(rewards, segments, mask, groups, valid=torch.zeros(1, 3, dtype=torch.bool)).any()


def test_prompt_columns_and_empty_rows_are_passed_over():
    rewards = torch.tensor([[[0, 0, 1.0], [0, 0, 0.0]]])
    mask = torch.tensor([[0, 1, 1], [0, 0, 0]])
    found = dense_advantages(rewards, torch.zeros(1, 2, 3, dtype=torch.long), mask, torch.tensor([0, 0]))
    assert not found.any()


def test_mistakes_are_named():
    rewards, segments, mask = end_rewards(torch.zeros(2), [2, 2])
    groups = torch.tensor([0, 0])
    for wrong in (
        {"rewards": rewards[0]}, {"group_ids": groups.float()}, {"gamma": 2.0}, {"baseline": "critic"},
        {"scale": "token"}, {"valid": torch.ones(2)},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"must"):
            dense_advantages(**{"rewards": rewards, "segments": segments, "mask": mask, "group_ids": groups} | wrong)
