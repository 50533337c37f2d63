"""Causal models as policies: repeatable by row, whatever the batch, and free copies of one prompt."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from guerdon.core.errors import GuerdonError
from guerdon.models.scalar.tiny import tiny_tokenizer
from guerdon.policies.continuation import CheckpointPolicy

TOKENIZER = tiny_tokenizer(["one two three four five"], vocab=300)


def model(seed: int = 0) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    shape = dict(vocab_size=len(TOKENIZER), hidden_size=16, intermediate_size=32, num_hidden_layers=1, head_dim=8)
    return Qwen3ForCausalLM(Qwen3Config(**shape, num_attention_heads=2, num_key_value_heads=1, initializer_range=0.5))


def test_texts_depend_on_seed_prompt_and_copy_only() -> None:
    policy = CheckpointPolicy(model(), TOKENIZER, max_new_tokens=8, batch_size=2)
    before = torch.random.get_rng_state()
    texts = policy(["one", "one two three", "one"], 5)
    assert torch.equal(before, torch.random.get_rng_state())
    assert texts[0] != texts[2] and policy(["one"], 5)[0] == texts[0]
    wide = CheckpointPolicy(model(), TOKENIZER, max_new_tokens=8, batch_size=3)
    assert wide(["one two three", "one", "one"], 5) == [texts[1], texts[0], texts[2]]
    assert policy(["one"], 6)[0] != texts[0] and not texts[0].startswith("one")


def test_top_k_of_one_is_greedy() -> None:
    policy = CheckpointPolicy(model(), TOKENIZER, max_new_tokens=6, top_k=1)
    assert len({*policy(["one"] * 4, 1), *policy(["one"], 2)}) == 1


def test_a_checkpoint_and_a_template(tmp_path) -> None:
    model().save_pretrained(tmp_path / "lm")
    TOKENIZER.save_pretrained(tmp_path / "lm")
    loaded = CheckpointPolicy.from_pretrained(tmp_path / "lm", dtype=torch.float32, max_new_tokens=4, device="cpu")
    assert loaded(["one"], 1) == CheckpointPolicy(model(), TOKENIZER, max_new_tokens=4)(["one"], 1)
    chat = CheckpointPolicy(model(), TOKENIZER, chat=True, max_new_tokens=4)
    assert TOKENIZER.decode(chat.prompt_ids("one")).endswith("<|im_start|>assistant\n") and chat(["one"], 1) != loaded(
        ["one"], 1
    )
    with pytest.raises(GuerdonError, match="cannot load a policy from"):
        CheckpointPolicy.from_pretrained(tmp_path)
    with pytest.raises(GuerdonError, match="temperature > 0"):
        CheckpointPolicy(model(), TOKENIZER, temperature=0)
