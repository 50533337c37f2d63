"""Several rewards of one batch, kept apart until they become advantages.

Source: RealGen (arXiv 2512.00473), section 5 of its card: each reward is standardised in its own per-prompt statistics
and the z-scores are averaged, where Flow-GRPO (arXiv 2505.05470) sums weighted raw rewards and standardises once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import identity
from guerdon.core.outcome import Failed
from guerdon.objectives.advantages import Combine, Spread, group_advantages
from guerdon.rewards.composite import ConstantTerms, Floats, Mask, PartScorers, Term, broken, named_terms


@dataclass
class BankScores:
    """The scores of N samples under K rewards.

    parts: name -> float64 [N], in the reward's own units, NaN where there is no score.
    part_valid: name -> bool [N].
    failures: name -> row -> Failed.
    failed: bool [N]; True where any reward failed without a declared fallback. Such a sample takes part in nothing.
    inner: name -> parts of a composed reward, "name/part" -> float64 [N], for logs.
    identities: name -> name@version#hash.
    """

    bank: RewardBank
    parts: dict[str, Floats]
    part_valid: dict[str, Mask]
    failed: Mask
    failures: dict[str, dict[int, Failed]] = field(default_factory=dict)
    inner: dict[str, Floats] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)

    @property
    def valid(self) -> Mask:
        """bool [N]: every reward gave a score."""
        return np.logical_and.reduce(list(self.part_valid.values()))

    @property
    def mean(self) -> dict[str, float]:
        """name -> mean over the samples that have a score (NaN where none has), and "inner" parts likewise."""
        rows = {**self.parts, **self.inner}
        return {name: float(np.nanmean(row)) if np.isfinite(row).any() else float("nan") for name, row in rows.items()}

    def weighted(self) -> Floats:
        """float64 [N]: sum_k w_k R_k in raw units, NaN where any reward of non-zero weight has no score; for logs."""
        weighty = [name for name, weight in self.bank.weights.items() if weight]
        total = np.sum([self.bank.weights[name] * self.parts[name] for name in weighty], axis=0)
        return np.where(self.failed, np.nan, np.broadcast_to(total, self.failed.shape))

    def advantages(self, group_ids: Tensor) -> Tensor:
        """float32 [N]: group-relative advantages of the samples as the bank combines them.

        A sample where a reward failed gets 0 and enters no statistic. Where a reward does not apply, "per_reward_z"
        counts it as its group's mean and "sum_then_z" leaves the sample out. A reward of non-zero weight that is
        constant within every group is named in one warning.

        Args:
            group_ids: integers [N].
        """
        bank = self.bank
        terms = {name: (self.parts[name], self.part_valid[name] & ~self.failed) for name in self.parts}
        bank.constant.check({name: term for name, term in terms.items() if bank.weights[name]}, group_ids.cpu())
        return group_advantages(
            torch.from_numpy(np.stack([row for row, _ in terms.values()])),
            group_ids.cpu(),
            valid=torch.from_numpy(np.stack([valid for _, valid in terms.values()])),
            std=bank.std,
            eps=bank.eps,
            combine=bank.combine,
            weights=list(bank.weights.values()),
            normalise_weights=bank.normalise_weights,
            clip=bank.clip,
        )


class RewardBank:
    """K weighted rewards that score the same samples and are combined as advantages, not as a sum.

    Args:
        rewards: name -> (reward, weight).
        combine: "per_reward_z" standardises each reward in its group and averages (RealGen); "sum_then_z" sums weighted
            raw rewards and standardises once (Flow-GRPO), so that the widest-ranging reward dominates.
        std: deviation of the "group", or of the whole "batch" (RealGen's ``global_std``); the mean is the group's.
        clip: limit of the absolute advantage, or ``None``; 5 in RealGen.
        eps: added to the deviation.
        normalise_weights: divide by the sum of weights ("per_reward_z" only; RealGen's guard and V2 trainers do).

    Raises:
        GuerdonError: no rewards, a weight that is not finite, or weights that sum to nothing positive.
    """

    def __init__(
        self,
        rewards: Mapping[str, Term],
        *,
        combine: Combine = "per_reward_z",
        std: Spread = "group",
        clip: float | None = 5.0,
        eps: float = 1e-4,
        normalise_weights: bool = True,
    ) -> None:
        terms = named_terms(rewards)
        self.rewards = {name: reward for name, (reward, _) in terms.items()}
        self.weights = {name: float(weight) for name, (_, weight) in terms.items()}
        if combine not in ("per_reward_z", "sum_then_z"):
            raise GuerdonError(f"combine must be 'per_reward_z' or 'sum_then_z', got {combine!r}")
        if std not in ("group", "batch"):
            raise GuerdonError(f"std must be 'group' or 'batch', got {std!r}")
        if not any(self.weights.values()) or (normalise_weights and sum(self.weights.values()) <= 0):
            raise GuerdonError(f"the weights of a reward bank must sum to more than 0, got {self.weights}")
        self.combine: Combine = combine
        self.std: Spread = std
        self.clip, self.eps, self.normalise_weights = clip, eps, normalise_weights
        self.constant = ConstantTerms("reward bank")
        self._scorers = PartScorers(self.rewards)

    def identities(self) -> dict[str, str]:
        """name -> name@version#hash of each reward."""
        return {name: identity(reward) for name, reward in self.rewards.items()}

    def score(self, prompts: Sequence[Any], completions: Any, **columns: Any) -> BankScores:
        """Score N samples under every reward.

        Args:
            prompts: N prompts.
            completions: N completions; in image training a float tensor [N, 3, H, W] in [0, 1].
            columns: the data set's columns, one entry a sample, and TRL's ``trainer_state``.
        """
        columns.pop("log_metric", None)
        scored = self._scorers.score(prompts, completions, columns)
        return BankScores(
            bank=self,
            parts={name: part.values for name, part in scored.items()},
            part_valid={name: part.valid for name, part in scored.items()},
            failed=np.logical_or.reduce([broken(part) | part.dropped for part in scored.values()]),
            failures={name: part.failures for name, part in scored.items() if part.failures},
            inner={f"{name}/{key}": row for name, part in scored.items() for key, row in part.parts.items()},
            identities={name: part.identity for name, part in scored.items()},
        )
