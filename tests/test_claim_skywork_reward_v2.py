"""The skywork-reward-v2 claim: its worlds, and the experiment made tiny."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.claims.skywork_reward_v2 import Clusters, Size, World, curation, fit, retrieval, run

TINY = Size(gold=120, silver=120, wild=400, tested=400, steps=60, gold_steps=60, looks=3, labelled=120, targets=40)


def test_pools_have_the_cards_shares_of_wrong_labels() -> None:
    size = Size(silver=4000, wild=8000, tested=100)
    world = World(1, size)
    assert world.wrong(world.gold) == 0 and world.wrong(world.tested) == 0
    assert world.wrong(world.wild) == pytest.approx(0.44, abs=0.02)
    assert world.wrong(world.silver) == pytest.approx(0.31, abs=0.03)
    assert world.wrong([pair.swapped() for pair in world.wild]) == pytest.approx(1 - world.wrong(world.wild))


def test_a_model_learns_from_clean_pairs_and_the_best_state_is_kept() -> None:
    size = Size(gold=400, silver=10, wild=10, tested=400, gold_steps=150, steps=150, looks=5)
    world = World(2, size)
    assert world.accuracy(fit(world, world.gold, 2, size), world.tested) > 0.75
    last = fit(world, world.silver, 2, size)
    best = fit(world, world.silver, 2, size, world.gold)
    assert world.accuracy(best, world.gold) >= world.accuracy(last, world.gold)


def test_arms_and_filter() -> None:
    rows, quality = curation(3, TINY)
    assert len(rows) == 8 and all(0 <= row["accuracy"] <= 1 for row in rows.values())
    assert quality["wrong in kept"] < quality["wrong in wild"] < quality["wrong in flipped"]
    assert 0 < quality["kept"] and quality["kept"] + quality["flipped"] < 1
    assert curation(3, TINY) == (rows, quality)


def test_clusters_have_criteria_of_their_own() -> None:
    world = Clusters(4, Size(labelled=200, targets=300))
    common = world.score([pair.conversation("chosen") for pair in world.truth]) - world.score(
        [pair.conversation("rejected") for pair in world.truth]
    )
    assert 0.6 < np.mean(common > 0) < 0.8  # what is common to all tells something, and not enough
    wrong = np.mean([pair.chosen != true.chosen for pair, true in zip(world.targets, world.truth, strict=True)])
    assert wrong == pytest.approx(0.3, abs=0.08)
    embedded = world.embed(["user: 0", "user: 1"])
    assert embedded.shape == (2, 16) and not np.allclose(embedded, world.elsewhere(["user: 0", "user: 1"]))


def test_examples_shown() -> None:
    rows = retrieval(5, TINY)
    assert rows["always 8"]["examples"] == 8 and rows["none"]["examples"] == 0
    assert 0 < rows["adaptive"]["examples"] < 8
    assert rows["adaptive"]["examples"] == pytest.approx(rows["as many, dealt at random"]["examples"])
    assert rows["adaptive"]["examples"] == pytest.approx(rows["random examples, adaptive"]["examples"])


def test_the_flip_gain_is_claimed_with_ten_seeds_only() -> None:
    few = run((1, 2), size=TINY)
    assert few.verdict != "holds" and few.effect.low == -np.inf
    assert not any("turned round" in check.name for check in few.checks)
    assert any("no claim with fewer than 10 seeds" in note for note in few.notes)


@pytest.mark.slow
def test_with_ten_seeds_it_is_a_check() -> None:
    many = run(tuple(range(10)), size=TINY)
    assert any("turned round" in check.name for check in many.checks)
