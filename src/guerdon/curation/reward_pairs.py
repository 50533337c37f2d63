"""Preference pairs out of a policy's own samples, ranked by any reward; as rows for DPO or KTO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.scorer import Scorer

__all__ = ["MinedRows", "Strategy", "kto_rows", "mine_preferences"]

Strategy = Literal["max_min", "margin", "threshold"]


@dataclass
class MinedRows:
    """rows: {prompt, chosen, rejected, margin} each. left_out: reason -> how many prompts or samples."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str, count: int = 1) -> None:
        if count:
            self.left_out[reason] = self.left_out.get(reason, 0) + count


def mine_preferences(
    prompts: Sequence[Any],
    sample: Callable[[Any, int], Sequence[Any]],
    reward: Any,
    *,
    k: int = 8,
    strategy: Strategy = "max_min",
    margin: float = 0.0,
    threshold: float | None = None,
) -> MinedRows:
    """Pairs of each prompt's samples by their reward.

    sample:    ``sample(prompt, k) -> k completions`` of the base policy.
    reward:    any reward of the contract; a completion that it fails on or does not apply to is left out.
    strategy:  "max_min": the highest against the lowest; "margin": the same where they lie at least ``margin`` apart;
               "threshold": the i-th highest at or above ``threshold`` against the i-th lowest below it.
    margin:    smallest gap of a pair, in the reward's units; ties never make a pair.

    Source: max-min over eight samples at temperature 0.7 is Follow-up Likelihood as Reward (arXiv 2409.13948); its
    margin filter is UNVERIFIED (none by default). Raises GuerdonError for settings that do not fit together, or samples
    of another number.
    """
    if strategy not in get_args(Strategy):
        raise unknown("mining strategy", strategy, get_args(Strategy))
    if k < 2 or not margin >= 0:
        raise GuerdonError(f"mining needs k >= 2 samples and a margin of at least 0, got {k} and {margin}")
    if (threshold is not None) != (strategy == "threshold"):
        raise GuerdonError("a threshold is what the strategy 'threshold' needs, and no other takes")
    scorer = Scorer(reward, on_failure="drop_sample", max_failure_rate=1.0, group_size=k)
    found = MinedRows()
    for prompt in prompts:
        samples = list(sample(prompt, k))
        if len(samples) != k:
            raise GuerdonError(f"{k} samples were asked for, {len(samples)} came")
        scores = scorer.score([prompt] * k, samples)
        kept = [row for row in range(k) if scores.valid[row]]
        found.leave_out("samples without a score", k - len(kept))
        # Stable, so equal scores keep the order they were sampled in.
        ranked = sorted(kept, key=lambda row: -scores.values[row])
        if threshold is None:
            couples = [(ranked[0], ranked[-1])] if len(ranked) > 1 else []
        else:
            high = [row for row in ranked if scores.values[row] >= threshold]
            low = [row for row in reversed(ranked) if scores.values[row] < threshold]
            couples = list(zip(high, low))
        made = 0
        for better, worse in couples:
            gap = float(scores.values[better] - scores.values[worse])
            if gap > 0 and gap >= margin and samples[better] != samples[worse]:
                made += 1
                row = {"prompt": prompt, "chosen": samples[better], "rejected": samples[worse], "margin": gap}
                found.rows.append(row)
        if not made:
            found.leave_out("prompts without a pair")
    return found


def kto_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows {prompt, completion, label} of TRL's KTOTrainer: each chosen answer is right, each rejected one wrong."""
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in rows
        for side in ("chosen", "rejected")
    ]
