"""A causal language model small enough for a CPU, made on the spot: for tests and runs without weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from guerdon.core.errors import GuerdonError
from guerdon.models.scalar.tiny import tiny_tokenizer

__all__ = ["tiny_causal"]

_POSITIONS = 4096


def tiny_causal(
    texts: Iterable[str], *, hidden: int = 64, layers: int = 2, heads: int = 4, vocab: int = 800, seed: int = 0
) -> tuple[Any, Any]:
    """A randomly initialised ``Qwen3ForCausalLM`` and its ChatML tokenizer, the same for the same arguments.

    texts: what the tokenizer is trained on. hidden: an even multiple of ``heads``. vocab: at most this many tokens.
    """
    if hidden % heads or (hidden // heads) % 2:
        raise GuerdonError(f"hidden must be an even multiple of heads, got hidden={hidden} and heads={heads}")
    tokenizer = tiny_tokenizer(texts, vocab=vocab)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, head_dim=hidden // heads,
        max_position_embeddings=_POSITIONS, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    return model.eval(), tokenizer
