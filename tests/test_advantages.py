from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guerdon.objectives.advantages import constant_terms, group_advantages

NAN = math.nan
R1, R2 = [0.1, 0.2, 0.3, 0.4], [0.9, 0.1, 0.1, 0.1]
ONE_GROUP = torch.zeros(4, dtype=torch.long)


def approx(values: list[float], abs: float = 1e-4) -> object:
    return pytest.approx(values, abs=abs)


def test_per_reward_z_and_sum_then_z_disagree_on_the_best_sample() -> None:
    rewards = torch.tensor([R1, R2])
    per_reward = group_advantages(rewards, ONE_GROUP, combine="per_reward_z")
    summed = group_advantages(rewards, ONE_GROUP, combine="sum_then_z")
    assert per_reward.tolist() == approx([0.1956, -0.5120, -0.0652, 0.3816])
    assert summed.tolist() == approx([1.6706, -0.9281, -0.5569, -0.1856])
    assert (int(per_reward.argmax()), int(summed.argmax())) == (3, 0)


def test_dividing_by_the_weights_is_a_flag() -> None:
    rewards = torch.tensor([R1, R2])
    mean = group_advantages(rewards, ONE_GROUP, weights=[1.0, 1.0])
    plain = group_advantages(rewards, ONE_GROUP, weights=[1.0, 1.0], normalise_weights=False)
    torch.testing.assert_close(plain, 2 * mean)
    weighted = group_advantages(rewards, ONE_GROUP, weights=[3.0, 1.0])
    alone = [group_advantages(torch.tensor(r), ONE_GROUP) for r in (R1, R2)]
    torch.testing.assert_close(weighted, (3 * alone[0] + alone[1]) / 4)


def test_three_groups_of_the_reference() -> None:
    # Prompts a b a c b a with rewards 1..6: groups (1, 3, 6), (2, 5), (4); means 3.333, 3.5, 4.
    rewards, groups = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), torch.tensor([7, 9, 7, 3, 9, 7])
    centred = [1 - 10 / 3, -1.5, 3 - 10 / 3, 0.0, 1.5, 6 - 10 / 3]
    std_a = math.sqrt(38 / 9)
    stds = [std_a, 1.5, std_a, 1.0, 1.5, std_a]
    grouped = group_advantages(rewards, groups)
    assert grouped.tolist() == approx([c / (s + 1e-4) for c, s in zip(centred, stds, strict=True)], 1e-6)
    assert grouped[3] == 0
    batch = group_advantages(rewards, groups, std="batch")
    assert batch.tolist() == approx([c / (math.sqrt(35 / 12) + 1e-4) for c in centred], 1e-6)
    sample = group_advantages(rewards, groups, unbiased=True, eps=1e-8)
    sample_stds = [math.sqrt(19 / 3), math.sqrt(4.5)]
    stds = [sample_stds[0], sample_stds[1], sample_stds[0], 1.0, sample_stds[1], sample_stds[0]]
    assert sample.tolist() == approx([c / s for c, s in zip(centred, stds, strict=True)], 1e-6)
    sample_batch = group_advantages(rewards, groups, std="batch", unbiased=True, eps=1e-8)
    assert sample_batch.tolist() == approx([c / math.sqrt(3.5) for c in centred], 1e-6)


def test_batch_deviation_is_each_rewards_own() -> None:
    rewards, groups = torch.tensor([[0.0, 1.0, 10.0, 13.0], [0.0, 200.0, 0.0, 600.0]]), torch.tensor([0, 0, 1, 1])
    together = group_advantages(rewards, groups, std="batch")
    alone = [group_advantages(row, groups, std="batch") for row in rewards]
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2)


@pytest.mark.parametrize("std", ["group", "batch"])
@pytest.mark.parametrize("value", [0.1, 0.7, -1e9, 1 / 3])
def test_equal_rewards_give_exactly_zero(std: str, value: float) -> None:
    rewards = torch.tensor([value] * 7 + [0.0, 1.0], dtype=torch.float64)
    groups = torch.tensor([0] * 7 + [1, 1])
    out = group_advantages(rewards, groups, std=std, eps=0.0)  # type: ignore[arg-type]
    assert out[:7].tolist() == [0.0] * 7
    assert out[8] > 0 > out[7]


def test_near_ties_are_blown_up_without_a_floor() -> None:
    size = 9
    rewards = torch.tensor([0.5] * (size - 1) + [0.5001], dtype=torch.float64)
    groups = torch.zeros(size, dtype=torch.long)
    assert group_advantages(rewards, groups, eps=0.0)[-1].item() == pytest.approx(math.sqrt(size - 1), abs=1e-3)
    floored = group_advantages(rewards, groups, eps=0.0, floor=0.1)
    assert floored[-1].item() == pytest.approx(1e-4 * (size - 1) / size / 0.1, rel=1e-6)
    # A group whose deviation is above the floor is not touched by it.
    wide = torch.tensor(R1)
    assert torch.equal(group_advantages(wide, ONE_GROUP, floor=0.05), group_advantages(wide, ONE_GROUP))


def test_clip_is_applied_after_the_combination() -> None:
    rewards = torch.tensor([[0.0] * 63 + [1.0], [1.0] * 63 + [0.0]])
    groups = torch.zeros(64, dtype=torch.long)
    assert group_advantages(rewards[0], groups)[-1] > 5
    assert group_advantages(rewards[0], groups, clip=5.0)[-1] == 5.0
    assert group_advantages(rewards[1], groups, clip=5.0)[-1] == -5.0
    assert group_advantages(rewards, groups, clip=5.0)[-1].item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("std", ["group", "batch"])
@pytest.mark.parametrize("mode", ["grpo", "rwr", "sft", "dpo"])
@pytest.mark.parametrize("marked", ["mask", "nan"])
def test_invalid_samples_leave_no_trace(std: str, mode: str, marked: str) -> None:
    groups = torch.tensor([0, 0, 1, 0, 1, 1, 0])
    valid = torch.tensor([True, False, True, True, True, False, True])
    rewards = torch.tensor([0.3, 1e9, 0.1, 0.9, 0.4, -1e9, 0.5])
    choice = {"std": std, "mode": mode}
    expected = group_advantages(rewards[valid], groups[valid], **choice)  # type: ignore[arg-type]
    if marked == "nan":
        out = group_advantages(torch.where(valid, rewards, NAN), groups, **choice)  # type: ignore[arg-type]
    else:
        out = group_advantages(rewards, groups, valid=valid, **choice)  # type: ignore[arg-type]
    assert torch.equal(out[valid], expected)
    assert out[~valid].tolist() == [0.0, 0.0]


def test_invalid_samples_may_hold_infinities_but_valid_ones_may_not() -> None:
    rewards = torch.tensor([0.1, math.inf, 0.3, -math.inf])
    out = group_advantages(rewards, ONE_GROUP, valid=torch.tensor([True, False, True, False]))
    assert out.tolist() == approx([-1.0, 0.0, 1.0, 0.0], 2e-3)
    with pytest.raises(ValueError, match="valid reward is infinite"):
        group_advantages(rewards, ONE_GROUP)


@pytest.mark.parametrize("std", ["group", "batch"])
def test_nothing_valid_is_all_zero(std: str) -> None:
    out = group_advantages(torch.full((2, 4), NAN), ONE_GROUP, std=std)  # type: ignore[arg-type]
    assert out.tolist() == [0.0] * 4


def test_a_missing_reward_counts_as_the_groups_mean() -> None:
    rewards = torch.tensor([R1, [0.9, NAN, 0.1, 0.2]])
    out = group_advantages(rewards, ONE_GROUP)
    first = group_advantages(rewards[0], ONE_GROUP)
    kept = torch.tensor([True, False, True, True])
    second = torch.zeros(4)
    second[kept] = group_advantages(rewards[1][kept], ONE_GROUP[kept])
    torch.testing.assert_close(out, (first + second) / 2)
    assert out.sum().item() == pytest.approx(0.0, abs=1e-6)


def test_a_sum_needs_every_weighted_reward() -> None:
    rewards = torch.tensor([R1, [0.9, NAN, 0.1, 0.2]])
    kept = torch.tensor([True, False, True, True])
    out = group_advantages(rewards, ONE_GROUP, combine="sum_then_z")
    assert out[1] == 0
    torch.testing.assert_close(out[kept], group_advantages(rewards.sum(0)[kept], ONE_GROUP[kept]))
    logged_only = group_advantages(rewards, ONE_GROUP, combine="sum_then_z", weights=[1.0, 0.0])
    assert torch.equal(logged_only, group_advantages(torch.tensor(R1), ONE_GROUP))


def test_modes() -> None:
    rewards, groups = torch.tensor([0.2, 0.9, 0.9, 0.1, 0.1, 0.5]), torch.tensor([0, 0, 0, 0, 0, 1])
    rwr = group_advantages(rewards, groups, mode="rwr")
    sft = group_advantages(rewards, groups, mode="sft")
    dpo = group_advantages(rewards, groups, mode="dpo")
    assert torch.equal(rwr, rewards)
    assert sft.tolist() == [0, 1, 1, 0, 0, 1]
    assert dpo.tolist() == [0, 1, 0, -1, 0, 0]


def test_dpo_when_all_are_equal() -> None:
    groups = torch.tensor([5, 2, 5, 2, 5, 5, 8])
    out = group_advantages(torch.full((7,), 0.3), groups, mode="dpo")
    # In each group the second member is taken as best, the first as worst; a group of one has no pair.
    assert out.tolist() == [-1, -1, 1, 1, 0, 0, 0]


def test_modes_of_several_rewards_are_averaged_or_applied_to_the_sum() -> None:
    rewards = torch.tensor([R1, R2])
    assert group_advantages(rewards, ONE_GROUP, mode="sft").tolist() == [0.5, 0.0, 0.0, 0.5]
    assert group_advantages(rewards, ONE_GROUP, mode="sft", combine="sum_then_z").tolist() == [1, 0, 0, 0]
    assert group_advantages(rewards, ONE_GROUP, mode="rwr", combine="sum_then_z").tolist() == approx(
        [1.0, 0.3, 0.4, 0.5]
    )


def test_no_groups_is_the_global_z_score() -> None:
    rewards = torch.tensor([1.0, 2.0, 3.0, 6.0])
    expected = (rewards - 3) / (rewards.std(unbiased=False) + 1e-4)
    torch.testing.assert_close(group_advantages(rewards, ONE_GROUP), expected)
    assert group_advantages(rewards, torch.arange(4)).tolist() == [0.0] * 4


def test_output_is_float32_and_detached() -> None:
    rewards = torch.tensor(R1, dtype=torch.float64, requires_grad=True)
    out = group_advantages(rewards, ONE_GROUP)
    assert out.dtype == torch.float32 and not out.requires_grad
    assert group_advantages(torch.empty(0), torch.empty(0, dtype=torch.long)).shape == (0,)


def test_constant_terms() -> None:
    groups = torch.tensor([0, 0, 1, 1, 2])
    rewards = torch.tensor(
        [
            [0.1, 0.1, 0.9, 0.9, 0.4],  # depends on the prompt only
            [0.1, 0.2, 0.9, 0.9, 0.4],  # varies inside the first group
            [NAN, 0.2, 0.9, NAN, 0.4],  # never two scores to compare
            [0.0, 0.0, 0.0, 0.0, 0.0],
        ]
    )
    assert constant_terms(rewards, groups) == [0, 2, 3]
    assert constant_terms(rewards, groups, torch.tensor([True, False, True, True, True])) == [0, 1, 2, 3]
    assert constant_terms(rewards[1], groups) == []


def test_a_constant_term_cancels() -> None:
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    signal = torch.tensor([0.1, 0.5, 0.3, 0.9, 0.2, 0.4], dtype=torch.float64)
    constant = torch.tensor([3.0, 3.0, 3.0, -8.0, -8.0, -8.0], dtype=torch.float64)
    both = torch.stack([signal, constant])
    assert constant_terms(both, groups) == [1]
    alone = group_advantages(signal, groups)
    torch.testing.assert_close(group_advantages(both, groups, combine="sum_then_z"), alone)
    torch.testing.assert_close(group_advantages(both, groups, normalise_weights=False), alone)
    torch.testing.assert_close(group_advantages(both, groups), alone / 2)


batches = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-40, 40), min_size=2 * n, max_size=2 * n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
        st.permutations(range(n)),
    )
)
choices = st.fixed_dictionaries(
    {
        "std": st.sampled_from(["group", "batch"]),
        "combine": st.sampled_from(["per_reward_z", "sum_then_z"]),
        "unbiased": st.booleans(),
        "floor": st.sampled_from([0.0, 0.5]),
    }
)


def unpack(batch: tuple[list[int], list[int], list[bool], list[int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rewards, groups, valid, order = batch
    scores = torch.tensor(rewards, dtype=torch.float64).reshape(2, -1) / 8  # exact in binary, so that ties are ties
    return scores, torch.tensor(groups), torch.tensor(valid), torch.tensor(order)


@settings(max_examples=100, deadline=None)
@given(batch=batches, choice=choices)
def test_group_sums_are_zero_and_invalid_are_zero(batch, choice) -> None:  # type: ignore[no-untyped-def]
    rewards, groups, valid, _ = unpack(batch)
    out = group_advantages(rewards, groups, valid=valid, **choice).double()
    assert out[~valid].abs().sum() == 0
    sums = torch.zeros(4, dtype=torch.float64).index_add(0, groups, out)
    assert sums.abs().max() < 1e-4
    assert torch.isfinite(out).all()


@settings(max_examples=100, deadline=None)
@given(batch=batches, choice=choices)
def test_order_of_the_samples_does_not_matter(batch, choice) -> None:  # type: ignore[no-untyped-def]
    rewards, groups, valid, order = unpack(batch)
    out = group_advantages(rewards, groups, valid=valid, **choice)
    shuffled = group_advantages(rewards[:, order], groups[order], valid=valid[order], **choice)
    torch.testing.assert_close(shuffled, out[order])


@settings(max_examples=100, deadline=None)
@given(batch=batches, choice=choices, shift=st.lists(st.integers(-9, 9), min_size=4, max_size=4))
def test_a_constant_for_a_group_changes_nothing(batch, choice, shift) -> None:  # type: ignore[no-untyped-def]
    rewards, groups, valid, _ = unpack(batch)
    choice = choice | {"std": "group"}
    shifted = rewards + torch.tensor(shift, dtype=torch.float64)[groups]
    torch.testing.assert_close(
        group_advantages(shifted, groups, valid=valid, **choice),
        group_advantages(rewards, groups, valid=valid, **choice),
    )


@settings(max_examples=50, deadline=None)
@given(batch=batches, std=st.sampled_from(["group", "batch"]), scale=st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_scale_of_a_reward_does_not_matter_without_eps(batch, std, scale) -> None:  # type: ignore[no-untyped-def]
    rewards, groups, valid, _ = unpack(batch)
    factors = torch.tensor([[scale], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(
        group_advantages(rewards * factors, groups, valid=valid, std=std, eps=0.0),
        group_advantages(rewards, groups, valid=valid, std=std, eps=0.0),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"group_ids": torch.zeros(3, dtype=torch.long)}, r"group_ids must be \[4\].*got \[3\]"),
        ({"group_ids": torch.zeros(4)}, "group_ids must be integers"),
        ({"rewards": torch.zeros(1, 1, 4)}, r"rewards must be \[N\] or \[K, N\]"),
        ({"valid": torch.ones(2, dtype=torch.bool)}, r"valid must be \[4\]"),
        ({"weights": [1.0, 2.0]}, r"weights must be \[1\]"),
        ({"rewards": torch.zeros(2, 4), "weights": [1.0, -1.0]}, "set normalise_weights=False"),
        ({"std": "epoch"}, "'group' or 'batch'"),
        ({"combine": "mean"}, "'per_reward_z' or 'sum_then_z'"),
        ({"mode": "ppo"}, "'grpo', 'rwr', 'sft' or 'dpo'"),
        ({"eps": -1.0}, "eps and floor must be >= 0"),
        ({"clip": 0.0}, "clip must be > 0"),
    ],
)
def test_errors(arguments: dict[str, object], message: str) -> None:
    call: dict[str, object] = {"rewards": torch.tensor(R1), "group_ids": ONE_GROUP} | arguments
    rewards, group_ids = call.pop("rewards"), call.pop("group_ids")
    with pytest.raises(ValueError, match=message):
        group_advantages(rewards, group_ids, **call)  # type: ignore[arg-type]
