"""Head and pooling of scalar reward models: the closed forms of the cards, and float32 whatever comes in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.models.scalar.head import HeadConfig, RewardHead, pool_hidden


def test_mean_pooling_ignores_padding() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [9.0]]])
    assert pool_hidden(hidden, torch.tensor([[1, 1, 0]]), "mean").item() == 2.0
    assert pool_hidden(hidden, torch.tensor([[0, 1, 1]]), "mean").item() == 6.0


def test_last_and_token_pooling_on_both_sides_of_padding() -> None:
    hidden = torch.arange(8.0).reshape(2, 4, 1)
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]])
    assert pool_hidden(hidden, mask, "last").flatten().tolist() == [1.0, 7.0]
    # The last occurrence that is real: the 5 at the end of row 0 is padding, the first 5 of row 1 too.
    ids = torch.tensor([[5, 7, 5, 5], [5, 5, 5, 7]])
    assert pool_hidden(hidden, mask, "token", ids, 5).flatten().tolist() == [0.0, 6.0]


def test_the_state_of_padding_may_be_anything() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [float("nan")]]])
    for how, expected in (("mean", 2.0), ("last", 3.0)):
        assert pool_hidden(hidden, torch.tensor([[1, 1, 0]]), how).item() == expected


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.sampled_from(["last", "mean", "token"]))
def test_pooling_a_batch_is_pooling_each_row(lengths: list[int], how: str) -> None:
    longest, generator = max(lengths), torch.Generator().manual_seed(sum(lengths))
    rows = [torch.randn(n, 3, generator=generator) for n in lengths]
    for side in ("left", "right"):
        hidden, mask = torch.full((len(rows), longest, 3), 99.0), torch.zeros(len(rows), longest)
        for place, row in enumerate(rows):
            where = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
            hidden[place, where], mask[place, where] = row, 1
        alone = {"last": lambda r: r[-1], "token": lambda r: r[-1], "mean": lambda r: r.mean(0)}[how]
        expected = torch.stack([alone(row) for row in rows])
        ids = torch.full(mask.shape, 4)
        assert torch.allclose(pool_hidden(hidden, mask, how, ids, 4), expected, atol=1e-6)


def test_pooling_says_what_does_not_fit() -> None:
    hidden, mask = torch.zeros(2, 3, 4), torch.tensor([[1, 1, 1], [0, 0, 0]])
    with pytest.raises(ValueError, match="sequence 1 has no real token"):
        pool_hidden(hidden, mask, "last")
    with pytest.raises(ValueError, match="sequence 0 has no token 9"):
        pool_hidden(hidden, torch.ones(2, 3), "token", torch.tensor([[1, 2, 3], [9, 1, 1]]), 9)
    with pytest.raises(ValueError, match="needs token_id"):
        pool_hidden(hidden, torch.ones(2, 3), "token")
    with pytest.raises(ValueError, match=r"hidden must be \[B, T, d\]"):
        pool_hidden(hidden, torch.ones(2, 4))
    with pytest.raises(ValueError, match="one of last, mean, token, first, got 'max'"):
        pool_hidden(hidden, mask, "max")


def test_one_layer_is_linear_and_two_without_activation_are_too() -> None:
    x, y = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    for layers, activation, linear in ((1, "silu", True), (2, None, True), (2, "silu", False), (3, "tanh", False)):
        torch.manual_seed(0)
        head = RewardHead(8, num_layers=layers, activation=activation)
        gap = head(x + y) - head(x) - head(y) + head(torch.zeros(8))
        assert torch.allclose(gap, torch.zeros(5), atol=1e-5) == linear


def test_two_layers_are_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    head, h = RewardHead(6, num_layers=2, activation="silu", width=4), torch.randn(3, 6)
    first, second = head.layers[0], head.layers[2]
    z = h @ first.weight.T + first.bias
    expected = (z * torch.sigmoid(z)) @ second.weight[0] + second.bias
    assert first.weight.shape == (4, 6) and torch.allclose(head(h), expected, atol=1e-6)


def test_the_head_stays_float32() -> None:
    torch.manual_seed(0)
    head, h = RewardHead(64, num_layers=2), torch.randn(3, 64).bfloat16()
    exact = head(h)
    for cast in (head.half(), head.bfloat16(), head.to(torch.float16)):
        assert {p.dtype for p in cast.parameters()} == {torch.float32} and torch.equal(cast(h), exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(h), exact)
    assert exact.dtype == torch.float32 and exact.shape == (3,)


def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    head, h = RewardHead(32, num_layers=2, dropout=0.5), torch.ones(2, 32)
    assert not torch.equal(head.train()(h), head(h)) and torch.equal(head.eval()(h), head(h))


def test_wrong_heads() -> None:
    with pytest.raises(GuerdonError, match="unknown activation 'silo'; did you mean 'silu'"):
        RewardHead(8, activation="silo")
    with pytest.raises(GuerdonError, match="at least one layer"):
        RewardHead(8, num_layers=0)
    with pytest.raises(ValueError, match="layers"):
        HeadConfig(layers=2)  # type: ignore[call-arg]
