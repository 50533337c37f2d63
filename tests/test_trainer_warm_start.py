"""Supervised beginnings of a small policy."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from guerdon.core.errors import GuerdonError
from guerdon.models.tiny_causal import tiny_causal
from guerdon.trainers.language_watch import sample
from guerdon.trainers.warm_start import batches_of, example, teach, warm_start

ROWS = [
    ([{"role": "user", "content": f"Say the {word}."}], f"The {word} is {colour}.")
    for word, colour in (("sky", "blue"), ("grass", "green"), ("night", "black"), ("snow", "white"))
]


def test_a_policy_learns_its_examples_and_is_kept(tmp_path: Path) -> None:
    model, tokenizer = warm_start(ROWS, tmp_path / "begin", steps=80, batch=8, hidden=64, layers=2, vocab=300)
    said = sample(model, tokenizer, [prompt for prompt, _ in ROWS], temperature=1e-4, max_new_tokens=30)
    assert said.texts == [answer for _, answer in ROWS] and said.ended.all()
    again, _ = warm_start([], tmp_path / "begin", steps=60)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])


def test_the_loss_counts_the_answer_alone() -> None:
    model, tokenizer = tiny_causal([answer for _, answer in ROWS], hidden=16, layers=1, heads=2, vocab=270)
    ids, start = example(tokenizer, *ROWS[0])
    assert ids[-1] == tokenizer.eos_token_id and tokenizer.decode(ids[start:-1]) == ROWS[0][1]
    losses: list[float] = []
    teach(model, tokenizer.pad_token_id, [[(ids, start)]], 1, on_step=lambda step, loss: losses.append(loss))
    first, _ = tiny_causal([answer for _, answer in ROWS], hidden=16, layers=1, heads=2, vocab=270)
    with torch.no_grad():
        logits = first(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[start:]))
    assert losses == [pytest.approx(float(expected), abs=1e-5)]


def test_every_pass_takes_every_example_once_in_another_order() -> None:
    examples = [([n], 1) for n in range(6)]
    drawn = [ids[0] for batch in islice(batches_of(examples, 4, 3), 3) for ids, _ in batch]
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == list(range(6)) and drawn[:6] != drawn[6:]
    with pytest.raises(GuerdonError, match="need examples"):
        next(iter(batches_of([], 4, 3)))
    with pytest.raises(GuerdonError, match="batches for 0 only"):
        teach(tiny_causal(["a"], hidden=16, layers=1, heads=2)[0], 0, [], 2)
