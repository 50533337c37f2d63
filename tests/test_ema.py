"""EMA: warm-up, spacing, and the memory that the reference code loses."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from guerdon.core.errors import GuerdonError
from guerdon.trainers.ema import EMA


def parameter(value: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.full((2,), value))


def test_moves_only_every_few_steps_with_the_warm_up() -> None:
    weights = parameter(0.0)
    average = EMA([weights], decay=0.9, every=8)
    weights.data.fill_(1.0)
    moved = [average.step(n) for n in range(16)]
    assert [n for n, did in enumerate(moved) if did] == [7, 15]
    first = 1 - (1 + 7) / (10 + 7)
    second = 1 - (1 - first) * min((1 + 15) / (10 + 15), 0.9)
    assert_close(average.tensors[0], torch.full((2,), second))
    assert_close(weights.data, torch.ones(2))


def test_decay_has_a_ceiling() -> None:
    weights = parameter(0.0)
    average = EMA([weights], decay=0.9, every=1)
    weights.data.fill_(1.0)
    average.step(10_000)
    assert_close(average.tensors[0], torch.full((2,), 0.1))


def test_load_copies_and_keeps_no_alias() -> None:
    weights = parameter(1.0)
    average = EMA([weights], every=1)
    source = [torch.tensor([2.0, 3.0])]
    average.load(source)
    average.step(0)  # d = 0.1
    assert_close(average.tensors[0], torch.tensor([0.2 + 0.9, 0.3 + 0.9]))
    assert_close(source[0], torch.tensor([2.0, 3.0]))


def test_every_must_be_positive() -> None:
    with pytest.raises(GuerdonError, match="got 0"):
        EMA([parameter(0.0)], every=0)
