"""A reward less what a completion's length differs from that of the right completions of its group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError
from guerdon.core.identity import name_of
from guerdon.core.outcome import Scores
from guerdon.core.reward import Reward
from guerdon.objectives.length_penalties import ApplyTo, Reference, Side, group_length_penalty
from guerdon.rewards.compose import weighted_sum
from guerdon.rewards.composite import Combined, Composite, bounds_of, broken, group_ids, numbers
from guerdon.rewards.routing import Calibrator, RewardRouter
from guerdon.rewards.text.answer_tags import answer_format
from guerdon.rewards.text.final_answer import rule_verifier
from guerdon.rewards.text.similarity import EmbeddingSimilarityReward

__all__ = ["GroupLengthPenalty", "hybrid_multi_aspect"]


class GroupLengthPenalty(Composite):
    """R + R_len, where R_len = -p_max min(1, d) and d is the distance to the mean length of the group's right answers.

    reward:  R; right means R >= ``tau``. Use tau with rules or calibrated scores: where R is a cosine it can be gamed.
    p_max, side, apply_to, reference:  of `guerdon.objectives.length_penalties.group_length_penalty`.

    Lengths are tokens where the trainer passes ``completion_ids``, else words. A group without a right answer pays
    nothing. Source: HARMO (arXiv 2510.05283), eq. 2 in words; form and magnitudes are UNVERIFIED.
    """

    def __init__(
        self,
        reward: Reward,
        *,
        p_max: float = 0.5,
        tau: float = 1.0,
        side: Side = "two_sided",
        apply_to: ApplyTo = "all",
        reference: Reference = "mean_correct",
        name: str | None = None,
    ) -> None:
        if not p_max >= 0:
            raise GuerdonError(f"p_max must not be negative, got {p_max}")
        self.options: dict[str, Any] = dict(
            p_max=float(p_max), tau=float(tau), side=side, apply_to=apply_to, reference=reference
        )
        low, high = bounds_of(reward)
        super().__init__(
            name or f"{name_of(reward)}_and_length", {name_of(reward): reward}, self.options,
            bounds=(low - p_max, high), groupwise=True,
        )  # fmt: skip

    def scores(self, prompts: Sequence[Any], completions: Any, **columns: Any) -> Scores:
        """As of every composite; the part "length" is what the length cost."""
        ids = columns.get("completion_ids")
        lengths = (
            [len(one) for one in ids] if ids is not None else [len(completion_text(c).split()) for c in completions]
        )
        self._lengths = torch.tensor(lengths, dtype=torch.float64)
        return super().scores(prompts, completions, **columns)

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        (part,) = scored.values()
        said = torch.from_numpy(np.where(part.valid, numbers(part), -np.inf))
        cost = group_length_penalty(self._lengths, said, group_ids=group_ids(prompts, columns), **self.options).numpy()
        part.parts["length"] = np.where(part.valid, cost, np.nan)
        return Combined(numbers(part) + np.where(part.valid, cost, 0.0), part.valid, broken(part))


def hybrid_multi_aspect(
    verifiable: Reward = rule_verifier,
    open_ended: Reward | None = None,
    *,
    calibrator: Calibrator | None = None,
    p_max: float = 0.5,
    form: float = 1.0,
    form_reward: Reward = answer_format,
    name: str = "hybrid_multi_aspect",
) -> Composite:
    """R_hyb + R_len + R_fmt of rows whose column ``task_type`` is "verifiable" or "open".

    verifiable:  a rule, on the column ``solution``. open_ended: a reward model (with its ``calibrator``), or None: the
    similarity to the column ``reference``. p_max: the largest cost of a length. form: weight of the format.
    form_reward: what the format is, by default ``<think>…</think><answer>…</answer>``.

    Train with ``scale_rewards="none"``: the paper's advantages are less the group's mean alone.
    Source: HARMO (arXiv 2510.05283), eq. 3, equal weights; magnitudes are UNVERIFIED, so this is in its manner.
    """
    similar = EmbeddingSimilarityReward() if open_ended is None else open_ended
    calibrators = {"open": calibrator} if calibrator is not None else {}
    routed = RewardRouter({"verifiable": verifiable, "open": similar}, calibrators=calibrators, name="hybrid")
    return weighted_sum(
        {"accuracy": (GroupLengthPenalty(routed, p_max=p_max), 1.0), "format": (form_reward, form)}, name=name
    )
