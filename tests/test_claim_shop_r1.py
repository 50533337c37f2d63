"""The claim on Shop-R1: who is right how often, what is paid, the policies that do nothing, a small run, the whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from guerdon.claims.shop_r1 import BASELINE, CLAIMED, SHARES, Policy, Size, Teacher, credit, quick, run, trained

SIZE = replace(Size(), tests=1000)


def test_right_actions_have_the_papers_shares() -> None:
    generator = torch.Generator().manual_seed(3)
    shop = Teacher.drawn(SIZE, generator).shop(6000, generator)
    shares = torch.bincount(shop.types, minlength=3) / 6000
    assert shares.tolist() == pytest.approx(SHARES, abs=0.03)
    assert bool((shop.names[shop.types == 2] == 0).all()) and int(shop.actions(20).max()) == 40


def test_what_is_paid() -> None:
    paid = credit(20, 10.0)
    assert paid.outer.shape == (41, 41) and paid.outer[40, 40] == pytest.approx(0.8)
    assert (paid.outer[0, 0] + paid.values[0, 0]).item() == pytest.approx(11.0)
    assert (paid.outer[25, 25] + paid.values[25, 25]).item() == pytest.approx(11.1)
    assert paid.values[40].sum() == 0 and paid.outer[0, 40] == pytest.approx(0.5)


def test_log_probabilities_sum_to_one() -> None:
    policy = Policy(SIZE)
    with torch.no_grad():
        for part in policy.parameters():
            part.normal_(generator=torch.Generator().manual_seed(1))
    prompt = torch.randn(1, SIZE.features)
    total = sum(
        policy.of(prompt, torch.tensor([kind]), torch.tensor([name])).exp().item()
        for kind in range(3)
        for name in range(SIZE.names if kind < 2 else 1)
    )
    assert total == pytest.approx(1.0, abs=1e-5)


def test_doing_nothing() -> None:
    teacher = Teacher.drawn(SIZE, torch.Generator().manual_seed(1))
    constant = trained("always terminate", teacher, SIZE, 1)
    assert constant["says terminate"] == 1 and constant["exact"] == constant["type accuracy"] < 0.31
    assert constant["exact, not terminate"] == 0 and constant["macro F1"] < 0.16
    assert trained("warm start", teacher, SIZE, 1)["type accuracy"] > 0.4


def test_exact_match_drifts_and_the_hierarchy_does_not() -> None:
    teacher = Teacher.drawn(SIZE, torch.Generator().manual_seed(2))
    exact, credited = (trained(name, teacher, SIZE, 2) for name in (BASELINE, CLAIMED))
    assert exact["says terminate"] > credited["says terminate"] + 0.03
    assert credited["macro F1"] > exact["macro F1"]


def test_a_small_run_has_every_arm() -> None:
    result = quick(seeds=(1, 2, 3))
    assert len(result.arms) == 10 and len(result.checks) == 6 and result.seeds == [1, 2, 3]
    assert result.to_json()["verdict"] in ("holds", "fails", "inconclusive")


@pytest.mark.slow
def test_full_claim() -> None:
    assert run((11, 12, 13)).verdict == "holds"
