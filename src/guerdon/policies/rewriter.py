"""A prompt-rewriting language model: a short caption in, a caption that makes the picture look like a photograph out.

Source: RealGen (arXiv 2512.00473), stage 1. The paper's instruction, prompts and training code are not released; the
wording below is our own and a configuration field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TopPLogitsWarper,
)

from guerdon.core.answer import parse_answer
from guerdon.core.config import Config
from guerdon.core.errors import GuerdonError

INSTRUCTION = (
    "You write captions for a text-to-image model. Rewrite the caption below so that the picture it makes could pass "
    "for a real photograph: say how the surfaces, the light, the lens and the small imperfections of real things look. "
    "Keep every subject, number, colour and relation of the caption, and add no new subject. First think about what "
    "would give the picture away as generated, then write the new caption in one paragraph. Answer in exactly this "
    "form: <think>your reasoning</think><answer>the new caption</answer>"
)
SETTINGS_FILE = "rewriter.json"


class RewriterConfig(Config):
    """How a rewriter is asked and sampled. ``instruction`` is put before the caption in one user turn."""

    instruction: str = INSTRUCTION
    max_new_tokens: int = Field(default=512, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    require_think: bool = False
    batch_size: int = Field(default=32, ge=1)
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Rewrite:
    """One rewrite. ``text`` is what the image model gets: the answer, or the user's own prompt when ``valid`` is
    False."""

    text: str
    prompt: str
    valid: bool
    completion: str = ""


class KeyedSampling(LogitsProcessor):
    """Turns arg-max decoding into sampling in which every row has a random stream of its own.

    Adds Gumbel noise to the logits over the temperature; the arg-max is then an exact sample from their softmax (the
    Gumbel-max identity). A row's text depends on its own key only, not on what shares its batch.
    """

    def __init__(self, keys: Sequence[int], temperature: float) -> None:
        self.generators = [torch.Generator().manual_seed(key) for key in keys]
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Noisy logits [B, V] for logits [B, V]."""
        noise = torch.stack([torch.empty(scores.shape[1]).exponential_(generator=g) for g in self.generators])
        return scores.float() / self.temperature - noise.log().to(scores.device)


def sampling_key(seed: int, prompt: str, replicate: int) -> int:
    """A 63-bit key of (seed, prompt text, replicate), the same on every machine and in every process."""
    digest = hashlib.blake2b(json.dumps([seed, prompt, replicate]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def conversation(prompt: str, instruction: str) -> list[dict[str, str]]:
    """The messages that ask for a rewrite of one caption: one user turn, since not every template knows a system
    role."""
    return [{"role": "user", "content": f"{instruction}\n{prompt}"}]


class PromptRewriter:
    """Rewrites captions with any causal language model of transformers.

    Args:
        model: the language model; used in place, never copied.
        tokenizer: its tokenizer, with a chat template.
        config: wording and sampling.

    Raises:
        GuerdonError: the tokenizer has no chat template, or drops the answer tags when it decodes.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: RewriterConfig | None = None
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.config = config or RewriterConfig()
        if tokenizer.chat_template is None:
            raise GuerdonError(
                "the rewriter's tokenizer has no chat template; choose an instruction-tuned model, such as Qwen3-4B"
            )
        probe = str(tokenizer.decode(tokenizer("<answer>a b</answer>")["input_ids"], skip_special_tokens=True))
        if parse_answer(probe) is None:
            raise GuerdonError(
                f"the rewriter's tokenizer decodes <answer>a b</answer> as {probe!r}; add the tags as plain tokens"
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        # A decoder-only model continues the last position, so padding has to come first.
        tokenizer.padding_side = "left"

    def conversation(self, prompt: str) -> list[dict[str, str]]:
        """The messages put to the model for one caption."""
        return conversation(prompt, self.config.instruction)

    def rewrite(
        self,
        prompts: Sequence[str],
        n: int = 1,
        temperature: float | None = None,
        greedy: bool = False,
        seed: int = 0,
    ) -> list[Rewrite]:
        """Rewrite every caption ``n`` times; a malformed completion gives back the caption itself, flagged.

        The text of replicate j of a caption depends on (seed, caption, j) only: not on the batch, its order or its
        size, up to rounding in the model's forward pass. The global random state is neither read nor moved.

        Args:
            prompts: N captions.
            n: rewrites per caption; with ``greedy`` they are all equal.
            temperature: overrides the configuration's, > 0.
            greedy: the most probable token at every position.
            seed: of the sampling.

        Returns:
            N * n rewrites, those of one caption next to each other.

        Raises:
            GuerdonError: a caption is not a non-empty string, n < 1 or temperature <= 0.
        """
        temperature = self.config.temperature if temperature is None else temperature
        if n < 1:
            raise GuerdonError(f"rewrites per prompt must be at least 1, got {n}")
        if temperature <= 0:
            raise GuerdonError(f"temperature must be above 0, got {temperature}; use greedy=True for arg-max decoding")
        for index, prompt in enumerate(prompts):
            if not isinstance(prompt, str) or not prompt.strip():
                raise GuerdonError(f"prompt {index} is {prompt!r}; a prompt to rewrite is a non-empty string")
        rows = [(prompt, replicate) for prompt in prompts for replicate in range(n)]
        rewrites: list[Rewrite] = []
        was_training = self.model.training
        self.model.eval()
        try:
            for start in range(0, len(rows), self.config.batch_size):
                batch = rows[start : start + self.config.batch_size]
                noise: list[LogitsProcessor] = []
                if not greedy:
                    noise.append(KeyedSampling([sampling_key(seed, p, j) for p, j in batch], temperature))
                    if self.config.top_p < 1:
                        noise.insert(0, _TopP(self.config.top_p, temperature))
                completions = self._complete([p for p, _ in batch], LogitsProcessorList(noise))
                for (prompt, _), completion in zip(batch, completions, strict=True):
                    answer = parse_answer(completion, require_think=self.config.require_think)
                    rewrites.append(Rewrite(answer or prompt, prompt, answer is not None, completion))
        finally:
            self.model.train(was_training)
        return rewrites

    def _complete(self, prompts: list[str], processors: LogitsProcessorList) -> list[str]:
        tokenized = (
            cast(Any, self.tokenizer)
            .apply_chat_template(
                [self.conversation(p) for p in prompts],
                add_generation_prompt=True,
                tokenize=True,
                padding=True,
                return_dict=True,
                return_tensors="pt",
                **self.config.chat_template_kwargs,
            )
            .to(self.model.device)
        )
        generation = GenerationConfig(
            max_new_tokens=self.config.max_new_tokens,
            do_sample=False,
            repetition_penalty=1.0,  # or the checkpoint's own default would apply
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self._end_tokens(),
        )
        with torch.no_grad():
            output = cast(Any, self.model).generate(
                input_ids=tokenized["input_ids"],
                attention_mask=tokenized["attention_mask"],
                generation_config=generation,
                logits_processor=processors,
            )
        return self.tokenizer.batch_decode(output[:, tokenized["input_ids"].shape[1] :], skip_special_tokens=True)

    def _end_tokens(self) -> list[int]:
        # Chat models end a turn with a token of their own, which only the generation configuration names.
        declared = self.model.generation_config.eos_token_id if self.model.generation_config else None
        ends = declared if isinstance(declared, list) else [declared]
        return sorted({int(t) for t in [*ends, self.tokenizer.eos_token_id] if t is not None})

    def save(self, folder: str | Path) -> Path:
        """Write weights (safetensors), tokenizer and settings into a folder that ``load`` reads."""
        folder = Path(folder)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        (folder / SETTINGS_FILE).write_text(self.config.model_dump_json(indent=1), encoding="utf-8")
        return folder

    @classmethod
    def load(
        cls,
        source: str | Path,
        config: RewriterConfig | None = None,
        dtype: torch.dtype = torch.float32,
        **model_kwargs: Any,
    ) -> PromptRewriter:
        """A rewriter from a saved folder or a hub id; settings come from the folder unless ``config`` is given."""
        settings = Path(source) / SETTINGS_FILE
        if config is None and settings.is_file():
            config = RewriterConfig.model_validate_json(settings.read_text(encoding="utf-8"))
        model = AutoModelForCausalLM.from_pretrained(str(source), dtype=dtype, **model_kwargs)
        return cls(model, AutoTokenizer.from_pretrained(str(source)), config)


class _TopP(LogitsProcessor):
    """Nucleus filter on the tempered distribution; leaves the scale of the logits as it was."""

    def __init__(self, top_p: float, temperature: float) -> None:
        self.warper, self.temperature = TopPLogitsWarper(top_p), temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        kept = self.warper(input_ids, scores / self.temperature)
        return scores.masked_fill(torch.isinf(kept), -torch.inf)
