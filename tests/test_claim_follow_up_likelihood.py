"""The claim on follow-up likelihood: the made dialogues, the window model, a small run, and the whole of it (slow)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from guerdon.claims.follow_up_likelihood import (
    IGNORED,
    LENGTH,
    Size,
    accuracy,
    batch_of,
    fresh,
    made,
    mined_policy,
    quick,
    reactions,
    run,
)


def test_dialogues() -> None:
    told = made(4000, np.random.default_rng(1))
    assert np.array_equal(told.right, (told.requests == told.said).all(axis=1))
    praised = told.reaction < 10
    assert praised[told.right].mean() == pytest.approx(0.8, abs=0.05)
    assert praised[~told.right].mean() == pytest.approx(0.2, abs=0.05)
    dealt = made(4000, np.random.default_rng(1), shuffled=True)
    assert abs((dealt.reaction < 10)[dealt.right].mean() - (dealt.reaction < 10)[~dealt.right].mean()) < 0.08
    said = reactions()
    assert len(said) == 20 and len({tuple(one) for one in said}) == 20


def test_what_is_learnt_of_a_dialogue() -> None:
    told = made(50, np.random.default_rng(1))
    ids, labels = batch_of(told, part="reaction")
    assert ids.shape == (50, LENGTH)
    silent, _ = batch_of(told, part="without")
    for row, reaction in enumerate(told.reaction):
        learnt = labels[row][labels[row] != IGNORED].tolist()
        assert learnt[:-1] == reactions()[reaction]
        assert not set(silent[row].tolist()) & set(learnt[:-1])


def test_the_window_model_looks_only_back() -> None:
    model = fresh(Size(), 1)
    ids = torch.randint(24, (2, LENGTH))
    other = ids.clone()
    other[:, 5:] = 3
    torch.testing.assert_close(model(ids).logits[:, :5], model(other).logits[:, :5])


def test_a_judge_that_knows_and_one_that_does_not() -> None:
    def knows(request, said, filler) -> float:
        return float(np.sum(np.asarray(request) == np.asarray(said)))

    size = replace(Size(), prompts=60)
    assert accuracy(knows, 50, np.random.default_rng(1)) == 1
    assert accuracy(lambda request, said, filler: 0.0, 50, np.random.default_rng(1)) == 0.5
    right, chance = (mined_policy(one, size, np.random.default_rng(1)) for one in (knows, None))
    assert right > 0.5 and abs(chance - 0.25) < 0.12


def test_a_small_run_has_every_arm() -> None:
    result = quick(seeds=(1, 2, 3))
    assert len(result.arms) == 13 and len(result.checks) == 10 and result.seeds == [1, 2, 3]
    assert result.to_json()["verdict"] in ("holds", "fails", "inconclusive")


@pytest.mark.slow
def test_full_claim() -> None:
    # The tuned scorers scatter too much over three seeds for a verdict; the judge, its control and the mining do not.
    result = run((11, 12, 13))
    outcomes = {check.name: check.outcome for check in result.checks}
    assert "failed" not in outcomes.values()
    assert outcomes["the reward tells right from wrong better than the response's likelihood"] == "passed"
    assert outcomes["reactions dealt out anew teach nothing"] == "passed"
