"""The hook by which a reward reaches the policy that a TRL trainer trains."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from guerdon.core.errors import GuerdonError
from guerdon.rewards.policy_bound import bind_policy, policy_bound

__all__ = ["PolicyLink"]


class PolicyLink(TrainerCallback):
    """Hands the policy, its tokenizer and the sampling temperature to the rewards that ask for them.

        reward = SelfAlignedReward()
        GRPOTrainer(model, reward_funcs=reward, callbacks=[PolicyLink(reward)], ...)

    rewards: those given to the trainer; what they are made of is searched. Raises GuerdonError where none needs it.

    The model is the trainer's own, adapters included, so the weights are those that wrote the completions. It is linked
    when training begins; for an evaluation before that, call ``link``. Rewards run in the trainer's process: one inside
    a `Scorer` with a deadline, whose worker has no policy, cannot be reached.
    """

    def __init__(self, *rewards: Any) -> None:
        if not policy_bound(*rewards):
            raise GuerdonError("none of the rewards asks for the policy, so there is nothing to link")
        self.rewards = list(rewards)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        """Link, before the first completion is sampled."""
        self.link(args, model, processing_class)

    def link(self, args: Any, model: Any, tokenizer: Any) -> None:
        """Hand over ``model`` and ``tokenizer`` with the temperature and template arguments of ``args``."""
        temperature = float(getattr(args, "temperature", 1.0) or 1.0)
        template = getattr(args, "chat_template_kwargs", None)
        bind_policy(
            self.rewards, model, getattr(tokenizer, "tokenizer", tokenizer), temperature=temperature, template=template
        )
