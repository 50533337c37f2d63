"""Contrastive losses on reward features: SimCSE, Sinkhorn codes, SwAV, the views of a pair, the combined loss."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from guerdon.objectives.contrastive import (
    BETA,
    PROTOTYPES,
    combined_loss,
    contrastive_reward_loss,
    simcse,
    sinkhorn,
    swav,
    views,
)
from guerdon.objectives.preference import bradley_terry


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# SimCSE


@pytest.mark.parametrize("rows", [1, 2, 10])
def test_equal_embeddings_cost_ln_n(rows: int) -> None:
    same = torch.ones(rows, 3)
    assert simcse(same, same).item() == pytest.approx(math.log(rows), abs=1e-6)


def test_simcse_by_hand() -> None:
    first, second = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # cosines [[1, .6], [0, .8]] at temperature 0.5
    one = -math.log(math.exp(2) / (math.exp(2) + math.exp(1.2)))
    two = -math.log(math.exp(1.6) / (1 + math.exp(1.6)))
    assert simcse(first, second, temperature=0.5).item() == pytest.approx((one + two) / 2, rel=1e-6)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_only_directions_count(seed: int, scale: float) -> None:
    first, second = drawn(2, 5, 4, seed=seed)
    assert_close(simcse(first, second), simcse(scale * first, second / scale))
    turn = torch.linalg.qr(drawn(4, 4, seed=seed + 1))[0]
    assert_close(simcse(first, second), simcse(first @ turn, second @ turn))


def test_views_that_find_each_other_cost_less_than_shuffled_ones() -> None:
    base = drawn(16, 8)
    first, second = base + 0.1 * drawn(16, 8, seed=1), base + 0.1 * drawn(16, 8, seed=2)
    assert simcse(first, second) < 0.01 < simcse(first, second.roll(1, 0))


# Sinkhorn


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(2, 6), st.floats(0.7, 3), st.integers(0, 10**6))
def test_marginals(rows: int, columns: int, epsilon: float, seed: int) -> None:
    """Rows sum to 1 after any number of iterations; columns to N / K in the limit."""
    scores = torch.tanh(drawn(rows, columns, seed=seed))
    assert_close(sinkhorn(scores, epsilon=epsilon).sum(1), torch.ones(rows, dtype=torch.float64))
    settled = sinkhorn(scores, epsilon=epsilon, iterations=300)
    assert_close(settled.sum(0), torch.full((columns,), rows / columns, dtype=torch.float64), rtol=1e-3, atol=1e-3)
    assert bool((settled >= 0).all())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_codes_ignore_what_all_rows_or_all_columns_share(seed: int) -> None:
    scores, row, column = drawn(6, 4, seed=seed), drawn(6, 1, seed=seed + 1), drawn(1, 4, seed=seed + 2)
    # A prototype that is near to everything takes nothing away from the others, from the first iteration on.
    assert_close(sinkhorn(scores, epsilon=0.5), sinkhorn(scores + column, epsilon=0.5))
    # What a row adds to all of its scores is forgotten only in the limit.
    plain, moved = (sinkhorn(s, epsilon=1.0, iterations=200) for s in (scores, scores + row))
    assert_close(plain, moved, rtol=1e-5, atol=1e-6)


def test_sinkhorn_against_the_plain_recipe_of_swav() -> None:
    """Multiplicative, on the transposed matrix, total mass one, as SwAV's paper writes it."""
    scores = torch.tanh(drawn(8, 3))
    q = torch.exp(scores / 0.2).T
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / 3
        q = q / q.sum(0, keepdim=True) / 8
    assert_close(sinkhorn(scores, epsilon=0.2, iterations=3), (8 * q).T)


def test_sinkhorn_needs_no_small_scores_and_gives_no_gradient() -> None:
    scores = (1000 * drawn(6, 3)).requires_grad_()
    codes = sinkhorn(scores)
    assert bool(torch.isfinite(codes).all()) and not codes.requires_grad
    assert_close(sinkhorn(torch.zeros(6, 3)), torch.full((6, 3), 1 / 3))


# SwAV


@pytest.mark.parametrize("count", [2, 20])
def test_uniform_codes_cost_ln_k_a_term(count: int) -> None:
    same = torch.ones(count, 4)
    assert swav(drawn(6, 4).float(), drawn(6, 4, seed=1).float(), same).item() == pytest.approx(
        2 * math.log(count), rel=1e-5
    )


def test_swav_is_the_swapped_prediction() -> None:
    first, second, prototypes = drawn(6, 4), drawn(6, 4, seed=1), drawn(3, 4, seed=2)
    unit = torch.nn.functional.normalize
    one, two = unit(first) @ unit(prototypes).T, unit(second) @ unit(prototypes).T
    expected = 0.0
    for codes_of, predicted in ((one, two), (two, one)):
        expected -= (sinkhorn(codes_of) * torch.log_softmax(predicted / 0.1, 1)).sum(1).mean()
    assert_close(swav(first, second, prototypes), expected)
    assert_close(swav(first, second, prototypes), swav(second, first, prototypes))
    assert_close(swav(first, second, prototypes), swav(3 * first, second, 0.5 * prototypes))


def test_swav_falls_when_views_agree() -> None:
    prototypes = torch.eye(4)
    rows = torch.eye(4).repeat(3, 1)
    assert swav(rows, rows, prototypes) < 0.01 < swav(rows, rows.roll(1, 0), prototypes)


# The loss on pairs


def test_views() -> None:
    chosen, rejected = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 5.0]])
    assert views(chosen, rejected).tolist() == [[1, 2], [0, 5]]
    assert views(chosen, rejected, "diff").tolist() == [[1, -3], [-1, 3]]


def test_in_diff_the_own_negation_is_a_negative() -> None:
    """One pair: the only negative of c - r is r - c, at cosine -1."""
    chosen, rejected = drawn(1, 4), drawn(1, 4, seed=1)
    found = contrastive_reward_loss(chosen, rejected, chosen, rejected, mode="diff", temperature=1.0)
    assert found.item() == pytest.approx(math.log1p(math.exp(-2)), rel=1e-9)


@pytest.mark.parametrize("mode", ["pairs", "diff"])
def test_contrastive_reward_loss_is_its_parts(mode) -> None:
    one, two, three, four = drawn(4, 5, 6)
    prototypes = drawn(3, 6, seed=9)
    first, second = views(one, two, mode), views(three, four, mode)
    assert_close(contrastive_reward_loss(one, two, three, four, mode=mode), simcse(first, second))
    found = contrastive_reward_loss(one, two, three, four, kind="swav", mode=mode, prototypes=prototypes, epsilon=0.2)
    assert_close(found, swav(first, second, prototypes, epsilon=0.2))


def test_combined_loss() -> None:
    one, two, three, four = drawn(4, 5)
    ranking = (bradley_terry(one, two, margin=0.3) + bradley_terry(three, four, margin=0.3)) / 2
    found = combined_loss((one, two), (three, four), torch.tensor(2.0), beta=0.5, margin=0.3)
    assert_close(found, ranking + 1.0)
    assert BETA["simcse", "pairs"] == 1 and (BETA["swav", "pairs"], PROTOTYPES["pairs"]) == (0.1, 50)
    assert (BETA["swav", "diff"], PROTOTYPES["diff"]) == (0.5, 20)


@pytest.mark.parametrize("kind", ["simcse", "swav"])
def test_gradients(kind) -> None:
    """At the identical views of SwAV the codes move with the features, so only SimCSE is checked numerically."""
    states = [row.requires_grad_() for row in drawn(4, 3, 4)]
    prototypes = drawn(2, 4, seed=5).requires_grad_() if kind == "swav" else None
    if kind == "simcse":
        assert torch.autograd.gradcheck(lambda *h: contrastive_reward_loss(*h, temperature=0.5), states)
        return
    loss = contrastive_reward_loss(*states, kind="swav", prototypes=prototypes)
    gradients = torch.autograd.grad(loss, [*states, prototypes])
    assert all(bool(torch.isfinite(g).all()) and g.abs().sum() > 0 for g in gradients)


def test_half_precision_is_computed_in_float32() -> None:
    half = drawn(4, 3).to(torch.bfloat16)
    assert simcse(half, half).dtype == swav(half, half, half).dtype == sinkhorn(half).dtype == torch.float32


def test_errors() -> None:
    rows = torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"first \[4, 3\], second \[2, 3\]"):
        simcse(rows, rows[:2])
    with pytest.raises(ValueError, match=r"\[N, d\], got \[4\]"):
        simcse(rows[:, 0], rows[:, 0])
    with pytest.raises(ValueError, match="empty"):
        simcse(rows[:0], rows[:0])
    with pytest.raises(ValueError, match="temperature"):
        simcse(rows, rows, temperature=0.0)
    with pytest.raises(ValueError, match="temperature"):
        swav(rows, rows, rows, temperature=-1.0)
    with pytest.raises(ValueError, match="epsilon"):
        sinkhorn(rows, epsilon=0.0)
    with pytest.raises(ValueError, match="iterations"):
        sinkhorn(rows, iterations=0)
    with pytest.raises(ValueError, match=r"scores must be \[N, K\]"):
        sinkhorn(rows[0])
    with pytest.raises(ValueError, match=r"prototypes must be \[K, 3\], got \[2, 4\]"):
        swav(rows, rows, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="mode"):
        views(rows, rows, "both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kind"):
        contrastive_reward_loss(rows, rows, rows, rows, kind="moco")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs prototypes"):
        contrastive_reward_loss(rows, rows, rows, rows, kind="swav")
    with pytest.raises(ValueError, match="takes no prototypes"):
        contrastive_reward_loss(rows, rows, rows, rows, prototypes=rows)
    with pytest.raises(ValueError, match="beta"):
        combined_loss((rows, rows), (rows, rows), torch.zeros(()), beta=-1.0)
