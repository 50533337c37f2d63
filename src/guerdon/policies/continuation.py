"""Any causal language model as a policy that continues texts or answers prompts, reproducibly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from guerdon.core.errors import GuerdonError
from guerdon.policies.rewriter import KeyedSampling, sampling_key

Sampler = Callable[[Sequence[str], int], Sequence[str]]
"""``sampler(prompts, seed)``: one text a prompt; the same prompt given twice gets two independent samples."""


class CheckpointPolicy:
    """A `Sampler` made of a causal language model: ``policy(prompts, seed) -> texts``, without the prompts.

    chat:         put each prompt as a user turn through the chat template; else the text itself is continued.
    temperature, top_p, top_k, max_new_tokens:  of the sampling; those of POLAR (arXiv 2507.05197), section 3.3.
    batch_size:   prompts a forward pass.

    The text of the j-th copy of a prompt depends on (seed, prompt, j) only, up to rounding in the forward pass; the
    global random state is neither read nor moved. Raises GuerdonError for ``chat`` without a template.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        chat: bool = False,
        temperature: float = 1.0,
        top_p: float = 0.9,
        top_k: int = 50,
        max_new_tokens: int = 4096,
        batch_size: int = 16,
        name: str | None = None,
    ) -> None:
        if chat and not getattr(tokenizer, "chat_template", None):
            raise GuerdonError("chat=True needs a tokenizer with a chat template")
        if not temperature > 0 or max_new_tokens < 1 or batch_size < 1:
            raise GuerdonError("a policy needs temperature > 0, max_new_tokens >= 1 and batch_size >= 1")
        self.model, self.tokenizer, self.chat = model.eval(), tokenizer, chat
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size
        self.name = name or getattr(model.config, "_name_or_path", "") or type(model).__name__
        self._warpers = [TemperatureLogitsWarper(float(temperature)), TopKLogitsWarper(top_k), TopPLogitsWarper(top_p)]
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        # A decoder continues the last position, so padding has to come first.
        tokenizer.padding_side = "left"

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, device: str | None = None, dtype: Any = "auto", **options: Any
    ) -> CheckpointPolicy:
        """From a hub id or folder; ``options`` as in the constructor. Raises GuerdonError where it cannot be loaded."""
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(str(source), dtype=dtype)
            tokenizer = AutoTokenizer.from_pretrained(str(source))
        except (OSError, ValueError) as error:
            raise GuerdonError(f"cannot load a policy from {str(source)!r}: {str(error).splitlines()[0]}") from error
        model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(model, tokenizer, **{"name": str(source), **options})

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], seed: int) -> list[str]:
        """One sampled text a prompt, without control tokens."""
        copies: Counter[str] = Counter()
        keys = []
        for prompt in prompts:
            keys.append(sampling_key(seed, prompt, copies[prompt]))
            copies[prompt] += 1
        texts: list[str] = []
        for start in range(0, len(prompts), self.batch_size):
            rows = slice(start, start + self.batch_size)
            texts += self._continue([self._rendered(prompt) for prompt in prompts[rows]], keys[rows])
        return texts

    def _rendered(self, prompt: str) -> str:
        if not self.chat:
            return prompt
        turn = [{"role": "user", "content": prompt}]
        return self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)

    def _continue(self, texts: list[str], keys: Sequence[int]) -> list[str]:
        # A template writes its own opening token, which the tokenizer would write again.
        made = self.tokenizer(
            texts, padding=True, add_special_tokens=not self.chat, return_tensors="pt", return_token_type_ids=False
        ).to(self.model.device)
        declared = getattr(self.model.generation_config, "eos_token_id", None)
        ends = {*(declared if isinstance(declared, list) else [declared]), self.tokenizer.eos_token_id} - {None}
        output = self.model.generate(
            **made,
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=self.max_new_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=sorted(ends) or None,
            ),  # fmt: skip
            # The warpers leave a distribution, of which the arg-max after keyed noise is a sample.
            logits_processor=LogitsProcessorList([*self._warpers, KeyedSampling(keys, 1.0)]),
        )
        return self.tokenizer.batch_decode(output[:, made["input_ids"].shape[1] :], skip_special_tokens=True)
