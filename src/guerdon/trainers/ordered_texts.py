"""ReMoDetect's training of a reward model: generated above mixed above human texts, held near what it was.

Both parts are hooks of `guerdon.trainers.preference.RewardModelTrainer`: `OrderedTexts` is an ``objective``,
`ReplayAnchor` an ``extra_loss`` that any fine-tuning of a reward model can use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Message
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.objectives.ordered_preference import LOGIT_L2, WEIGHTS, ordered_preference
from guerdon.objectives.replay_anchor import COEFFICIENT, replay_anchor
from guerdon.trainers.dropout_views import View
from guerdon.trainers.pair_batches import PairBatch

MIXED = "mixed"
"""Column of a pair that holds its mixed text."""

__all__ = ["MIXED", "OrderedTexts", "ReplayAnchor"]


class ReplayAnchor:
    """Adds `replay_anchor` on some of the texts that a reward model was trained on, to every step.

    model:          as it is now: its rewards of the texts, in evaluation mode, are the frozen reference.
    conversations:  the replayed texts, with their prompts or without.
    coefficient, reduce:  of `replay_anchor`. count: texts a step; the paper's 1.

    Which texts a step replays follows from torch's random state, which the trainer sets for each step, so a resumed run
    replays the same. Deviation: they are drawn with replacement; the paper goes through a shuffled list and ends the
    epoch with the shorter of its two lists. Raises GuerdonError for no texts.
    """

    def __init__(
        self,
        model: ScalarRewardModel,
        conversations: Sequence[Sequence[Message] | str],
        *,
        coefficient: float = COEFFICIENT,
        count: int = 1,
        reduce: Literal["sum", "mean"] = "sum",
        progress: str | None = None,
    ) -> None:
        if not conversations or count < 1:
            raise GuerdonError(f"a replay anchor needs texts, got {len(conversations)} and {count} of them a step")
        self.encoded = model.encoder.many(list(conversations))
        self.reference = model.score_encoded(self.encoded, progress=progress)
        self.coefficient, self.count, self.reduce = coefficient, count, reduce

    def __call__(
        self, model: ScalarRewardModel, batch: PairBatch | None = None, view: View | None = None
    ) -> tuple[Tensor, Mapping[str, float]]:
        """The term for this step and its metrics, as an ``extra_loss``; neither ``batch`` nor ``view`` is read."""
        drawn = torch.randint(len(self.encoded), (self.count,)).tolist()
        rewards = model(**model.batch([self.encoded[place] for place in drawn]))
        reference = self.reference[drawn].to(rewards.device)
        loss = replay_anchor(rewards, reference, coefficient=self.coefficient, reduce=self.reduce)
        return loss, {"replay": float(loss.detach())}

    def drift(self, model: ScalarRewardModel) -> float:
        """Root mean square change of the texts' rewards since the anchor was made, in units of the reward."""
        return float((model.score_encoded(self.encoded) - self.reference).square().mean().sqrt())


class OrderedTexts:
    """A batch's mean `ordered_preference` of (generated, mixed, human), plus the anchor's term where there is one.

    A pair's chosen answer is the generated text, its rejected one the human text, and its column ``MIXED`` the mixed
    text. A pair without one has the comparison of generated with human only, under the same weight and divisor.

    model:              what is trained. weights: of (generated, mixed), (generated, human), (mixed, human).
    logit_l2, anchor:   of `ordered_preference`; a `ReplayAnchor`.
    Source: ReMoDetect (arXiv 2405.17382).
    """

    def __init__(
        self,
        model: ScalarRewardModel,
        *,
        weights: Sequence[float] = WEIGHTS,
        logit_l2: float = LOGIT_L2,
        anchor: ReplayAnchor | None = None,
    ) -> None:
        if len(weights) != 3:
            raise GuerdonError(f"three comparisons need three weights, got {list(weights)}")
        self.model, self.weights, self.logit_l2, self.anchor = model, tuple(weights), logit_l2, anchor

    def __call__(self, passes: Callable[[], View], batch: PairBatch) -> Tensor:
        """The loss of a batch, as an ``objective`` of the trainer."""
        view = passes()
        rows = [row for row, pair in enumerate(batch.pairs) if pair.row.get(MIXED)]
        alone = [row for row in range(len(batch)) if row not in set(rows)]
        total = view.chosen.sum() * 0.0
        if rows:
            talks = [_said(str(batch.pairs[row].row[MIXED])) for row in rows]
            mixed = self.model(**self.model.batch([self.model.encode(one) for one in talks]))
            table = torch.stack([view.chosen[rows], mixed, view.rejected[rows]], dim=1)
            total = total + ordered_preference(table, weights=self.weights, logit_l2=self.logit_l2, reduce="none").sum()
        if alone and self.weights[1] > 0:
            both = torch.stack([view.chosen[alone], view.rejected[alone]], dim=1)
            plain: dict[str, Any] = {"pairs": [(0, 1)], "weights": [self.weights[1] / 3], "logit_l2": self.logit_l2}
            total = total + ordered_preference(both, reduce="none", **plain).sum()
        loss = total / len(batch)
        if self.anchor is not None:
            loss = loss + self.anchor(self.model)[0]
        return loss


def _said(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]
