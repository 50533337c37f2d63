"""The claim's world and models, and the experiment made tiny."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from guerdon.claims import secrets_rlhf_2 as claim
from guerdon.claims.noisy_pairs import FEATURES, NoisyPairs, RewardNet

TINY = claim.Size(
    pairs=240, tested=200, members=2, epochs=2, repeats=1, alone_epochs=1, responses=3, best_of=3, prompts=40
)


def test_the_world_of_the_card():
    world = NoisyPairs(4000, 11)
    wrong = np.mean([pair.row["truth"] < 0 for pair in world.pairs])
    assert wrong == pytest.approx(0.32, abs=0.03)
    assert float(world.reward(world.table).std()) == pytest.approx(1.3, abs=0.05)
    chosen, rejected = world.reward(world.sides(world.pairs))
    assert [pair.row["truth"] for pair in world.pairs] == torch.where(chosen > rejected, 1, -1).tolist()
    assert all(pair.row["truth"] == 1 for pair in NoisyPairs(300, 11, clean=True).pairs)
    assert torch.equal(NoisyPairs(300, 11, clean=True).table, NoisyPairs(300, 11).table)


def test_the_product_is_what_a_linear_model_does_not_see():
    for share in (0.1, 1 / 3):
        world = NoisyPairs(4000, 12, product=share)
        reward = world.reward(world.table).numpy()
        fitted = world.table.numpy() @ np.linalg.lstsq(world.table.numpy(), reward, rcond=None)[0]
        assert 1 - np.var(fitted) / np.var(reward) == pytest.approx(share, abs=0.04)


def test_training_repeats_and_leaves_the_global_generator_alone():
    world = NoisyPairs(100, 1)
    state = torch.get_rng_state()
    first, second = (claim.fit(world, world.pairs, 3, TINY, epochs=2, two_passes=True) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    points = torch.randn(5, FEATURES, generator=torch.Generator().manual_seed(0))
    assert_close(first.rewards(points), second.rewards(points), rtol=0, atol=0)
    other = claim.fit(world, world.pairs, 4, TINY, epochs=2, two_passes=True)
    assert not torch.equal(first.rewards(points), other.rewards(points))


def test_the_policy_is_the_best_of_several():
    world = NoisyPairs(100, 1)
    climbed = RewardNet(world, 5)
    test = claim.Test(world, climbed, 1, TINY)
    assert test.shifted.shape == test.meta.shape == test.old.shape == (40, 3, FEATURES)
    assert (
        climbed.rewards(test.shifted).mean() > climbed.rewards(test.old).mean() + 0.5 * climbed.rewards(test.old).std()
    )
    better, worse = world.reward(test.shifted_pairs)
    assert (better >= worse).all() and test.accuracy(climbed) == test.measures(climbed)["accuracy"]


def test_tiny_claim():
    result = claim.run((1, 2), size=TINY)
    arms = {arm.name: arm for arm in result.arms}
    assert {*claim.RELABELLED, "MetaRM: as printed", "contrast: SwAV, diff", "clean: base", "slow: base"} <= set(arms)
    gain = arms["soft + margin"].values("accuracy") - arms["base"].values("accuracy")
    assert result.effect.value == pytest.approx(gain.mean()) and result.verdict in ("inconclusive", "fails")
    assert arms["flip 20%"].mean("wrong labels") < arms["base"].mean("wrong labels")
    assert arms["flip 10%, shuffled"].mean("wrong labels") > arms["flip 10%"].mean("wrong labels")
    shown = [arms[f"MetaRM: {name}"].values("shifted J")[0] for name in claim.META]
    assert len(set(shown)) == len(shown)  # every variant trained another model
    again = claim.run((1,), size=TINY).to_json()["details"]["arms"]
    assert again == {name: {m: [float(v[0])] for m, v in arm.measures.items()} for name, arm in arms.items()}


@pytest.mark.slow
def test_full_claim():
    """What the claim found must be found again: labels help, and MetaRM as printed narrows the spread."""
    result = claim.run()
    outcomes = {check.name: check.outcome for check in result.checks}
    assert result.verdict == "fails" and "failed" not in [o for name, o in outcomes.items() if "labels" in name]
    assert outcomes["labels: soft + margin beats base"] == "passed"
    assert outcomes["MetaRM as printed raises J on shifted answers"] == "failed"
