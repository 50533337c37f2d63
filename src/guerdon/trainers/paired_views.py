"""Both wordings of a question in one reward call: the rows, their order, and the trainer that keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

from guerdon.core.errors import GuerdonError

__all__ = ["PairedViews", "PairedViewSampler", "paired_rows"]

Row = Mapping[str, Any]


def paired_rows(
    originals: Sequence[Row], rewrites: Sequence[Row], *, fits: Callable[[Any], bool] | None = None
) -> list[dict[str, Any]]:
    """Aligned rows of two wordings as one list: original, rewrite, original, ..., with columns ``pair`` and ``view``.

    fits: whether a prompt is short enough; a pair stays only if both prompts fit. ``pair`` is the row in the given
    lists, ``view`` 0 or 1. Raises GuerdonError for lists of different length, other columns, or solutions that differ.
    Source: Co-Reward (arXiv 2508.00410), joint filter on the prompts' length.
    """
    if len(originals) != len(rewrites):
        raise GuerdonError(f"{len(originals)} originals and {len(rewrites)} rewrites are not aligned row by row")
    rows: list[dict[str, Any]] = []
    for number, (one, other) in enumerate(zip(originals, rewrites, strict=True)):
        if one.keys() != other.keys() or "prompt" not in one:
            raise GuerdonError(f"pair {number}: both views need the same columns, among them 'prompt'")
        if one.get("solution") != other.get("solution"):
            raise GuerdonError(f"pair {number}: the views have different solutions")
        if fits is None or (fits(one["prompt"]) and fits(other["prompt"])):
            rows += [{**one, "pair": number, "view": 0}, {**other, "pair": number, "view": 1}]
    return rows


class PairedViewSampler(Sampler[int]):
    """Indices of a dataset whose rows 2k and 2k + 1 are one pair: pairs are shuffled, never parted.

    As TRL's RepeatSampler: each index ``mini_repeat_count`` times in a row (the group), ``batch_size`` distinct prompts
    a batch, each batch ``repeat_count`` times; an incomplete last batch is left out. ``batch_size`` has to be even.
    Shuffled from (seed, pass): another order each pass, the same again in a second sampler.
    """

    def __init__(
        self,
        rows: int,
        *,
        mini_repeat_count: int,
        batch_size: int,
        repeat_count: int = 1,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        if rows % 2:
            raise GuerdonError(f"{rows} rows are no whole pairs")
        if batch_size < 2 or batch_size % 2:
            raise GuerdonError(
                f"{batch_size} prompts a generation batch part a pair; make it even (generation batch / generations)"
            )
        if rows < batch_size:
            raise GuerdonError(f"{rows} rows do not fill one generation batch of {batch_size} prompts")
        self.rows, self.group, self.batch_size = rows, mini_repeat_count, batch_size
        self.repeat_count, self.shuffle = repeat_count, shuffle
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[int]:
        pairs = self.rows // 2
        order = torch.randperm(pairs, generator=self.generator).tolist() if self.shuffle else list(range(pairs))
        step = self.batch_size // 2
        for start in range(0, pairs - step + 1, step):
            indices = [2 * pair + view for pair in order[start : start + step] for view in (0, 1)]
            for _ in range(self.repeat_count):
                for index in indices:
                    yield from [index] * self.group

    def __len__(self) -> int:
        return self.rows // self.batch_size * self.batch_size * self.group * self.repeat_count


class PairedViews:
    """Mix-in for a TRL GRPOTrainer: ``class CoReward(PairedViews, GRPOTrainer)``; the dataset is of `paired_rows`.

    Each group is still normalised on its own, as the two views have different prompts. TRL calls rewards on each
    process with its own completions: with more than one, a process's batch must hold whole pairs (a multiple of
    2 * num_generations), else the reward reports the pairs as incomplete. Deviation: TRL takes the mean of the two
    views' losses where the paper sums them, so the gradient is half as large at the same learning rate.
    """

    def _get_train_sampler(self, dataset: Any = None) -> Sampler[int]:
        trainer: Any = self
        args, data = trainer.args, trainer.train_dataset if dataset is None else dataset
        pairs, views = list(data["pair"]), list(data["view"])
        for row in range(0, len(pairs) - 1, 2):
            if pairs[row] != pairs[row + 1] or views[row] == views[row + 1]:
                raise GuerdonError(f"rows {row} and {row + 1} are not the two views of one pair; see paired_rows")
        return PairedViewSampler(
            len(pairs),
            mini_repeat_count=trainer.num_generations,
            batch_size=args.generation_batch_size // trainer.num_generations,
            repeat_count=trainer.num_iterations * args.steps_per_generation,
            shuffle=trainer.shuffle_dataset,
            seed=args.seed,
        )
