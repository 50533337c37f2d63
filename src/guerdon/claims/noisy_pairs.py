"""A preference task with a known reward and wrong labels, and a small reward model with dropout to learn it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guerdon.core.preferences import Message, Pair, text_of
from guerdon.models.scalar.head import RewardHead
from guerdon.policies.rollout import keyed_generator

FEATURES = 24


class NoisyPairs:
    """Answers are points of a 24-d Gaussian; their reward, of deviation 1.3, is a projection and a product of two more.
    ``product`` is the product's share of the variance: what a linear model, or one epoch, does not see.

    An answer's text is its row in ``table``. Labels are drawn by Bradley-Terry, then a share ``uniform`` of them is
    turned round: about a third are wrong. With ``clean`` none is. ``row["truth"]`` says which.
    """

    def __init__(
        self, count: int, seed: int, *, product: float = 0.1, uniform: float = 0.15, clean: bool = False
    ) -> None:
        self.product = product
        square = torch.randn(FEATURES, FEATURES, generator=keyed_generator(seed, "world"))
        self.directions = torch.linalg.qr(square)[0][:, :3]
        generator = keyed_generator(seed, "pairs")
        self.table = torch.randn(2 * count, FEATURES, generator=generator)
        first, second = self.reward(self.table).view(count, 2).unbind(1)
        drawn, turned = torch.rand(2, count, generator=generator)
        wins = first > second if clean else (drawn < torch.sigmoid(first - second)) != (turned < uniform)
        truth = torch.where(wins == (first > second), 1, -1)
        self.pairs = [self._pair(row, *values) for row, values in enumerate(zip(wins.tolist(), truth.tolist()))]

    def reward(self, x: Tensor) -> Tensor:
        """[..., 24] -> [...]."""
        a, b, c = (x @ self.directions).unbind(-1)
        return 1.3 * (math.sqrt(1 - self.product) * a + math.sqrt(self.product) * b * c)

    def _pair(self, row: int, first_wins: bool, truth: int) -> Pair:
        first, second = ([{"role": "assistant", "content": str(2 * row + side)}] for side in (0, 1))
        better, worse = (first, second) if first_wins else (second, first)
        return Pair([], better, worse, row={"truth": truth})

    def points(self, conversations: Sequence[Sequence[Message]]) -> Tensor:
        """Features [N, 24] of answers."""
        return self.table[[int(text_of(conversation[-1:])) for conversation in conversations]]

    def sides(self, pairs: Sequence[Pair]) -> Tensor:
        """Features [2, N, 24] of chosen and rejected answers."""
        return torch.stack([self.points([pair.chosen for pair in pairs]), self.points([p.rejected for p in pairs])])


class RewardNet(nn.Module):
    """Two hidden layers with dropout, and a linear `RewardHead` on the second; the same weights for the same seed."""

    def __init__(self, world: NoisyPairs, seed: int, *, width: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.world = world
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Linear(FEATURES, width), nn.SiLU(), nn.Dropout(dropout),
                nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout),
            )  # fmt: skip
            self.head = RewardHead(width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., 24] -> rewards [...]."""
        return self.head(self.body(x))

    @torch.no_grad()
    def rewards(self, x: Tensor) -> Tensor:
        """`forward` in evaluation mode without gradient."""
        training = self.training
        self.eval()
        scores = self(x)
        self.train(training)
        return scores

    def score(self, conversations: Sequence[list[Message]], **options: Any) -> np.ndarray:
        """Rewards [N] of the answers that end the conversations."""
        return self.rewards(self.world.points(conversations)).numpy()
