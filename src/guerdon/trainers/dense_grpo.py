"""GRPO through TRL with rewards that lie on parts of a completion: every token gets its own return.

TRL sums what its reward functions say to one number a completion. Here the spans of dense rewards are laid onto the
policy's tokens, and the loss that TRL computes from there on (it takes advantages of shape [B, T]) is TRL's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from guerdon.core.adapters import TRLReward, to_trl
from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError
from guerdon.core.identity import name_of
from guerdon.core.outcome import Failed
from guerdon.core.reward import policy_of
from guerdon.core.segments import token_ends, token_offsets
from guerdon.objectives.dense_advantages import Baseline, dense_advantages
from guerdon.rewards.dense import DenseOutcomes, dense_scores, is_dense, total

__all__ = ["DenseGRPO", "DenseRewards"]


class _Recorded:
    """A dense reward as TRL calls it: the sums go to TRL's log, the spans are kept for the advantages."""

    def __init__(self, reward: Any) -> None:
        self.reward, self.__name__ = reward, name_of(reward)
        self.outcomes: DenseOutcomes = []

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        self.outcomes = dense_scores(self.reward, prompts, completions, columns)
        policy = policy_of(self.reward)
        for row, one in enumerate(self.outcomes):
            if isinstance(one, Failed) and policy == "raise":
                raise GuerdonError(f"reward {self.__name__!r} failed on row {row}: {one.kind}: {one.cause}")
        sums = [total(one) for one in self.outcomes]
        if isinstance(policy, float):
            sums = [policy if isinstance(one, Failed) else one for one in sums]
        return [None if one is None or isinstance(one, Failed) else one for one in sums]


class DenseRewards:
    """Mixed into a ``GRPOTrainer``: its dense rewards (`guerdon.rewards.dense`) keep their spans.

    An ordinary reward is paid on the last token. With such rewards alone, each scoring every completion, the loss is
    that of plain GRPO. Where a reward has no score for a completion, its part of the advantage is 0 there (TRL counts a
    missing score as 0 in the sum); ``on_failure`` is followed as everywhere.

    baseline, gamma: of `guerdon.objectives.dense_advantages.dense_advantages`.

    ``scale_rewards`` is TRL's. Raises GuerdonError for ``multi_objective_aggregation`` other than
    "sum_then_normalize", and for losses that know one advantage a completion only.
    """

    baseline: Baseline
    gamma: float

    def __init__(
        self, model: Any, reward_funcs: Any, args: GRPOConfig | None = None, *more: Any,
        baseline: Baseline = "segment", gamma: float = 1.0, **keywords: Any,
    ) -> None:  # fmt: skip
        listed = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
        self.baseline, self.gamma = baseline, gamma
        self._recorded = [_Recorded(one) if is_dense(one) else None for one in listed]
        size = (args or GRPOConfig()).num_generations or 1
        funcs = [kept or _ordinary(one, size) for kept, one in zip(self._recorded, listed)]
        parent: Any = super()
        parent.__init__(model, funcs, args, *more, **keywords)
        trainer: Any = self
        if trainer.multi_objective_aggregation != "sum_then_normalize":
            raise GuerdonError(
                f"dense rewards need multi_objective_aggregation 'sum_then_normalize', got "
                f"{trainer.multi_objective_aggregation!r}"
            )
        if trainer.loss_type == "vespo" or trainer.importance_sampling_level == "sequence":
            raise GuerdonError("dense rewards need a loss a token: no 'vespo', and importance_sampling_level 'token'")

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        trainer: Any = super()
        scored: Tensor = trainer._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._scored = scored
        self._sampled = [list(ids) for ids in completion_ids_list]
        self._texts = [completion_text(one) for one in completions]
        return scored

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        trainer: Any = super()
        output = trainer._generate_and_score_completions(inputs)
        mask = output["completion_mask"].bool()
        if "tool_mask" in output:
            mask = mask & output["tool_mask"].bool()
        output["advantages"] = self._token_advantages(mask)
        return output

    def _token_advantages(self, mask: Tensor) -> Tensor:
        """[n, T] for the completions of this process, their groups being spread over all of them."""
        trainer: Any = self
        accelerator = trainer.accelerator
        n, length = mask.shape
        begin = accelerator.process_index * n
        own = self._scored[begin : begin + n]
        names = sorted({name for found in gather_object([self._aspects()]) for name in found})
        rewards = torch.zeros(n, len(names), length, device=mask.device)
        ended = torch.zeros(n, len(names), length, dtype=torch.int64, device=mask.device)
        weights = trainer.reward_weights.tolist()
        offsets: dict[int, Any] = {}
        for part, (func, aspect) in enumerate(names):
            for row in range(n):
                if torch.isnan(own[row, func]) or not bool(mask[row].any()):
                    continue
                for end, value in self._paid(func, aspect, row, float(own[row, func]), offsets):
                    place = _counted(mask[row], end)
                    rewards[row, part, place] += weights[func] * value
                    ended[row, part, place] += 1
        rewards, ended, whole = (_gathered(accelerator, one) for one in (rewards, ended, mask))
        generations = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
        groups = torch.arange(len(whole), device=mask.device) // generations
        valid = torch.stack([~torch.isnan(self._scored[:, func]) for func, _ in names])
        failed = _gathered(accelerator, self._failed(n).to(mask.device))
        for part, (func, _) in enumerate(names):
            valid[part] &= ~torch.isin(groups, groups[failed[:, func]])
        segments = (ended.cumsum(dim=2) - ended).transpose(0, 1)
        found = dense_advantages(
            rewards.transpose(0, 1), segments, whole, groups, valid=valid, gamma=self.gamma, baseline=self.baseline,
            scale=trainer.scale_rewards,
        )  # fmt: skip
        return found[begin : begin + n, :length]

    def _failed(self, n: int) -> Tensor:
        """[n, rewards]: failures here that drop their group. An ordinary reward drops it itself (`to_trl`)."""
        found = torch.zeros(n, len(self._recorded), dtype=torch.bool)
        for func, kept in enumerate(self._recorded):
            if kept is not None and policy_of(kept.reward) == "drop_group":
                found[:, func] = torch.tensor([isinstance(one, Failed) for one in kept.outcomes])
        return found

    def _aspects(self) -> list[tuple[int, str]]:
        """(place of the reward, aspect) of every part that was scored here."""
        found = {(func, "") for func, kept in enumerate(self._recorded) if kept is None}
        for func, kept in enumerate(self._recorded):
            if kept is not None:
                # A reward whose failures get a number pays it at the end, as a part of its own.
                found.add((func, ""))
                found |= {(func, one.aspect) for row in kept.outcomes if isinstance(row, list) for one in row}
        return sorted(found)

    def _paid(self, func: int, aspect: str, row: int, score: float, offsets: dict[int, Any]) -> list[tuple[int, float]]:
        """(token, value) of what one part pays a completion."""
        kept = self._recorded[func]
        last = len(self._sampled[row]) - 1
        if kept is None or not isinstance(kept.outcomes[row], list):
            return [(last, score)] if aspect == "" else []
        spans = [one for one in kept.outcomes[row] if one.aspect == aspect]  # type: ignore[union-attr]
        wide = [one for one in spans if one.start < one.end]
        if row not in offsets and wide:
            tokenizer = getattr(self, "processing_class", None)
            tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
            offsets[row] = token_offsets(tokenizer, self._sampled[row], self._texts[row])[1]
        ends = token_ends(wide, self._texts[row], offsets[row]) if wide else []
        # An empty span is the whole of an empty completion: its tokens end where it does.
        return [*zip(ends, (one.value for one in wide)), *((last, one.value) for one in spans if one.start == one.end)]


class DenseGRPO(DenseRewards, GRPOTrainer):  # type: ignore[misc]
    """TRL's ``GRPOTrainer`` that accepts dense rewards, with all of its arguments and two more (`DenseRewards`).

    ``DenseGRPO(model, reward_funcs=[ProcessReward(prm), final_answer], args=GRPOConfig(...), train_dataset=data)``
    """


def _ordinary(reward: Any, group_size: int) -> Any:
    """A reward by our contract with its checks and its failure policy; anything else as it is."""
    if isinstance(reward, TRLReward) or not callable(reward) or not hasattr(reward, "on_failure"):
        return reward
    return to_trl(reward, group_size=group_size)


def _counted(mask: Tensor, place: int) -> int:
    """The last token up to ``place`` that counts; the first that does where a tool's reply came before."""
    here = torch.nonzero(mask)[:, 0]
    before = here[here <= place]
    return int(before[-1] if len(before) else here[0])


def _gathered(accelerator: Any, tensor: Tensor) -> Tensor:
    if accelerator.num_processes == 1:
        return tensor
    whole: Tensor = accelerator.gather(accelerator.pad_across_processes(tensor, dim=tensor.ndim - 1))
    return whole
