"""How far a language model has moved from another: sampled answers, and the divergence along each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.policies.continuation import CheckpointPolicy
from guerdon.policies.rewriter import sampling_key

__all__ = ["MovedPolicy", "divergence_along"]


@torch.no_grad()
def divergence_along(
    model: Any,
    reference: Any,
    prompt: Sequence[int],
    answer: Sequence[int],
    *,
    temperature: float = 1.0,
    reference_temperature: float = 1.0,
) -> float:
    """sum_t KL(pi(. | x, y_<t) || pi_ref(. | x, y_<t)) in nats along the answer y (token ids) to the prompt x.

    Averaged over answers sampled from pi it is unbiased for KL(pi || pi_ref) of whole answers, with less variance than
    log pi(y) - log pi_ref(y) (its conditional expectation step by step), and never negative. Raises GuerdonError for an
    empty prompt or vocabularies that differ.
    """
    if not prompt:
        raise GuerdonError("a divergence needs a prompt of one token or more")
    if not answer:
        return 0.0
    device = next(model.parameters()).device
    ids = torch.tensor([[*prompt, *answer]], device=device)
    begin = len(prompt) - 1
    own = model(input_ids=ids).logits[0, begin:-1].float() / temperature
    other = reference(input_ids=ids.to(next(reference.parameters()).device)).logits[0, begin:-1].to(device).float()
    if own.shape != other.shape:
        raise GuerdonError(f"vocabularies of {own.shape[-1]} and {other.shape[-1]} tokens cannot be compared")
    logs: tuple[Tensor, Tensor] = own.log_softmax(-1), (other / reference_temperature).log_softmax(-1)
    return float((logs[0].exp() * (logs[0] - logs[1])).sum())


class MovedPolicy:
    """A causal language model at a temperature, beside the one that it came from.

    samples(prompts, seed) -> (texts, nats): answers and `divergence_along` each. Sampling is plain, without top-p or
    top-k, under which the divergence would not be that of what was sampled. Arguments as in `CheckpointPolicy`.
    """

    def __init__(
        self,
        model: Any,
        reference: Any,
        tokenizer: Any,
        *,
        temperature: float = 1.0,
        chat: bool = False,
        max_new_tokens: int = 256,
        batch_size: int = 16,
        name: str | None = None,
    ) -> None:
        vocabulary = int(model.config.get_text_config().vocab_size)
        self.policy = CheckpointPolicy(
            model, tokenizer, chat=chat, temperature=temperature, top_p=1.0, top_k=vocabulary,
            max_new_tokens=max_new_tokens, batch_size=batch_size, name=name,
        )  # fmt: skip
        self.reference, self.temperature = reference.eval(), temperature
        self.name = name or f"{self.policy.name} at {temperature:g}"

    def samples(self, prompts: Sequence[str], seed: int) -> tuple[list[str], list[float]]:
        """One sampled answer a prompt, and the nats along it."""
        policy, copies, keys = self.policy, Counter[str](), []
        for prompt in prompts:
            keys.append(sampling_key(seed, prompt, copies[prompt]))
            copies[prompt] += 1
        asked = [policy.prompt_ids(prompt) for prompt in prompts]
        rows = policy.continue_ids(asked, keys, policy.max_new_tokens)
        nats = [
            divergence_along(policy.model, self.reference, ids, row, temperature=self.temperature)
            for ids, row in zip(asked, rows, strict=True)
        ]
        return policy.tokenizer.batch_decode(rows, skip_special_tokens=True), nats
