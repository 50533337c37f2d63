"""Self-aligned reward: the card's facts, the token view, and its edges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.objectives.self_alignment import accuracy_efficiency, self_aligned, token_gains


def of_perplexities(alone: float, asked: float, **options: object) -> float:
    ones = torch.ones(1, 3)
    return float(self_aligned(-math.log(asked) * ones, -math.log(alone) * ones, ones, **options))  # type: ignore[arg-type]


def test_facts() -> None:
    assert of_perplexities(8, 2) == pytest.approx(0.75, abs=1e-6)
    assert of_perplexities(4, 4) == pytest.approx(0, abs=1e-6)
    assert of_perplexities(2, 8) == -1 and of_perplexities(2, 8, clip=None) == pytest.approx(-3, abs=1e-5)
    for gains, value in (([math.log(2)] * 2, 0.5), ([math.log(2)] * 2 + [0.0, 0.0], 1 - 2**-0.5)):
        asked = torch.full((1, len(gains)), -1.0)
        assert float(self_aligned(asked, asked - torch.tensor([gains]), torch.ones_like(asked))) == pytest.approx(value)
    assert of_perplexities(8, 2, variant="difference", clip=None) == pytest.approx(6, abs=1e-4)
    assert of_perplexities(8, 2, variant="log", clip=None) == pytest.approx(math.log(4), abs=1e-5)
    assert of_perplexities(8, 2, variant="confidence", clip=None) == pytest.approx(3, abs=1e-5)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_the_token_view_says_the_same(seed: int, length: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    asked, alone = (-3 * torch.rand(2, 6, generator=generator) for _ in range(2))
    mask = torch.arange(6)[None].expand(2, 6) < length
    gains = token_gains(asked, alone, mask)
    expected = 1 - torch.exp(-gains.sum(dim=1) / length)
    torch.testing.assert_close(self_aligned(asked, alone, mask, clip=None), expected, atol=1e-5, rtol=1e-5)
    assert float(gains[~mask].abs().sum()) == 0


def test_padding_dilutes_and_nothing_is_nothing() -> None:
    asked = torch.tensor([[-0.1, -0.1, -1.0, -1.0], [-0.1, -0.1, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    alone = torch.tensor([[-2.0, -2.0, -1.0, -1.0], [-2.0, -2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    padded, concise, empty = self_aligned(asked, alone, mask).tolist()
    assert concise > padded > 0 and empty == 0
    long = torch.full((1, 4000), -30.0)
    assert math.isfinite(float(self_aligned(long, long * 3, torch.ones_like(long))))


def test_efficiency() -> None:
    assert accuracy_efficiency(0.714, 894.0, 0.6907, 1030.6) == pytest.approx(0.1325 + 5 * 0.03373, abs=1e-3)
    with pytest.raises(ValueError, match="positive accuracy"):
        accuracy_efficiency(0.5, 10, 0, 10)


def test_mistakes_are_named() -> None:
    ones = torch.ones(1, 2)
    with pytest.raises(ValueError, match="must not be positive"):
        self_aligned(ones, -ones, ones)
    with pytest.raises(ValueError, match="variant must be one of"):
        self_aligned(-ones, -ones, ones, variant="ratio")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shapes must be equal"):
        self_aligned(-ones, -ones, torch.ones(1, 3))
