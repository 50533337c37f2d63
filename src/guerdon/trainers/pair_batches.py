"""Which pairs each training step sees, and what a batch of them holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair
from guerdon.models.scalar.batching import Row, batches, join, pooled, takes_rows
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tokens import Encoded
from guerdon.trainers.dropout_views import View

Layout = Literal["shared", "interleaved"]


@dataclass(frozen=True)
class PairBatch:
    """N pairs of one step. ``encoded`` is interleaved, the layout of IXC-2.5-Reward: even index chosen, odd rejected.

    margin, smoothing:  [N] float32, of the rows; ties: [N] bool, rows whose smoothing is 1/2.
    chosen_length, rejected_length:  [N] float32, tokens after the prompt, at least 1.
    """

    pairs: list[Pair]
    encoded: list[Encoded]
    margin: Tensor
    smoothing: Tensor
    ties: Tensor
    chosen_length: Tensor
    rejected_length: Tensor

    def __len__(self) -> int:
        return len(self.pairs)

    @classmethod
    def of(
        cls, pairs: Sequence[Pair], encoded: Sequence[Encoded], *, smoothing: float = 0.0, margins: bool = True
    ) -> PairBatch:
        """Pairs without a smoothing of their own get ``smoothing``; without ``margins`` theirs are left out."""
        if len(encoded) != 2 * len(pairs):
            raise ValueError(f"{len(pairs)} pairs need {2 * len(pairs)} conversations, got {len(encoded)}")
        own = [pair.smoothing for pair in pairs]
        lengths = torch.tensor([max(1, len(one) - one.shared) for one in encoded], dtype=torch.float32)
        return cls(
            list(pairs),
            list(encoded),
            margin=torch.tensor([(pair.margin or 0.0) if margins else 0.0 for pair in pairs]),
            smoothing=torch.tensor([smoothing if one is None else one for one in own]),
            ties=torch.tensor([one == 0.5 for one in own]),
            chosen_length=lengths[0::2],
            rejected_length=lengths[1::2],
        )

    def of_rows(self, rows: Sequence[Row]) -> PairBatch:
        """The part of a batch that some of `micro_batches` hold, in the batch's order."""
        places = sorted(row.members[0] // 2 for row in rows)
        at = torch.tensor(places)
        return PairBatch(
            [self.pairs[place] for place in places],
            [self.encoded[2 * place + side] for place in places for side in (0, 1)],
            self.margin[at], self.smoothing[at], self.ties[at], self.chosen_length[at], self.rejected_length[at],
        )  # fmt: skip


def micro_batches(model: ScalarRewardModel, batch: PairBatch, layout: Layout, budget: int) -> list[list[Row]]:
    """Every pair of the batch as a row, in groups of like length that keep the budget of tokens.

    With layout "shared" a row holds the pair's prompt once, where the backbone allows it; else it counts as two.
    """
    rows = []
    for place in range(len(batch)):
        pair = (2 * place, 2 * place + 1)
        held = [batch.encoded[member] for member in pair]
        if layout == "shared" and takes_rows(model, held):
            rows.append(join(batch.encoded, pair))
        else:
            rows.append(Row(pair, 0, 2 * max(len(one) for one in held)))
    return list(batches(rows, budget))


def view_of(model: ScalarRewardModel, batch: PairBatch, groups: Sequence[Sequence[Row]], layout: Layout) -> View:
    """Rewards and pooled states of the groups' pairs in the batch's order, one forward pass a group."""
    order = [member for rows in groups for row in rows for member in row.members]
    states = []
    for rows in groups:
        if layout == "shared":
            states.append(pooled(model, batch.encoded, rows))
        else:
            states.append(model.hidden(**model.batch([batch.encoded[m] for row in rows for m in row.members])))
    found = torch.cat(states)[torch.argsort(torch.tensor(order)).to(model.device)]
    rewards = model.head(found)
    return View(rewards[0::2], rewards[1::2], found[0::2], found[1::2])


def interleaved_accuracy(rewards: Tensor) -> float:
    """Share of pairs ranked right in rewards [2N] of an interleaved batch, a tie counting half: [2, 1, 0, 3] -> 0.5.

    Source: IXC-2.5-Reward's trainer, which counts ties as wrong. Raises ValueError for an odd or empty batch.
    """
    if rewards.ndim != 1 or len(rewards) % 2 or not len(rewards):
        raise ValueError(f"interleaved rewards must be [2N] with N > 0, got {list(rewards.shape)}")
    gap = rewards[0::2] - rewards[1::2]
    return float(((gap > 0).float() + 0.5 * (gap == 0).float()).mean())


class ShuffledSampler:
    """Every pair once an epoch, in an order that depends on (seed, epoch) alone; the last batch may be smaller.

    together: so many pairs, one after another in the data, always share a batch (2 for contrast pairs).
    shuffle: False for the order of the data.
    """

    def __init__(self, count: int, batch_size: int, *, seed: int = 0, shuffle: bool = True, together: int = 1) -> None:
        if count % together or batch_size % together:
            raise GuerdonError(f"{count} pairs in batches of {batch_size} do not divide into groups of {together}")
        self.count, self.batch_size, self.seed, self.shuffle, self.together = count, batch_size, seed, shuffle, together
        self.steps_per_epoch = -(-count // batch_size)
        self._order = lru_cache(maxsize=1)(self._new_order)

    def __call__(self, step: int) -> list[int]:
        """Rows of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._order(epoch)[place * self.batch_size : (place + 1) * self.batch_size]

    def _new_order(self, epoch: int) -> list[int]:
        groups = torch.arange(self.count).view(-1, self.together)
        if self.shuffle:
            groups = groups[torch.randperm(len(groups), generator=_keyed(self.seed, epoch))]
        return groups.flatten().tolist()


class ModalityAlternatingSampler:
    """Batches all of pairs with pictures or all of pairs without: ``ratio[0]`` of the first kind, ``ratio[1]`` of the
    other, over and over; rows are drawn with replacement, those of a step by (seed, step) alone.

    has_images: of each pair. ``steps_per_epoch`` is as many steps as would show every pair once.
    Source: IXC-2.5-Reward's data mixing, which draws a data set in proportion to its size and then a row of it.
    Raises GuerdonError unless there are pairs of both kinds, and for a ratio that is not two positive numbers.
    """

    def __init__(
        self, has_images: Sequence[bool], batch_size: int, *, ratio: tuple[int, int] = (2, 1), seed: int = 0
    ) -> None:
        if len(ratio) != 2 or min(ratio) < 1:
            raise GuerdonError(f"a ratio of batches with and without pictures is two positive numbers, got {ratio}")
        self.rows = {kind: [row for row, shown in enumerate(has_images) if shown is kind] for kind in (True, False)}
        for kind, name in ((True, "with"), (False, "without")):
            if not self.rows[kind]:
                raise GuerdonError(f"alternating batches need pairs of both kinds, and there are none {name} pictures")
        self.ratio, self.batch_size, self.seed = ratio, batch_size, seed
        self.steps_per_epoch = -(-len(has_images) // batch_size)

    def __call__(self, step: int) -> list[int]:
        """Rows of a step, counted from 0."""
        rows = self.rows[step % sum(self.ratio) < self.ratio[0]]
        drawn = torch.randint(len(rows), (self.batch_size,), generator=_keyed(self.seed, step))
        return [rows[place] for place in drawn.tolist()]


def _keyed(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + number)
