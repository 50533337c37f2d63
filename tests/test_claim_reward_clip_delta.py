"""The claim on Clip and Delta: the chain's rules, the gradient, a small run, and the whole of it (slow)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from guerdon.claims.reward_clip_delta import FILLER, FINISH, PROGRESS, SCORES, WRONG, Size, play, quick, run, train

SIZE = Size(rollouts=64)


def certain(*actions: int) -> torch.Tensor:
    """Logits that take one action in each state (k, not wrong): the k-th given, the last one from then on."""
    logits = torch.full((2 * len(actions), 4), -50.0)
    for made, action in enumerate(actions):
        logits[2 * made : 2 * made + 2, action] = 50.0
    return logits


def test_only_a_whole_solution_wins() -> None:
    generator = torch.Generator().manual_seed(0)
    won = play(certain(PROGRESS, PROGRESS, PROGRESS, FINISH), 3, SIZE, SCORES, generator)
    assert bool(won.won.all()) and won.mask.sum(dim=1).tolist() == [4] * 64
    torch.testing.assert_close(won.scores[0], torch.tensor([0.8, 0.8, 0.8, 0.9]))
    early = play(certain(PROGRESS, FINISH, FINISH, FINISH), 3, SIZE, SCORES, generator)
    assert not bool(early.won.any()) and early.scores[0].tolist() == pytest.approx([0.8, 0.3])
    filler = play(certain(FILLER, FILLER, FILLER, FILLER), 3, SIZE, SCORES, generator)
    assert not bool(filler.won.any()) and filler.mask.shape[1] == SIZE.cap
    wrong = torch.full((8, 4), -50.0)
    wrong[0, WRONG] = wrong[1, PROGRESS] = wrong[3, PROGRESS] = wrong[5, PROGRESS] = wrong[7, FINISH] = 50.0
    assert not bool(play(wrong, 3, SIZE, SCORES, generator).won.any()), "a wrong step spoils what follows"


def test_raw_scores_are_hacked_and_bounded_ones_are_not() -> None:
    size = replace(Size(), rollouts=64)
    success, raw, both = (train(mode, 3, 150, size, 3) for mode in (None, "none", "clip_delta"))  # type: ignore[arg-type]
    assert success["accuracy"] > 0.9 and both["accuracy"] > 0.9
    assert raw["accuracy"] < 0.1 and raw["return"] > 2 * success["return"]


def test_a_small_run_has_every_arm() -> None:
    result = quick(seeds=(1, 2, 3))
    assert len(result.arms) == 8 and len(result.checks) == 5 and result.seeds == [1, 2, 3]
    assert result.to_json()["verdict"] in ("holds", "fails", "inconclusive")
    assert [section.title for section in result.sections] == ["short chain, at the end", "long chain"]


@pytest.mark.slow
def test_full_claim() -> None:
    assert run((11, 12, 13)).verdict == "holds"
