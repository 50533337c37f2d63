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

    def __call__(self, prompts: Sequence[str], seed: int) -> list[str]:
        """One sampled text a prompt, without control tokens."""
        copies: Counter[str] = Counter()
        keys = []
        for prompt in prompts:
            keys.append(sampling_key(seed, prompt, copies[prompt]))
            copies[prompt] += 1
        rows = self.continue_ids([self.prompt_ids(prompt) for prompt in prompts], keys, self.max_new_tokens)
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)

    def prompt_ids(self, prompt: str) -> list[int]:
        """The token ids that an answer to ``prompt`` follows."""
        if not self.chat:
            return self.tokenizer(prompt)["input_ids"]
        turn = [{"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        # A template writes its own opening token, which the tokenizer would write again.
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @property
    def ends(self) -> set[int]:
        """The ids of tokens that end an answer."""
        declared = getattr(self.model.generation_config, "eos_token_id", None)
        return {*(declared if isinstance(declared, list) else [declared]), self.tokenizer.eos_token_id} - {None}

    @torch.no_grad()
    def continue_ids(self, rows: Sequence[Sequence[int]], keys: Sequence[int], max_new_tokens: int) -> list[list[int]]:
        """New token ids of each row of ids, at most ``max_new_tokens``; the token that ends an answer is kept.

        A row's sample depends on its ids and its key (`guerdon.policies.rewriter.sampling_key`) only.
        """
        ends = self.ends
        made: list[list[int]] = []
        for start in range(0, len(rows), self.batch_size):
            some = [list(row) for row in rows[start : start + self.batch_size]]
            given = self.tokenizer.pad({"input_ids": some}, return_tensors="pt").to(self.model.device)
            output = self.model.generate(
                **given,
                generation_config=GenerationConfig(
                    do_sample=False,
                    max_new_tokens=max_new_tokens,
                    pad_token_id=self.tokenizer.pad_token_id,
                    eos_token_id=sorted(ends) or None,
                ),  # fmt: skip
                # The warpers leave a distribution, of which the arg-max after keyed noise is a sample.
                logits_processor=LogitsProcessorList(
                    [*self._warpers, KeyedSampling(keys[start : start + self.batch_size], 1.0)]
                ),
            )
            for row in output[:, given["input_ids"].shape[1] :].tolist():
                stop = next((place for place, token in enumerate(row) if token in ends), len(row) - 1)
                made.append(row[: stop + 1])
        return made
