"""Preference pairs of made-up words with the lengths of hh-rlhf, and models to score them: for the benchmarks here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification, Qwen3Config, Qwen3ForSequenceClassification

from guerdon.core.preferences import Pair
from guerdon.models.scalar.tiny import tiny_tokenizer

# Means and standard deviations of log(words + 1) over the 1,396 readable pairs of hh-rlhf's harmless-base test set:
# all turns of a prompt together, and an answer.
PROMPT_WORDS, ANSWER_WORDS = (3.88, 1.11), (3.09, 0.90)
TURNS, TURN_SHARES = (1, 3, 5, 7, 9), (0.28, 0.24, 0.22, 0.16, 0.10)


def made_pairs(count: int, seed: int = 0) -> list[Pair]:
    """Pairs whose two answers share a prompt of one to nine turns; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, size=rng.integers(2, 9))) for _ in range(800)]
    # Few words are said often and many seldom, as in any language.
    chance = 1 / np.arange(1, len(words) + 1)
    chance /= chance.sum()

    def say(length: int) -> str:
        return " ".join(rng.choice(words, size=max(1, length), p=chance))

    pairs = []
    for _ in range(count):
        turns = int(rng.choice(TURNS, p=TURN_SHARES))
        length = int(np.exp(rng.normal(*PROMPT_WORDS))) // turns
        roles = ["user" if turn % 2 == 0 else "assistant" for turn in range(turns)]
        prompt = [{"role": role, "content": say(length)} for role in roles]
        answers = [[{"role": "assistant", "content": say(int(np.exp(rng.normal(*ANSWER_WORDS))))}] for _ in range(2)]
        pairs.append(Pair(prompt, *answers))
    return pairs


def save_classifier(folder: Path, pairs: list[Pair], kind: str, hidden: int, layers: int) -> None:
    """Write a randomly initialised sequence classifier of one label and a tokenizer that knows the pairs' words."""
    texts = {str(message["content"]) for pair in pairs for message in pair.conversation("chosen")}
    tokenizer = tiny_tokenizer(texts)
    heads = max(4, hidden // 64)
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": hidden, "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads // 2,
        "head_dim": hidden // heads, "max_position_embeddings": 4096, "bos_token_id": None, "num_labels": 1,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    torch.manual_seed(0)
    model = (
        Qwen3ForSequenceClassification(Qwen3Config(**shape))
        if kind == "qwen3"
        else LlamaForSequenceClassification(LlamaConfig(**shape))
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
