"""Is a policy that rewards itself still learning, or only agreeing with itself?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.core.errors import GuerdonError
from guerdon.rewards.text.agreement import Elected
from guerdon.trainers.collapse import Alarm

__all__ = ["SelfRewardWatch"]


class SelfRewardWatch:
    """Vote share, entropy, agreement of views and label accuracy by step; an alarm when agreement rises without truth.

    rise:       by how much the vote share must exceed its first measurement.
    fall:       by how much the held-out accuracy must lie below its best so far, at the same time.
    one_label:  share of a step's labels that are one and the same answer, above which everything is answered alike;
                needs 8 labels. A task with few possible answers needs a higher bound.
    patience:   measurements in a row.

    All bounds are ours (UNVERIFIED): the paper shows the collapse of its baselines (share up, accuracy down) but gives
    no rule. Raises GuerdonError for bounds outside (0, 1]. Source: Co-Reward (arXiv 2508.00410), section 4.3.
    """

    FEWEST_LABELS = 8

    def __init__(
        self, *, rise: float = 0.1, fall: float = 0.05, one_label: float | None = 0.5, patience: int = 2
    ) -> None:
        if not 0 < rise <= 1 or not 0 < fall <= 1 or (one_label is not None and not 0 < one_label <= 1) or patience < 1:
            raise GuerdonError("a self-reward watch needs bounds in (0, 1] and patience >= 1")
        self.rise, self.fall, self.one_label, self.patience = rise, fall, one_label, patience
        self.rows: list[dict[str, float]] = []
        self.alarms: list[Alarm] = []
        self._first_share: float | None = None
        self._best: float | None = None
        self._streaks: Counter[str] = Counter()

    def measure(self, step: int, elected: Sequence[Elected], *, held_out: float | None = None) -> list[Alarm]:
        """Record a step's labels (``reward.elected``) and, where measured, held-out accuracy; the alarms it raised.

        The row has vote_share, vote_entropy, labelled (share of groups with a label), top_label, and where known
        label_accuracy, views_agree and held_out. Without ``held_out`` only top_label can raise an alarm.
        """
        row: dict[str, Any] = {"step": float(step)}
        if elected:
            labels = [one.vote.label for one in elected if one.vote.label]
            row["vote_share"] = float(np.mean([one.vote.share for one in elected]))
            row["vote_entropy"] = float(np.mean([one.vote.entropy for one in elected]))
            row["labelled"] = len(labels) / len(elected)
            if len(labels) >= self.FEWEST_LABELS:
                row["top_label"] = Counter(labels).most_common(1)[0][1] / len(labels)
            for name, known in (
                ("label_accuracy", [one.right for one in elected if one.right is not None]),
                ("views_agree", [one.agrees for one in elected if one.agrees is not None]),
            ):
                if known:
                    row[name] = float(np.mean(known))
            self._first_share = row["vote_share"] if self._first_share is None else self._first_share
        if held_out is not None:
            row["held_out"] = float(held_out)
            self._best = max(held_out, -np.inf if self._best is None else self._best)
        self.rows.append(row)
        return self._raised(step, row)

    def _raised(self, step: int, row: dict[str, float]) -> list[Alarm]:
        raised = []
        if "held_out" in row and "vote_share" in row:
            assert self._best is not None and self._first_share is not None
            bound = self._best - self.fall
            beyond = row["held_out"] < bound and row["vote_share"] > self._first_share + self.rise
            raised += self._count(step, "held_out while vote_share rises", row["held_out"], bound, beyond)
        if "top_label" in row and self.one_label is not None:
            raised += self._count(
                step, "top_label", row["top_label"], self.one_label, row["top_label"] > self.one_label
            )
        self.alarms += raised
        return raised

    def _count(self, step: int, name: str, value: float, bound: float, beyond: bool) -> list[Alarm]:
        self._streaks[name] = self._streaks[name] + 1 if beyond else 0
        times = self._streaks[name]
        return [Alarm(step, name, value, bound, times)] if times >= self.patience else []
