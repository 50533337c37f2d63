"""The self-aligned reward: how much the question helps the policy to predict its own answer, beside a verifier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash, name_of
from guerdon.core.reward import Reward
from guerdon.models.sequence_log_probs import Blank, blank_question, chat_ids, sequence_log_probs
from guerdon.objectives.self_alignment import Variant, self_aligned, token_gains
from guerdon.rewards.compose import anneal
from guerdon.rewards.composite import Combined, Composite, bounds_of, broken, numbers, scaled
from guerdon.rewards.policy_bound import AsksPolicy
from guerdon.rewards.text.final_answer import rule_verifier

__all__ = ["AlignmentDetail", "SelfAlignedReward", "SelfAlignment"]

Gate = Literal["correct", "incorrect"]


@dataclass(frozen=True)
class AlignmentDetail:
    """value: R_SA. with_question, without_question: the two perplexities of the answer. gains: log P(token | question)
    - log P(token), one a token of ``ids``: where the question speaks."""

    value: float
    with_question: float
    without_question: float
    gains: list[float]
    ids: list[int]


class SelfAlignment(AsksPolicy):
    """R_SA = clip(1 - ppl(a | q) / ppl(a)): the part that the policy itself judges. It never sees whether a is right.

    Never climb it alone: in the paper it then fell to 21% accuracy in answers of 84 tokens. `SelfAlignedReward` has it
    beside a verifier. Copying the question into the answer raises it too (each entity gains where it is first said).

    variant, clip: `guerdon.objectives.self_alignment.self_aligned`. blank: how the question is left out
    (`blank_question`). batch_size: rows a forward pass.

    The policy is handed over by `guerdon.trainers.policy_link.PolicyLink` in a TRL trainer, or by ``bind_policy``; its
    weights are no part of the identity, for they change at every step. Answers are the token ids that TRL passes
    (``completion_ids``, the closing token included); without them the text is tokenised again, without a closing token.
    An empty answer gets 0.

    Source: Self-Aligned Reward (arXiv 2509.05489).
    """

    groupwise = False
    on_failure = "raise"
    version = "1"

    def __init__(
        self,
        *,
        variant: Variant = "relative",
        clip: tuple[float, float] | None = (-1.0, 1.0),
        blank: Blank = "empty_user",
        batch_size: int = 8,
        name: str = "self_alignment",
    ) -> None:
        if variant not in get_args(Variant):
            raise unknown("variant of the self-aligned reward", variant, get_args(Variant))
        if blank not in get_args(Blank):
            raise unknown("way to leave out the question", blank, get_args(Blank))
        if clip is not None and not clip[0] < clip[1]:
            raise GuerdonError(f"reward {name!r}: clip must be (low, high) with low < high, got {clip}")
        self.variant, self.clip, self.blank, self.batch_size = variant, clip, blank, batch_size
        self.range = (min(clip[0], 0.0), max(clip[1], 0.0)) if clip is not None else None
        self.__name__ = name

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], *, completion_ids: Any = None, **columns: Any
    ) -> list[float]:
        """N rewards. Raises GuerdonError without a policy, or for token ids that are not one list a completion."""
        asked, alone, mask, _ = self._both(prompts, completions, completion_ids)
        if not mask.shape[1]:
            return [0.0] * len(completions)
        return self._values(asked, alone, mask).double().tolist()

    def explain(
        self, prompts: Sequence[Any], completions: Sequence[Any], *, completion_ids: Any = None
    ) -> list[AlignmentDetail]:
        """Value, perplexities and the gain of each token: for maps of where credit belongs."""
        asked, alone, mask, ids = self._both(prompts, completions, completion_ids)
        values = self._values(asked, alone, mask) if mask.shape[1] else torch.zeros(len(ids))
        gains = token_gains(asked, alone, mask)
        found = []
        for row, tokens in enumerate(ids):
            size = len(tokens)
            with_q, without_q = (float(part[row, :size].mean()) if size else 0.0 for part in (asked, alone))
            told = gains[row, :size].tolist()
            found.append(AlignmentDetail(float(values[row]), math.exp(-with_q), math.exp(-without_q), told, tokens))
        return found

    def _values(self, asked: Tensor, alone: Tensor, mask: Tensor) -> Tensor:
        # Rounding may leave a certain token's log-probability a hair above zero.
        return self_aligned(asked.clamp(max=0), alone.clamp(max=0), mask, variant=self.variant, clip=self.clip)

    def _both(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any
    ) -> tuple[Tensor, Tensor, Tensor, list[list[int]]]:
        model, tokenizer, temperature, template = self.bound()
        ids = self.ids_of(prompts, completions, completion_ids)
        whole = [chat_ids(prompt, tokenizer, template) for prompt in prompts]
        blank = [blank_question(prompt, tokenizer, self.blank, template) for prompt in prompts]
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        options: dict[str, Any] = {"temperature": temperature, "batch_size": self.batch_size, "pad_id": int(pad)}
        asked, mask = sequence_log_probs(model, whole, ids, **options)
        alone, _ = sequence_log_probs(model, blank, ids, **options)
        return asked, alone, mask, ids

    def identity(self) -> str:
        """Name, version, and a hash of the settings."""
        settings = [self.variant, None if self.clip is None else list(self.clip), self.blank]
        return f"{self.__name__}@{self.version}#{config_hash(settings)}"


class SelfAlignedReward(Composite):
    """R = R_VR + alpha R_SA: a verifier's reward, and a little for answers that the question explains.

    verifier:  of {0, 1}; default `rule_verifier` on the column ``solution``.
    alpha:     0.2, the paper's (swept from 0.05 to 0.3).
    gate:      None, as published: wrong answers are paid R_SA too; "correct" or "incorrect": only those (ours).
    schedule:  (step, factor) knots that ``alpha`` follows (`anneal`); needs a trainer.
    other arguments: of `SelfAlignment`.

    Train it without division by the group's deviation (TRL: ``scale_rewards="none"``, ``loss_type="dr_grpo"``), as the
    paper does: else a group that is all right or all wrong gets full-size advantages from R_SA alone. The parts
    "verifier" and "self_alignment" are logged.

    Source: Self-Aligned Reward (arXiv 2509.05489).
    """

    def __init__(
        self,
        verifier: Reward = rule_verifier,
        *,
        alpha: float = 0.2,
        gate: Gate | None = None,
        schedule: Sequence[tuple[int, float]] | None = None,
        variant: Variant = "relative",
        clip: tuple[float, float] | None = (-1.0, 1.0),
        blank: Blank = "empty_user",
        batch_size: int = 8,
        name: str = "self_aligned",
    ) -> None:
        if gate is not None and gate not in get_args(Gate):
            raise unknown("gate of the self-aligned reward", gate, [*get_args(Gate), "None"])
        if not 0 <= alpha < float("inf"):
            raise GuerdonError(f"reward {name!r}: alpha must be a finite number of at least 0, got {alpha}")
        self.alpha, self.gate = float(alpha), gate
        own: Reward = SelfAlignment(variant=variant, clip=clip, blank=blank, batch_size=batch_size)
        if schedule is not None:
            own = anneal(own, schedule, name="self_alignment")
        low, high = bounds_of(verifier)
        ends = scaled(bounds_of(own), self.alpha)
        settings = {"alpha": self.alpha, "gate": gate, "verifier": name_of(verifier)}
        super().__init__(
            name,
            {"verifier": verifier, "self_alignment": own},
            settings,
            bounds=(low + min(ends[0], 0.0), high + ends[1]),
        )

    def _combine(self, scored: Mapping[str, Any], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        verified, own = scored["verifier"], scored["self_alignment"]
        right = numbers(verified) >= 0.5
        open_ = np.ones_like(right) if self.gate is None else right if self.gate == "correct" else ~right
        values = numbers(verified) + self.alpha * np.where(open_, numbers(own), 0.0)
        return Combined(values, verified.valid & own.valid, broken(verified) | broken(own))
