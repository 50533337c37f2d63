"""ReMoDetect's ordered loss: the card's numbers, the two-class case, and what its weights do."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.objectives.ordered_preference import ORDER, WEIGHTS, ordered_preference
from guerdon.objectives.preference import bradley_terry

reward = st.floats(-8, 8, width=32)


def test_equal_rewards_of_zero() -> None:
    assert ordered_preference(torch.zeros(1, 3)).item() == pytest.approx(1.7 / 3 * math.log(2), abs=1e-7)
    assert 1.7 / 3 * math.log(2) == pytest.approx(0.392783, abs=1e-6)


def test_the_published_form_term_by_term() -> None:
    """a = 1, b = 0, c = -1: the penalty stands inside each weight and the sum is divided by three."""
    rows = torch.tensor([[1.0, 0.0, -1.0]])
    alone = [ordered_preference(rows, pairs=[pair], weights=[1.0]).item() for pair in ORDER]
    assert alone == pytest.approx([0.318262, 0.136928, 0.318262], abs=1e-6)
    assert ordered_preference(rows).item() == pytest.approx(0.119904, abs=1e-6)
    assert ordered_preference(rows).item() == pytest.approx(
        sum(weight * one for weight, one in zip(WEIGHTS, alone)) / 3, abs=1e-6
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(reward, reward), min_size=1, max_size=6))
def test_two_classes_are_bradley_terry(rows: list[tuple[float, float]]) -> None:
    table = torch.tensor(rows)
    found = ordered_preference(table, pairs=[(0, 1)], weights=[1.0], logit_l2=0.0, reduce="none")
    assert torch.allclose(found, bradley_terry(table[:, 0], table[:, 1], reduce="none"), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.tuples(reward, reward, reward), st.floats(-3, 3))
def test_only_the_penalty_sees_a_constant(row: tuple[float, float, float], constant: float) -> None:
    table = torch.tensor([row], dtype=torch.float64)
    plain = ordered_preference(table, logit_l2=0.0)
    assert torch.allclose(plain, ordered_preference(table + constant, logit_l2=0.0), atol=1e-9)
    assert ordered_preference(table) >= plain


def test_the_gradient_orders_the_classes() -> None:
    rows = torch.zeros(4, 3, requires_grad=True)
    ordered_preference(rows).backward()
    pushed = -rows.grad  # type: ignore[operator]
    assert bool((pushed[:, 0] > pushed[:, 1]).all()) and bool((pushed[:, 1] > pushed[:, 2]).all())
    assert pushed[:, 1].abs().max() < 1e-7  # equal weights to both neighbours: the middle stays


def test_a_longer_chain_and_rows_apart() -> None:
    table = torch.tensor([[2.0, 1.0, 0.0, -1.0], [-1.0, 0.0, 1.0, 2.0]])
    chain = [(0, 1), (1, 2), (2, 3)]
    each = ordered_preference(table, pairs=chain, weights=[1, 1, 1], reduce="none")
    assert each[0] < each[1] and each.mean() == pytest.approx(
        ordered_preference(table, pairs=chain, weights=[1, 1, 1]).item()
    )


@pytest.mark.parametrize(
    "rows, options, said",
    [
        (torch.zeros(3), {}, r"\[N, K\]"),
        (torch.zeros(0, 3), {}, "empty"),
        (torch.zeros(1, 2), {}, "does not name two of the 2 classes"),
        (torch.zeros(1, 3), {"pairs": [(1, 1)], "weights": [1]}, "does not name two"),
        (torch.zeros(1, 3), {"weights": [1, 1]}, "3 pairs need as many weights"),
        (torch.zeros(1, 3), {"weights": [0, 0, 0]}, "not all zero"),
        (torch.zeros(1, 3), {"logit_l2": -1}, "logit_l2"),
    ],
)
def test_refusals(rows: torch.Tensor, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ordered_preference(rows, **options)
