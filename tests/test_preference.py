"""The Bradley-Terry primitive, with every option that a paper adds to it, and crossed negatives."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from guerdon.objectives.preference import bradley_terry, crossed_negatives

ONE, ZERO = torch.ones(1), torch.zeros(1)
LN2 = math.log(2)


def scores(seed: int = 0, rows: int = 7) -> tuple[Tensor, Tensor]:
    first, second = torch.randn(2, rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return first, second


numbers = st.floats(-20, 20)
rewards = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64).T
)


# The cards' unit facts


@pytest.mark.parametrize("gap, loss", [(0, 0.693147), (1, 0.313262), (2, 0.126928), (-1, 1.313262)])
def test_closed_form(gap: float, loss: float) -> None:
    assert bradley_terry(ZERO + gap, ZERO).item() == pytest.approx(loss, abs=1e-6)


def test_margin_and_smoothing_of_the_card() -> None:
    assert bradley_terry(ONE, ZERO).item() == pytest.approx(0.31326, abs=1e-5)
    assert bradley_terry(ONE, ZERO, margin=0.5).item() == pytest.approx(0.47408, abs=1e-5)
    assert bradley_terry(ONE, ZERO, label_smoothing=0.2).item() == pytest.approx(0.51326, abs=1e-5)


@pytest.mark.parametrize("smoothing, entropy, best", [(0.2, 0.50040, 1.386), (0.1, 0.32508, 2.197)])
def test_the_best_smoothed_gap_costs_the_labels_entropy(smoothing: float, entropy: float, best: float) -> None:
    gap = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.LBFGS([gap], max_iter=100, tolerance_grad=1e-9)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = bradley_terry(gap, ZERO, label_smoothing=smoothing)
        loss.backward()
        return loss

    optimiser.step(closure)
    assert gap.item() == pytest.approx(best, abs=2e-3)
    assert closure().item() == pytest.approx(entropy, abs=1e-5)


def test_centring_of_the_card() -> None:
    three = torch.tensor([3.0])
    assert (bradley_terry(three, ONE, centre=0.01) - bradley_terry(three, ONE)).item() == pytest.approx(0.16, abs=1e-6)


def test_length_normalisation_of_the_card() -> None:
    nine = torch.tensor([9])
    found = bradley_terry(ONE * 2, ZERO, length_norm="log", chosen_length=nine, rejected_length=nine)
    assert found.item() == pytest.approx(math.log1p(math.exp(-0.868589)), abs=1e-6)


def test_the_floor_saturates_and_loses_its_gradient() -> None:
    def at(gap: float) -> tuple[float, float]:
        chosen = torch.tensor([gap], dtype=torch.float64, requires_grad=True)
        loss = bradley_terry(chosen, torch.zeros(1, dtype=torch.float64), floor=1e-5)
        return loss.item(), -torch.autograd.grad(loss, chosen)[0].item()

    assert at(-1000)[0] == pytest.approx(11.51, abs=5e-3) and at(-1000)[1] == 0
    assert at(-11.51)[1] == pytest.approx(0.5, abs=0.01)
    assert at(-15)[1] == pytest.approx(0.03, abs=5e-3)
    assert at(-1)[0] == pytest.approx(1.313262, abs=1e-4)


# Properties


@settings(deadline=None)
@given(rewards, numbers)
def test_plain_loss_ignores_a_shift(pair: Tensor, shift: float) -> None:
    assert_close(bradley_terry(*pair), bradley_terry(*(pair + shift)), rtol=1e-9, atol=1e-9)


def test_centring_and_lengths_see_a_shift() -> None:
    chosen, rejected = scores()
    lengths = {"chosen_length": torch.arange(1, 8), "rejected_length": torch.arange(7, 0, -1)}
    for options in ({"centre": 0.1}, {"length_norm": "log", **lengths}):
        before, after = bradley_terry(chosen, rejected, **options), bradley_terry(chosen + 1, rejected + 1, **options)
        assert abs(before - after) > 1e-3


@settings(deadline=None)
@given(rewards, st.floats(0, 1), numbers)
def test_antisymmetry(pair: Tensor, smoothing: float, margin: float) -> None:
    """Swapped rewards with the swapped label and the negated margin are the same pair."""
    same = bradley_terry(pair[1], pair[0], label_smoothing=1 - smoothing, margin=-margin)
    assert_close(bradley_terry(*pair, label_smoothing=smoothing, margin=margin), same, rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(rewards)
def test_both_orders_differ_by_the_gap(pair: Tensor) -> None:
    """-log sigmoid(-d) = -log sigmoid(d) + d, and each is positive."""
    ahead, behind = bradley_terry(*pair, reduce="none"), bradley_terry(*pair.flip(0), reduce="none")
    assert_close(behind - ahead, pair[0] - pair[1], rtol=1e-9, atol=1e-9)
    assert bool((ahead > 0).all())


@settings(deadline=None)
@given(rewards, numbers)
def test_a_margin_is_a_shift_of_the_chosen(pair: Tensor, margin: float) -> None:
    assert_close(bradley_terry(*pair, margin=margin), bradley_terry(pair[0] - margin, pair[1]), rtol=1e-9, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1e-5]), st.sampled_from([0.0, 0.1]), st.booleans())
def test_gradients(seed: int, floor: float, centre: float, by_length: bool) -> None:
    chosen, rejected = (side.requires_grad_() for side in scores(seed, 5))
    smoothing, margin = scores(seed + 1, 5)
    options = {"floor": floor, "centre": centre, "margin": margin, "label_smoothing": torch.sigmoid(smoothing)}
    options["ties"], options["weight"] = torch.arange(5) == 2, torch.arange(5)
    if by_length:
        lengths = {"chosen_length": torch.arange(1, 6), "rejected_length": torch.arange(5, 0, -1)}
        options |= {"length_norm": "log", **lengths}
    assert torch.autograd.gradcheck(lambda a, b: bradley_terry(a, b, **options), (chosen, rejected))


def test_it_is_the_cross_entropy_of_a_softmax_over_the_pair() -> None:
    chosen, rejected = scores()
    pair = torch.stack([chosen, rejected], dim=1)
    expected = torch.nn.functional.cross_entropy(pair, torch.zeros(7, dtype=torch.long))
    assert_close(bradley_terry(chosen, rejected), expected)


# Options


def test_order_of_operations() -> None:
    """Lengths first, then the ranking term with its margin, then centring of the normalised rewards."""
    chosen, rejected = torch.tensor([3.0, -1.0]), torch.tensor([1.0, 2.0])
    long, short = torch.tensor([20, 5]), torch.tensor([3, 80])
    found = bradley_terry(
        chosen, rejected, margin=0.3, centre=0.1, length_norm="log", chosen_length=long, rejected_length=short,
        reduce="none",
    )  # fmt: skip
    for row in range(2):
        r_w = chosen[row].item() / math.log(long[row].item() + 1)
        r_l = rejected[row].item() / math.log(short[row].item() + 1)
        expected = math.log1p(math.exp(-(r_w - r_l - 0.3))) + 0.1 * (r_w + r_l) ** 2
        assert found[row].item() == pytest.approx(expected, rel=1e-5)


def test_options_by_row_are_those_of_each_row() -> None:
    chosen, rejected = scores()
    margin, smoothing = torch.linspace(-2, 2, 7).double(), torch.linspace(0, 1, 7).double()
    found = bradley_terry(chosen, rejected, margin=margin, label_smoothing=smoothing, reduce="none")
    for row in range(7):
        one = bradley_terry(
            chosen[row], rejected[row], margin=margin[row].item(), label_smoothing=smoothing[row].item()
        )
        assert_close(found[row], one)
    assert_close(bradley_terry(chosen, rejected, margin=margin, label_smoothing=smoothing), found.mean())


def test_a_tie_pulls_the_two_together_whatever_the_margin() -> None:
    chosen = torch.tensor([0.7, 0.7], requires_grad=True)
    loss = bradley_terry(chosen, torch.tensor([0.7, 0.7]), margin=2.0, ties=torch.tensor([True, False]), reduce="none")
    gradient = torch.autograd.grad(loss.sum(), chosen)[0]
    assert loss[0].item() == pytest.approx(LN2) and gradient[0].item() == pytest.approx(0, abs=1e-7)
    assert loss[1].item() > LN2 and gradient[1].item() < -0.5


def test_weights() -> None:
    chosen, rejected = scores()
    weight = torch.tensor([0, 1, 0, 2, 0, 0, 0.5])
    kept = weight > 0
    found = bradley_terry(chosen, rejected, weight=weight, centre=0.1)
    rows = bradley_terry(chosen[kept], rejected[kept], centre=0.1, reduce="none")
    assert_close(found, (weight[kept] * rows).sum() / 3.5)
    assert_close(bradley_terry(chosen, rejected, weight=torch.full((7,), 3.0)), bradley_terry(chosen, rejected))


def test_it_is_finite_for_large_gaps() -> None:
    far = torch.tensor([-1000.0], requires_grad=True)
    loss = bradley_terry(far, ZERO)
    assert loss.item() == pytest.approx(1000.0)
    assert torch.autograd.grad(loss, far)[0].item() == pytest.approx(-1.0)


def test_types_and_shapes() -> None:
    half = torch.tensor([0.5], dtype=torch.bfloat16)
    assert bradley_terry(half, half).dtype == torch.float32
    assert bradley_terry(half.double(), half.double()).dtype == torch.float64
    patches = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    none = bradley_terry(patches, -patches, margin=torch.ones(3, 1), reduce="none")
    assert none.shape == (3, 5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"label_smoothing": 1.2}, "label_smoothing"),
        ({"label_smoothing": torch.tensor([0.1, math.nan])}, "label_smoothing"),
        ({"margin": torch.zeros(3, 2)}, r"margin \[3, 2\] does not broadcast to the rewards' shape \[2\]"),
        ({"margin": torch.zeros(5)}, "margin"),
        ({"centre": -0.1}, "centre"),
        ({"floor": -1e-5}, "floor"),
        ({"reduce": "sum"}, "reduce"),
        ({"length_norm": "log"}, "chosen_length"),
        ({"length_norm": "sqrt"}, "length_norm"),
        ({"chosen_length": torch.ones(2)}, "nothing would read them"),
        ({"length_norm": "log", "chosen_length": torch.ones(2), "rejected_length": torch.tensor([4, 0])}, ">= 1"),
        ({"ties": torch.tensor([0.5, 0.0])}, "ties must be bool"),
        ({"weight": torch.tensor([1.0, -1.0])}, "weight"),
        ({"weight": torch.zeros(2)}, "weight"),
    ],
)
def test_errors(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bradley_terry(torch.zeros(2), torch.zeros(2), **options)


def test_errors_of_shape() -> None:
    with pytest.raises(ValueError, match=r"chosen \[2\], rejected \[3\]"):
        bradley_terry(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="chosen is empty"):
        bradley_terry(torch.zeros(0), torch.zeros(0))


# Crossed negatives


def test_crossed_negatives_by_hand() -> None:
    table = torch.tensor([[[3.0, 2.0], [1.0, 5.0]]])  # R(I1, r1), R(I1, r2); R(I2, r1), R(I2, r2)
    one, two = math.log1p(math.exp(-1)), math.log1p(math.exp(-2))
    assert crossed_negatives(table).item() == pytest.approx(one + two, rel=1e-6)
    other = math.log1p(math.exp(-4)) + math.log1p(math.exp(-3))
    assert crossed_negatives(table, symmetric=True).item() == pytest.approx((one + two + other) / 2, rel=1e-6)


def test_which_combinations_a_judge_may_not_ignore() -> None:
    assert crossed_negatives(torch.full((4, 2, 2), 3.0)).item() == pytest.approx(2 * LN2)
    blind = torch.tensor([[[100.0, -100.0], [100.0, -100.0]]])  # reads the answer only
    assert crossed_negatives(blind).item() == pytest.approx(LN2)
    right = torch.tensor([[[50.0, -50.0], [-50.0, 50.0]]])
    assert crossed_negatives(right, symmetric=True).item() == pytest.approx(0, abs=1e-6)


def test_symmetry_under_swapping_the_two_instructions() -> None:
    table = torch.randn(6, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    swapped = table.flip(1, 2)
    assert_close(crossed_negatives(table, symmetric=True), crossed_negatives(swapped, symmetric=True))
    both = crossed_negatives(table, reduce="none") + crossed_negatives(swapped, reduce="none")
    assert_close(crossed_negatives(table, symmetric=True, reduce="none"), both / 2)


def test_crossed_negatives_errors() -> None:
    with pytest.raises(ValueError, match=r"\[P, 2, 2\], got \[4, 2\]"):
        crossed_negatives(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="empty"):
        crossed_negatives(torch.zeros(0, 2, 2))
