"""Measured divergence of language models: exact on a short answer, nothing without a move, unbiased on samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from guerdon.cli.benching_overoptimisation import Climbed, Sampling, bench_overoptimisation
from guerdon.core.errors import GuerdonError
from guerdon.models.scalar.tiny import tiny_tokenizer
from guerdon.policies.divergence import MovedPolicy, divergence_along

TEXTS = ["the kettle boils water", "a saw cuts wood"]


def language_model(tokenizer: Any, seed: int, vocab: int | None = None) -> Any:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab or len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=128, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    made = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        made.lm_head.weight.mul_(20)
    return made


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer(TEXTS, vocab=280)


def test_one_step_is_the_divergence_of_two_laws(tokenizer: Any) -> None:
    own, other = language_model(tokenizer, 0), language_model(tokenizer, 1)
    ids = tokenizer(TEXTS[0])["input_ids"]
    with torch.no_grad():
        p, q = ((model(torch.tensor([ids])).logits[0, -1]).double().log_softmax(-1) for model in (own, other))
    expected = float((p.exp() * (p - q)).sum())
    assert divergence_along(own, other, ids, [5]) == pytest.approx(expected, rel=1e-4) and expected > 0.1
    assert divergence_along(own, own, ids, [5, 6, 7]) == pytest.approx(0.0, abs=1e-6)
    assert divergence_along(own, own, ids, [5, 6], temperature=0.5) > 0.05
    assert divergence_along(own, other, ids, []) == 0.0
    with pytest.raises(GuerdonError, match="prompt of one token"):
        divergence_along(own, other, [], [5])
    with pytest.raises(GuerdonError, match="vocabularies"):
        divergence_along(own, language_model(tokenizer, 1, len(tokenizer) + 8), ids, [5])


def test_along_samples_it_is_the_log_ratio_on_average(tokenizer: Any) -> None:
    base = language_model(tokenizer, 0)
    cold = MovedPolicy(base, base, tokenizer, temperature=0.8, max_new_tokens=2, batch_size=200)
    prompts = [TEXTS[0]] * 200
    texts, nats = cold.samples(prompts, 3)
    assert (texts, nats) == cold.samples(prompts, 3) and min(nats) >= 0
    # The same by enumeration of the first token and of the law after it, where the answer goes on.
    ids = tokenizer(TEXTS[0])["input_ids"]
    with torch.no_grad():
        logits = base(torch.tensor([ids])).logits[0, -1].double()
        first = (logits / 0.8).log_softmax(-1)
        after = base(torch.tensor([[*ids, token] for token in range(len(tokenizer))])).logits[:, -1].double()
    step = (first.exp() * (first - logits.log_softmax(-1))).sum()
    own = (after / 0.8).log_softmax(-1)
    second = (own.exp() * (own - after.log_softmax(-1))).sum(-1)
    second[tokenizer.eos_token_id] = 0.0  # the answer has ended
    expected = float(step + (first.exp() * second).sum())
    assert sum(nats) / len(nats) == pytest.approx(expected, rel=0.15)


def test_checkpoints_and_temperatures_by_the_command(tokenizer: Any, tmp_path: Path) -> None:
    for name, seed in (("base", 0), ("later", 1)):
        language_model(tokenizer, seed).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "{text} {n}"}}\n' for text in TEXTS for n in range(3)))
    rewards = tmp_path / "letters.py"
    rewards.write_text(
        "def many(prompts, completions, **columns):\n    return [float(len(text)) for text in completions]\n\n"
        "def few(prompts, completions, **columns):\n    return [float(text.count('a')) for text in completions]\n"
    )
    sampling = Sampling(str(tmp_path / "base"), [str(tmp_path / "later")], [0.5], samples=4, max_new_tokens=6)
    out = tmp_path / "out"
    climbed = Climbed(f"{rewards}:many", f"{rewards}:few")
    bench_overoptimisation(climbed, str(prompts), sampling, out=out, as_json=True)
    import json

    told = json.loads((out / "result.json").read_text())
    kls = {one["policy"]: one["kl"][0] for one in told["policies"]}
    assert len(kls) == 2 and min(kls.values()) > 0 and told["best_of_n"][-1]["n"] == 4
    before = (out / "answers.jsonl").read_bytes()
    bench_overoptimisation(climbed, str(prompts), sampling, out=out, as_json=True)
    assert (out / "answers.jsonl").read_bytes() == before
    with pytest.raises(GuerdonError, match="go with --policy"):
        bench_overoptimisation(climbed, str(prompts), Sampling(temperatures=[0.5]))
