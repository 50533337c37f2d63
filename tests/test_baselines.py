"""Length and bag of words as reward models: fitted by their closed forms, and blind to everything else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guerdon.core.dialogues import embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair
from guerdon.models.baselines import BagOfWords, LengthBaseline, answer_of


def pair(chosen: str, rejected: str, prompt: str = "what?") -> Pair:
    turn = [{"role": "user", "content": prompt}]
    return Pair(turn, [{"role": "assistant", "content": chosen}], [{"role": "assistant", "content": rejected}])


def accuracy(model: LengthBaseline | BagOfWords, pairs: list[Pair]) -> float:
    chosen, rejected = (model.score([p.conversation(side) for p in pairs]) for side in ("chosen", "rejected"))  # type: ignore[arg-type]
    return float(((chosen > rejected).float() + 0.5 * (chosen == rejected).float()).mean())


def test_only_the_answer_is_read() -> None:
    asked = [{"role": "user", "content": "a long question " * 9}, {"role": "assistant", "content": "so"}]
    assert answer_of([*asked, asked[0], {"role": "assistant", "content": "yes"}]) == "yes"
    assert answer_of(asked) == "so" and answer_of("text") == "text" and answer_of(asked[:1]) == ""


def test_length_learns_its_sign() -> None:
    rng = np.random.default_rng(0)
    shorter = [pair("a" * int(n), "a" * int(n + rng.integers(1, 60))) for n in rng.integers(1, 60, 200)]
    assert LengthBaseline().weight == 1.0 and accuracy(LengthBaseline(), shorter) == 0.0
    fitted = LengthBaseline().fit(shorter)
    assert fitted.weight < 0 and accuracy(fitted, shorter) == 1.0
    assert accuracy(LengthBaseline().fit([p.swapped() for p in shorter]), shorter) == 0.0
    values = fitted.score([shorter[0].chosen, "", "abc"])
    assert values.dtype == torch.float32 and values[1] == 0.0
    assert float(values[2]) == pytest.approx(fitted.weight * np.log(4), rel=1e-6)


def test_a_label_that_has_nothing_to_do_with_length_gives_no_weight() -> None:
    both = [pair("short", "a long answer"), pair("another long answer", "brief")]
    both += [one.swapped() for one in both]
    assert LengthBaseline().fit(both).weight == pytest.approx(0.0, abs=1e-6)


def test_a_bag_of_words_finds_the_words() -> None:
    model = BagOfWords().fit(embedded_pairs(600, 0))
    courteous, rude = model.score(["Happy to help. It is for x.", "What a silly thing to ask. It is for x."])
    assert courteous > rude
    held_out = embedded_pairs(400, 1)
    # Manner is in single words; rightness needs the question, which a bag of words does not read.
    assert 0.55 < accuracy(model, held_out) < 0.9
    assert accuracy(BagOfWords().fit([p.swapped() for p in embedded_pairs(600, 0)]), held_out) < 0.45
    assert model.score([]).shape == (0,)


def test_it_is_the_bradley_terry_maximum() -> None:
    """At the maximum the gradient of the penalised likelihood, sum (1 - sigmoid(gap)) difference - w / 2C, is 0."""
    pairs = embedded_pairs(200, 2)
    model = BagOfWords(inverse_penalty=2.0).fit(pairs)
    chosen, rejected = (
        model.words.transform([answer_of(getattr(p, side)) for p in pairs]).toarray() for side in ("chosen", "rejected")
    )
    gaps = (chosen - rejected) @ model.weights
    gradient = ((chosen - rejected) * (1 / (1 + np.exp(gaps)))[:, None]).sum(0) - model.weights / (2 * 2.0)
    assert np.abs(gradient).max() < 0.05 < np.abs(model.weights).max() / (2 * 2.0)


def test_wrong_use() -> None:
    with pytest.raises(GuerdonError, match="must be fitted"):
        BagOfWords().score(["a"])
    for model in (BagOfWords(), LengthBaseline()):
        with pytest.raises(GuerdonError, match="at least one pair"):
            model.fit([])
    with pytest.raises(GuerdonError, match="needs words"):
        BagOfWords().fit([pair("!", "?")])
