"""A rewriter small enough for two CPU cores: a real Qwen3 language model over the embedded base model's small world.

The world is made of captions "a {style words} {kind} of {subject}" (``core/photographs.py``). ``cold_start`` teaches
the form and leaves the choice of style words uniform, so that reinforcement learning, not imitation, decides which of
them look real (RealGen, arXiv
2512.00473, does not say whether its rewriter had a supervised start: UNVERIFIED).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from guerdon.core import photographs
from guerdon.core.errors import GuerdonError
from guerdon.core.progress import progress
from guerdon.policies.rewriter import PromptRewriter, RewriterConfig, conversation

SUBJECTS = tuple(subject.name for subject in photographs.SUBJECTS)
SHORT_INSTRUCTION = "Rewrite this caption so that the picture looks like a real photograph. Keep its content."

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True)
class StylePhrases:
    """The words a rewrite may choose from. ``good`` and ``bad`` are alike to the cold start; only a reward tells them
    apart."""

    good: tuple[str, ...] = photographs.SHARP_WORDS
    bad: tuple[str, ...] = photographs.SMOOTH_WORDS
    tones: tuple[str, ...] = photographs.LIGHT_WORDS
    distances: tuple[str, ...] = photographs.FRAMING_WORDS
    kinds: tuple[str, ...] = photographs.KINDS

    @property
    def quality(self) -> tuple[str, ...]:
        """Good and bad words together."""
        return self.good + self.bad

    def caption(self, subject: str, kind: str, styles: Iterable[str] = ()) -> str:
        """The caption "a|an {style words} {kind} of {subject}"."""
        words = [*styles, kind]
        return " ".join(["an" if words[0][0] in "aeiou" else "a", *words, "of", subject])


def tiny_config() -> RewriterConfig:
    """Settings of the tiny rewriter: a short instruction and captions of at most 48 tokens."""
    return RewriterConfig(instruction=SHORT_INSTRUCTION, max_new_tokens=48, require_think=True, batch_size=128)


def user_prompts(phrases: StylePhrases | None = None, subjects: Sequence[str] = SUBJECTS) -> list[str]:
    """Every user prompt of the world: the bare subject, and "a [tone|distance] {kind} of {subject}"."""
    phrases = phrases or StylePhrases()
    styled = [
        phrases.caption(subject, kind, [style] if style else [])
        for subject, kind, style in product(subjects, phrases.kinds, ("", *phrases.tones, *phrases.distances))
    ]
    return [*subjects, *styled]


def synthetic_pairs(
    count: int, phrases: StylePhrases | None = None, subjects: Sequence[str] = SUBJECTS, seed: int = 0
) -> list[tuple[str, str]]:
    """``count`` pairs (user prompt, completion) in which the style words are uniformly random.

    A rewrite keeps what the user asked for (subject, and kind, tone and distance where named), adds one (or, in a third
    of them, two) of the quality words and may add a tone and a distance, in the order of the base model's own captions.

    Args:
        count: number of pairs.
        phrases, subjects: the world.
        seed: of the draws.
    """
    phrases = phrases or StylePhrases()
    draw = random.Random(seed)
    pairs = []
    for _ in range(count):
        subject, style, kind = draw.choice(subjects), "", draw.choice(phrases.kinds)
        if draw.random() < 0.3:
            prompt = subject
        else:
            if draw.random() < 0.5:
                style = draw.choice(phrases.tones + phrases.distances)
            prompt = phrases.caption(subject, kind, [style] if style else [])
        words = draw.sample(phrases.quality, draw.choice((1, 1, 2)))
        for axis in (phrases.tones, phrases.distances):
            if style in axis:
                words.append(style)
            elif draw.random() < 0.3:
                words.append(draw.choice(axis))
        answer = phrases.caption(subject, kind, words)
        pairs.append((prompt, f"<think>keep {subject}</think><answer>{answer}</answer>"))
    return pairs


def tiny_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which every word of ``texts`` is one token and any other text falls back to
    bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        min_frequency=1,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    # Not special, or decoding with skip_special_tokens would lose the very tags that the reward reads.
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in _TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=_TEMPLATE,
        padding_side="left",
    )


def tiny_rewriter(
    phrases: StylePhrases | None = None,
    subjects: Sequence[str] = SUBJECTS,
    *,
    hidden: int = 96,
    layers: int = 2,
    heads: int = 4,
    config: RewriterConfig | None = None,
    seed: int = 0,
) -> PromptRewriter:
    """An untrained rewriter: a randomly initialised ``Qwen3ForCausalLM`` (about 0.3 M parameters) and its tokenizer.

    Args:
        phrases, subjects: the world, whose words become single tokens.
        hidden, layers, heads: size of the model; ``hidden`` is a multiple of ``heads``.
        config: wording and sampling; default ``tiny_config()``.
        seed: of the weights.

    Raises:
        GuerdonError: ``hidden`` is not a multiple of ``heads``, or a world without subjects.
    """
    phrases, config = phrases or StylePhrases(), config or tiny_config()
    if hidden % heads:
        raise GuerdonError(f"hidden size {hidden} is not a multiple of {heads} heads")
    if not subjects:
        raise GuerdonError("a rewriter's world needs at least one subject")
    words = [*phrases.quality, *phrases.tones, *phrases.distances, *phrases.kinds, *subjects]
    texts = [
        config.instruction,
        "a an of keep",
        " a an",
        "user\nassistant\nsystem\n",
        *words,
        *(f" {w}" for w in words),
    ]
    tokenizer = tiny_tokenizer(texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=len(tokenizer),
                hidden_size=hidden,
                intermediate_size=hidden * 2,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=heads,
                head_dim=hidden // heads,
                max_position_embeddings=1024,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    return PromptRewriter(model, tokenizer, config)


def cold_start(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    steps: int = 300,
    *,
    config: RewriterConfig | None = None,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Teach the answer's form by supervised next-token prediction on (user prompt, completion) pairs, in place.

    Only completion tokens and the end-of-turn token count. AdamW with warm-up and cosine decay.

    Args:
        model, tokenizer: as in ``PromptRewriter``.
        pairs: user prompt and full completion, tags included.
        steps, batch_size, learning_rate: of the optimiser; batches are drawn with replacement.
        config: gives the instruction; the same one has to be used for sampling. Default ``tiny_config()``.
        seed: of the batches.
        on_step: called with (step, loss), for progress.

    Returns:
        The loss of each step, mean nats per completion token.

    Raises:
        GuerdonError: no pairs, or a loss that is not finite.
    """
    if not pairs:
        raise GuerdonError("cold start needs at least one (prompt, completion) pair")
    instruction = (config or tiny_config()).instruction
    examples = [_example(tokenizer, prompt, completion, instruction) for prompt, completion in pairs]
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    warmup = max(1, min(20, steps // 10))
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warmup), eta_min=learning_rate * 0.02),
        ],
        milestones=[warmup],
    )
    draw, losses = random.Random(seed), []
    was_training = model.training
    model.train()
    for step in range(steps):
        batch = [examples[draw.randrange(len(examples))] for _ in range(batch_size)]
        ids, labels = _pad(batch, int(tokenizer.pad_token_id or 0))
        # Pads come last and attention is causal, so no real token sees one and the mask can be left out.
        loss = model(input_ids=ids.to(model.device), labels=labels.to(model.device)).loss
        if not torch.isfinite(loss):
            raise GuerdonError(f"cold start: the loss at step {step} is {loss.item()}; lower the learning rate")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if on_step is not None:
            on_step(step, losses[-1])
    model.train(was_training)
    return losses


def started_rewriter(subjects: Sequence[str] = SUBJECTS, *, steps: int = 600, seed: int = 0) -> PromptRewriter:
    """A cold-started tiny rewriter for a world of ``subjects``, with a progress bar."""
    rewriter = tiny_rewriter(subjects=subjects, seed=seed)
    with progress(steps, "rewriter: cold start") as bar:
        cold_start(
            rewriter.model, rewriter.tokenizer, synthetic_pairs(4000, subjects=subjects, seed=seed), steps,
            seed=seed, on_step=lambda step, loss: bar.advance(loss=loss),
        )  # fmt: skip
    return rewriter


def _example(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, instruction: str
) -> tuple[list[int], int]:
    turn: Any = tokenizer.apply_chat_template(
        conversation(prompt, instruction), add_generation_prompt=True, tokenize=True, return_dict=True
    )
    asked = turn["input_ids"]
    # Tokenised apart, as it will be when sampled: a merge across the border would never be seen again.
    answered = tokenizer(completion, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return [*asked, *answered], len(asked)


def _pad(batch: list[tuple[list[int], int]], pad: int) -> tuple[Tensor, Tensor]:
    length = max(len(ids) for ids, _ in batch)
    ids = torch.full((len(batch), length), pad)
    labels = torch.full((len(batch), length), -100)
    for row, (tokens, start) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = torch.tensor(tokens[start:])
    return ids, labels
