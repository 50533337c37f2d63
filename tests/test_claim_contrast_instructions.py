"""Contrast instructions' claim: its judges and texts are what the docstrings say, and the experiment made tiny runs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from guerdon.claims import contrast_instructions
from guerdon.claims.contrast_instructions import (
    ARMS,
    FUSIONS,
    Judge,
    Meanings,
    NoisyJudge,
    Size,
    crossed,
    floor,
    fused,
    measured,
    preferences,
    trained,
)
from guerdon.policies.rollout import keyed_generator

TINY = Size(keys=6, pairs=200, tested=200, steps=40, batch=32, dialogues=60, contrasts=40)


def test_pairs_differ_in_one_thing() -> None:
    key, chosen, rejected = preferences(4000, 0.9, Size(), keyed_generator(1))
    by_quality = chosen // 2 == rejected // 2
    assert torch.equal(chosen // 2, key) and float(by_quality.float().mean()) == pytest.approx(0.9, abs=0.02)
    assert set(chosen[by_quality].remainder(2).tolist()) == {1} and set(rejected[by_quality].remainder(2).tolist()) == {
        0
    }
    assert torch.equal(chosen[~by_quality] % 2, rejected[~by_quality] % 2)


def test_the_crossed_loss_reads_rows_of_different_instructions() -> None:
    judge, key = Judge(TINY, 0), torch.tensor([0, 0, 1, 2])
    answers = 2 * key + 1
    loss = crossed(judge, key, answers, "own", keyed_generator(0))
    # Beside each row the one before it: (1, 0), (2, 1) and (0, 2) differ, (0, 0) does not.
    want = [
        -torch.nn.functional.logsigmoid(judge(i, a) - judge(i, b))
        - torch.nn.functional.logsigmoid(judge(i, a) - judge(j, a))
        for i, a, j, b in ([torch.tensor(one) for one in row] for row in ((0, 1, 2, 5), (1, 3, 0, 1), (2, 5, 1, 3)))
    ]
    assert loss.item() == pytest.approx(torch.stack(want).mean().item())
    # Right or wrong answers by a coin: no better than not to look, for any judge.
    many = torch.arange(6).repeat(500)
    assert crossed(judge, many, 2 * many + 1, "random", keyed_generator(0)).item() >= 2 * math.log(2) - 0.02


def test_a_judge_that_knows_everything_is_consistent() -> None:
    class Knows(torch.nn.Module):
        def forward(self, instruction: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
            return 2.0 * (instruction == answer // 2) + answer % 2

    class Blind(torch.nn.Module):
        def forward(self, instruction: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
            return (answer % 2 + 0 * instruction).float()

    assert set(measured(Knows(), "97% quality", TINY, 1).values()) == {1.0}  # type: ignore[arg-type]
    blind = measured(Blind(), "97% quality", Size(), 1)  # type: ignore[arg-type]
    assert blind["accuracy"] > 0.97 and blind["c_res"] == blind["c_ins"] == blind["joint"] == 0


def test_training_repeats_and_crossed_pairs_differ_from_random_ones() -> None:
    own, again, random = (
        trained(arm, TINY, 3) for arm in ("97% + crossed", "97% + crossed", "97% + crossed at random")
    )
    assert all(torch.equal(a, b) for a, b in zip(own.state_dict().values(), again.state_dict().values()))
    assert (
        measured(own, "97% + crossed", TINY, 3)["joint"] > measured(random, "97% + crossed at random", TINY, 3)["joint"]
    )


def test_meanings_have_the_similarities_they_say() -> None:
    rows = Meanings(0.85, 3)
    near = [rows([f"{n} 0 0 asked", f"{n} 0 0 1", f"{n} 1 0 1", f"{n} 0 1 1", f"{n + 1} 0 0 1"]) for n in range(60)]
    cosines = sum(one @ one.T for one in near)[0] / 60
    assert cosines[1:] == pytest.approx([0.98, 0.98 * 0.925, 0.98 * 0.75, 0.0], abs=0.03)
    turned = Meanings(0.85, 3, turned=True)(["7 0 0 asked", "7 0 1 1", "7 0 0 1"])
    assert turned[0] @ turned[1] > 0.95 > 0.9 > turned[0] @ turned[2]


def test_noise_belongs_to_the_wording() -> None:
    judge = NoisyJudge(0.5, 1)
    texts = [f"{n} 0 {n % 2} asked" for n in range(400)]
    scores = judge.score(texts)
    assert torch.equal(judge.score(texts[:3]), scores[:3]) and judge.score(["0 0 0 1"]) != scores[0]
    noise = scores - torch.tensor([1.0, 0.0]).repeat(200)
    assert float(noise.mean()) == pytest.approx(0, abs=0.1) and float(noise.std()) == pytest.approx(0.5, abs=0.06)


def test_fusion_without_noise_changes_what_its_neighbours_mean() -> None:
    size = replace(TINY, noise=0.0)
    alone, same, other = (fused(kind, size, 2) for kind in FUSIONS[:3])
    assert alone["c_res"] == same["c_res"] == 1 and same["noise"] == pytest.approx(0, abs=1e-9)
    assert other["c_res"] == other["c_ins"] == 0
    noisy = fused("same meaning", replace(TINY, contrasts=150), 2)
    # Five neighbours of cosine 0.98 beside the text itself: (1 + 5 * 0.96) / (1 + 4.9)^2.
    assert noisy["noise"] == pytest.approx(0.1667, abs=0.03) and noisy["off"] < 0.03


def test_the_floor_is_measured_on_mined_pairs() -> None:
    found = floor(TINY, 1)
    assert found["pairs"] > 10 and found["c_res"] > 0.5


def test_tiny() -> None:
    result = contrast_instructions.run((1, 2), size=TINY)
    found = result.to_json()
    assert found["slug"] == "contrast-instructions" and found["verdict"] in ("inconclusive", "fails")  # two seeds
    arms = found["details"]["arms"]
    assert set(arms) == {*ARMS, "shared words", *FUSIONS}
    gains = [a - b for a, b in zip(arms["97% + crossed"]["joint"], arms["97% quality"]["joint"])]
    assert found["effect"] == pytest.approx(sum(gains) / 2)
    again = contrast_instructions.run((1,), size=TINY).to_json()["details"]["arms"]
    assert all(again[name][key] == values[key][:1] for name, values in arms.items() for key in values)


@pytest.mark.slow
def test_full_claim() -> None:
    result = contrast_instructions.run()
    assert result.verdict == "holds", "\n".join(f"{c.outcome}: {c.name}: {c.detail}" for c in result.checks)
