"""Token advantages: the card's facts, the closed form, and what is passed over."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.objectives.token_gae import token_gae, whiten

R = torch.tensor([[0.0, 0.3, 0.0, -0.3, 0.5]])
ALL = torch.ones(1, 5)
CLOSE = {"atol": 1e-6, "rtol": 0}


def test_facts() -> None:
    advantages, returns = token_gae(R, torch.zeros(1, 5), ALL, gamma=1, lam=1)
    torch.testing.assert_close(advantages, torch.tensor([[0.5, 0.5, 0.2, 0.2, 0.5]]), **CLOSE)
    torch.testing.assert_close(returns, advantages, **CLOSE)


def test_prefix_differences_pay_as_much_as_the_whole() -> None:
    # sum_j [P(y_<j) - P(y_<=j)] = P(empty) - P(y): dense detoxification changes credit, not the return.
    toxicity = torch.tensor([0.1, 0.4, 0.3, 0.8, 0.2, 0.6])
    dense = (toxicity[:-1] - toxicity[1:])[None]
    _, returns = token_gae(dense, torch.zeros(1, 5), ALL, gamma=1, lam=1)
    torch.testing.assert_close(returns[0], toxicity[:-1] - toxicity[-1], **CLOSE)


@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1))
def test_equals_the_sum_of_discounted_differences(seed: int, gamma: float, lam: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(3, 6, generator=generator), torch.randn(3, 6, generator=generator)
    lengths = torch.tensor([6, 3, 1])
    mask = torch.arange(6)[None] < lengths[:, None]
    found, returns = token_gae(rewards, values, mask, gamma=gamma, lam=lam)
    for row, length in enumerate(lengths.tolist()):
        after = torch.cat([values[row, 1:length], torch.zeros(1)])
        delta = rewards[row, :length] + gamma * after - values[row, :length]
        for t in range(length):
            expected = sum((gamma * lam) ** k * delta[t + k] for k in range(length - t))
            torch.testing.assert_close(found[row, t], torch.as_tensor(expected), atol=1e-5, rtol=1e-5)
    assert found[~mask].abs().sum() == 0 and returns[~mask].abs().sum() == 0


def test_what_does_not_count_is_passed_over() -> None:
    rewards, values = torch.tensor([[9.0, 1.0, 9.0, 2.0]]), torch.tensor([[7.0, 0.5, 7.0, 0.25]])
    mask = torch.tensor([[0, 1, 0, 1]])
    found, _ = token_gae(rewards, values, mask, gamma=0.5, lam=1.0)
    alone, _ = token_gae(rewards[:, [1, 3]], values[:, [1, 3]], torch.ones(1, 2), gamma=0.5, lam=1.0)
    torch.testing.assert_close(found[:, [1, 3]], alone, **CLOSE)


def test_whitening() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 99.0], [4.0, 5.0, 99.0, 99.0]]) * 0.1
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    white = whiten(x, mask)
    held = white[mask.bool()]
    assert float(held.mean()) == pytest.approx(0, abs=1e-6) and float(held.std()) == pytest.approx(1, abs=1e-5)
    assert float(white[~mask.bool()].abs().sum()) == 0
    shifted = whiten(x, mask, shift_mean=False)[mask.bool()]
    assert float(shifted.mean()) == pytest.approx(float(x[mask.bool()].mean()), abs=1e-6)
    # A deviation of s leaves sqrt(s) behind: the released code does not standardise.
    spread = float(x[mask.bool()].std())
    released = whiten(x, mask, kind="paper_code")[mask.bool()]
    assert float(released.std()) == pytest.approx(spread**0.5, abs=1e-4)
    assert 0.2233**0.5 == pytest.approx(0.4725, abs=1e-3)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="shapes must be equal"):
        token_gae(R, R, ALL[:, :3])
    with pytest.raises(ValueError, match="gamma must lie"):
        token_gae(R, R, ALL, gamma=1.5)
    with pytest.raises(ValueError, match="at least 2 values"):
        whiten(R, torch.tensor([[1, 0, 0, 0, 0]]))
