"""POLAR's claim: its policies are what the docstrings say, and the experiment made tiny runs through."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guerdon.claims import polar
from guerdon.claims.polar import (
    STEPS,
    SYMBOLS,
    Discriminator,
    Size,
    World,
    bigrams,
    chain,
    climb,
    cosine,
    symbol_cosine,
    trained,
    walk,
)

TINY = Size(
    policies=6, triples=150, ranked=30, validated=30, draws=1, tested=80, held_out=6, width=16, pretraining=40,
    tuning=10, updates=4, references=2, group=4,
)  # fmt: skip


def test_chains_are_stochastic_and_uniform_unless_skewed() -> None:
    rng = np.random.default_rng(0)
    for skewed in (False, True):
        matrix = chain(rng, skewed)
        assert matrix.shape == (SYMBOLS, SYMBOLS) and matrix.sum(1) == pytest.approx(1) and matrix.min() > 0
        share = np.linalg.matrix_power(matrix, 60)[0]
        assert (abs(share - 0.1).max() < 1e-9) is not skewed


def test_walks_follow_the_chain() -> None:
    matrix = chain(np.random.default_rng(1), False)
    texts = walk(matrix, 4000, np.random.default_rng(2))
    assert {len(text) for text in texts} == {STEPS + 1}
    found = bigrams(texts).mean(0).view(SYMBOLS, SYMBOLS).numpy()
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert found / found.sum(1, keepdims=True) == pytest.approx(matrix, abs=0.02)


def test_bigrams_and_cosines() -> None:
    rows = bigrams(["01" * 16 + "0", "0" * 33])
    assert rows[0, 1] == 0.5 and rows[0, 10] == 0.5 and rows[1, 0] == 1 and rows.sum(1).tolist() == [1, 1]
    assert cosine(rows, rows).tolist() == pytest.approx([1, 1]) and cosine(rows[:1], rows[1:]).item() == 0
    assert symbol_cosine(rows[:1], rows[1:]).item() == pytest.approx(2**-0.5)


def test_rooms_share_no_policy_and_ranked_triples_are_ranked() -> None:
    world = World(Size(held_out=8), 5)
    assert len(world.chains) == 64 + 16 and not set(world.room("pool")) & set(world.room("test"))
    test = world.ranked("test", 300)
    assert test.accuracy(cosine) > 0.75 and abs(test.accuracy(symbol_cosine) - 0.5) < 0.12
    triples, policies = world.sampled("pool", 50)
    assert len(triples.reference) == 50 and all(own != other for own, other in policies)
    shuffled = test.shuffled("reference", torch.Generator().manual_seed(0))
    assert torch.equal(shuffled.better, test.better) and not torch.equal(shuffled.reference, test.reference)
    assert abs(shuffled.accuracy(cosine) - 0.5) < 0.12


def test_a_blind_model_does_not_see_the_reference() -> None:
    rows = torch.rand(4, 100)
    torch.manual_seed(0)
    seeing, blind = Discriminator(8), Discriminator(8, blind=True)
    assert torch.equal(blind(rows, rows), blind(rows.flip(0), rows))
    assert not torch.equal(seeing(rows, rows), seeing(rows.flip(0), rows))


def test_training_lowers_the_loss_and_repeats() -> None:
    world = World(TINY, 5)
    data, _ = world.sampled("pool", 200)
    models = [polar.fresh(TINY, 5) for _ in range(2)]
    before = data.accuracy(models[0])
    for model in models:
        trained(model, data, 40, TINY, (5, "x"))
    assert data.accuracy(models[0]) > before + 0.1
    assert all(torch.equal(a, b) for a, b in zip(*(model.state_dict().values() for model in models)))


def test_a_policy_climbs_the_cosine() -> None:
    """With a reward that knows transitions, the policy comes closer to its references, and not to permuted ones."""
    size = Size(updates=60, references=4, held_out=4)
    world = World(size, 5)
    near, control = (climb(cosine, world, permuted, size, 5) for permuted in (False, True))  # type: ignore[arg-type]
    assert near["reward gain"] > 0.5 and near["KL drop"] > 0.1
    assert control["KL drop"] < 0.5 * near["KL drop"]


def test_tiny() -> None:
    result = polar.run((1, 2), size=TINY)
    found = result.to_json()
    assert found["slug"] == "polar" and found["verdict"] in ("inconclusive", "fails")  # two seeds cannot hold
    arms = found["details"]["arms"]
    gains = [a - b for a, b in zip(arms["pre-trained + fine-tuned"]["ranked"], arms["fine-tuned only"]["ranked"])]
    assert found["effect"] == pytest.approx(sum(gains) / 2)
    assert {
        "shuffled references",
        "shuffled positives + fine-tuned",
        "cosine of symbols",
        "permuted references",
    } <= set(arms)
    again = polar.run((1,), size=TINY).to_json()["details"]["arms"]
    assert all(again[name][key] == values[key][:1] for name, values in arms.items() for key in values)


@pytest.mark.slow
def test_full_claim() -> None:
    result = polar.run()
    assert result.verdict == "holds", "\n".join(f"{c.outcome}: {c.name}: {c.detail}" for c in result.checks)
